//! Scripts, as `tests/centrifuge/README.md` describes them.

/// An encoding of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Encoding {
    Json,
    Protobuf,
}

impl Encoding {
    pub(super) const BOTH: [Self; 2] = [Self::Json, Self::Protobuf];

    /// The encoding's name in scripts and transcripts.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Protobuf => "protobuf",
        }
    }
}

/// A script: the steps of one or more clients.
#[derive(Debug, Clone)]
pub(super) struct Script {
    pub(super) name: String,
    /// The name of the servers' configuration in `tests/centrifuge/servers`.
    pub(super) servers: String,
    /// The encodings in which the script runs.
    pub(super) encodings: Vec<Encoding>,
    pub(super) steps: Vec<Step>,
}

/// A line of the script with its continuation lines.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) lines: Vec<String>,
    pub(super) act: Act,
}

/// The action of a step.
#[derive(Debug, Clone)]
pub(super) enum Act {
    /// Defines the token `name`. The claims are a template.
    Token {
        name: String,
        claims: String,
        options: Vec<String>,
    },
    /// Opens a connection. It has this query and these subprotocols, or those that are usual for
    /// `encoding` if that is set.
    Open {
        client: String,
        query: String,
        subprotocols: Option<String>,
        encoding: Option<Encoding>,
    },
    /// Sends commands in one frame. Each command is a template.
    Send {
        client: String,
        commands: Vec<String>,
    },
    /// Sends a frame with the content `text`, which is a template.
    Raw { client: String, text: String },
    /// Sends a binary frame.
    Hex { client: String, bytes: Vec<u8> },
    /// Waits until the server sends something unprompted.
    Wait { client: String },
    /// Sends a WebSocket ping.
    Ping { client: String },
    /// Closes the client's socket.
    Close { client: String },
    /// Publishes through the server's API. The data is a template.
    Publish { channel: String, data: String },
    /// Disconnects a user through the server's API.
    Disconnect { user: String },
}

impl Script {
    /// Reads the scripts of a file.
    pub(super) fn parse_all(text: &str) -> Result<Vec<Self>, String> {
        let mut scripts: Vec<Self> = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let problem = |problem: String| format!("line {}: {problem}", at + 1);
            if let Some(name) = line.strip_prefix("== ") {
                scripts.push(Self::named(name));
                continue;
            }
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let script = scripts
                .last_mut()
                .ok_or_else(|| problem("no script".to_owned()))?;
            script.line(line).map_err(problem)?;
        }
        Ok(scripts)
    }

    fn named(name: &str) -> Self {
        Self {
            name: name.trim().to_owned(),
            servers: "default".to_owned(),
            encodings: Encoding::BOTH.to_vec(),
            steps: Vec::new(),
        }
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "servers" => rest.clone_into(&mut self.servers),
            "only" => self.encodings.retain(|encoding| encoding.name() == rest),
            "" => {
                let step = self.steps.last_mut().ok_or("nothing to continue")?;
                let Act::Send { commands, .. } = &mut step.act else {
                    return Err("only commands are continued".to_owned());
                };
                commands.push(line.trim().to_owned());
                step.lines.push(line.to_owned());
            }
            _ => self.steps.push(Step {
                lines: vec![line.to_owned()],
                act: Act::parse(word, rest)?,
            }),
        }
        Ok(())
    }
}

impl Act {
    fn parse(word: &str, rest: &str) -> Result<Self, String> {
        let rest = rest.to_owned();
        if let Some((client, form)) = word.split_once('>') {
            let client = client.to_owned();
            return match form {
                "" => Ok(Self::Send {
                    client,
                    commands: vec![rest],
                }),
                "raw" => Ok(Self::Raw {
                    client,
                    text: rest.replace("\\n", "\n"),
                }),
                "hex" => Ok(Self::Hex {
                    client,
                    bytes: bytes(&rest)?,
                }),
                _ => Err(format!("{word} is no form of a frame")),
            };
        }
        let words = rest.split_whitespace();
        Ok(match word {
            "token" => {
                let mut words = words.map(str::to_owned);
                let mut next = || words.next().ok_or("a token needs a name and claims");
                Self::Token {
                    name: next()?,
                    claims: next()?,
                    options: words.collect(),
                }
            }
            "open" => open(words),
            "wait" => Self::Wait { client: rest },
            "ping" => Self::Ping { client: rest },
            "close" => Self::Close { client: rest },
            "publish" => {
                let (channel, data) = rest.split_once(' ').ok_or("a channel and data")?;
                Self::Publish {
                    channel: channel.to_owned(),
                    data: data.to_owned(),
                }
            }
            "disconnect" => Self::Disconnect { user: rest },
            _ => return Err(format!("{word} is no step")),
        })
    }
}

fn open<'a>(words: impl Iterator<Item = &'a str>) -> Act {
    let (mut client, mut query, mut subprotocols) = (String::new(), String::new(), None);
    let mut encoding = None;
    for word in words {
        match word.split_once('=') {
            Some(("query", value)) => value.clone_into(&mut query),
            Some(("subprotocols", value)) => subprotocols = Some(value.to_owned()),
            Some(("encoding", value)) => {
                encoding = Encoding::BOTH
                    .into_iter()
                    .find(|encoding| encoding.name() == value);
            }
            _ => word.clone_into(&mut client),
        }
    }
    Act::Open {
        client,
        query,
        subprotocols,
        encoding,
    }
}

fn bytes(digits: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<char> = digits
        .chars()
        .filter(|digit| !digit.is_whitespace())
        .collect();
    let byte = |pair: &[char]| {
        u8::from_str_radix(&String::from_iter(pair), 16).map_err(|error| error.to_string())
    };
    digits.chunks(2).map(byte).collect()
}
