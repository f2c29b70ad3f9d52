//! Transcripts: files that describe conversations line by line, and that are replayed against a
//! gateway.
//!
//! The format is described in `tests/transcripts/README.md`.

use std::collections::HashMap;
use std::future::pending;
use std::net::SocketAddr;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use serde_json::Value;

use crate::mint::{Key, claims};
use crate::{Connect, OutFrame, WsClient, json, opcode, unix_now};

/// The name of the client in a line that names no client.
const UNNAMED: &str = "";

/// A parsed transcript.
#[derive(Debug, Default)]
pub struct Script {
    /// Settings that the gateway needs, as `section.key = value`.
    pub settings: Vec<String>,
    /// Configuration text (TOML) that replaces the default rules. If it is empty, the default rules
    /// apply.
    pub rules: String,
    steps: Vec<(usize, Step)>,
}

#[derive(Debug, PartialEq)]
enum Step {
    Token {
        name: String,
        claims: Vec<(String, String)>,
    },
    Connect {
        client: String,
        token: Option<String>,
        source: String,
    },
    Send {
        client: String,
        text: String,
    },
    Binary {
        client: String,
        text: String,
    },
    Receive {
        client: String,
        expect: Value,
    },
    Close {
        client: String,
        code: u16,
        reason: String,
    },
    Quiet {
        client: String,
    },
}

impl Script {
    /// Reads a transcript. The error names the line of the fault.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut script = Self::default();
        for (number, line) in text
            .lines()
            .enumerate()
            .map(|(at, line)| (at + 1, line.trim()))
        {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let step = if let Some(rules) = line.strip_prefix('|') {
                script
                    .rules
                    .push_str(rules.strip_prefix(' ').unwrap_or(rules));
                script.rules.push('\n');
                continue;
            } else if let Some(setting) = line.strip_prefix("! set ") {
                script.settings.push(setting.to_owned());
                continue;
            } else if let Some(directive) = line.strip_prefix('!') {
                parse_directive(directive)
            } else {
                parse_line(line)
            };
            let step = step.map_err(|problem| format!("line {number}: {problem}: {line}"))?;
            script.steps.push((number, step));
        }
        Ok(script)
    }

    /// Replays the transcript against the gateway at `address`. `key` signs the tokens that the
    /// gateway accepts. Panics at the first line that differs from the gateway's behaviour. The
    /// message of the panic names the line.
    pub async fn run(&self, address: SocketAddr, key: &Key) {
        let mut stage = Stage {
            address,
            key: key.clone(),
            tokens: HashMap::new(),
            clients: HashMap::new(),
        };
        for (line, step) in &self.steps {
            stage
                .perform(step)
                .await
                .unwrap_or_else(|problem| panic!("line {line}: {problem}"));
        }
    }
}

fn parse_directive(directive: &str) -> Result<Step, String> {
    let mut words = directive.split_whitespace();
    let name = words.next().unwrap_or_default();
    let (options, mut names): (Vec<&str>, Vec<&str>) = words.partition(|word| word.contains('='));
    let option = |wanted: &str| {
        let mut found = options.iter().filter_map(|option| option.split_once('='));
        found
            .find(|(name, _)| *name == wanted)
            .map(|(_, value)| value.to_owned())
    };
    match name {
        "token" => Ok(Step::Token {
            name: names.pop().ok_or("a token needs a name")?.to_owned(),
            claims: options
                .iter()
                .filter_map(|option| option.split_once('='))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        }),
        "connect" => Ok(Step::Connect {
            client: names.pop().unwrap_or(UNNAMED).to_owned(),
            token: option("token"),
            source: option("source").unwrap_or_else(|| "header".to_owned()),
        }),
        "binary" => Ok(Step::Binary {
            client: option("client").unwrap_or_default(),
            text: names.join(" "),
        }),
        "quiet" => Ok(Step::Quiet {
            client: names.pop().unwrap_or(UNNAMED).to_owned(),
        }),
        _ => Err("no such directive".to_owned()),
    }
}

fn parse_line(line: &str) -> Result<Step, String> {
    let at = line
        .find(['>', '<'])
        .ok_or("neither a comment, a directive, > nor <")?;
    let client = line[..at].trim().to_owned();
    let text = line[at + 1..].trim().to_owned();
    if line.as_bytes()[at] == b'>' {
        return Ok(Step::Send { client, text });
    }
    if let Some(close) = text.strip_prefix("close ") {
        let (code, reason) = close.split_once(' ').unwrap_or((close, ""));
        let code = code.parse().map_err(|_| "not a close code")?;
        let reason = reason.trim().to_owned();
        return Ok(Step::Close {
            client,
            code,
            reason,
        });
    }
    let expect = match text.as_str() {
        "*" => Value::from("<any>"),
        json => serde_json::from_str(json).map_err(|error| error.to_string())?,
    };
    Ok(Step::Receive { client, expect })
}

struct Stage {
    address: SocketAddr,
    key: Key,
    tokens: HashMap<String, String>,
    clients: HashMap<String, WsClient>,
}

impl Stage {
    async fn perform(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Token { name, claims } => {
                let token = self.mint(name, claims)?;
                self.tokens.insert(name.clone(), token);
            }
            Step::Connect {
                client,
                token,
                source,
            } => {
                let connection = self.connect(token.as_deref(), source)?;
                let opened = self.beside_others(connection.open()).await;
                self.clients.insert(client.clone(), opened);
            }
            Step::Send { client, text } => {
                let mut text = text.clone();
                for (name, token) in &self.tokens {
                    text = text.replace(&format!("<token:{name}>"), token);
                }
                self.client(client)?.send_text(&text).await;
            }
            Step::Binary { client, text } => {
                let frame = OutFrame::new(opcode::BINARY, text.as_str());
                self.client(client)?.send_frame(frame).await;
            }
            Step::Receive { client, expect } => {
                let value = self.hear(client).await?;
                if !json::matches(expect, &value) {
                    return Err(format!("expected {expect}\nreceived {value}"));
                }
            }
            Step::Close {
                client,
                code,
                reason,
            } => {
                let mut client = self
                    .clients
                    .remove(client)
                    .ok_or("no such client is connected")?;
                let frame = client.next_message().await;
                let expect = (*code, reason.clone());
                if frame.opcode != opcode::CLOSE {
                    return Err(format!(
                        "expected a close with {code}, but received {:?}",
                        frame.text()
                    ));
                }
                if frame.close() != expect {
                    return Err(format!(
                        "expected a close with {expect:?}, but received {:?}",
                        frame.close()
                    ));
                }
            }
            Step::Quiet { client } => {
                let before = self.client(client)?.barrier().await;
                if !before.is_empty() {
                    return Err(format!("expected no message, but received {before:?}"));
                }
            }
        }
        Ok(())
    }

    /// Awaits `work`. All clients stay connected and answer pings meanwhile.
    async fn beside_others<T>(&mut self, work: impl Future<Output = T>) -> T {
        let others = self.clients.values_mut().map(WsClient::attend);
        tokio::select! {
            done = work => done,
            () = join_all(others).then(|_| pending()) => unreachable!("the clients wait for ever"),
        }
    }

    /// The next message of a client. The other clients answer pings meanwhile.
    async fn hear(&mut self, name: &str) -> Result<Value, String> {
        let mut client = self
            .clients
            .remove(name)
            .ok_or("no such client is connected")?;
        let value = self.beside_others(client.next_json()).await;
        self.clients.insert(name.to_owned(), client);
        Ok(value)
    }

    fn client(&mut self, name: &str) -> Result<&mut WsClient, String> {
        self.clients
            .get_mut(name)
            .ok_or_else(|| "no such client is connected".to_owned())
    }

    fn mint(&self, name: &str, options: &[(String, String)]) -> Result<String, String> {
        let mut claims = claims(name);
        for (claim, value) in options {
            claims[claim] = match (claim.as_str(), value.strip_prefix(['+', '-'])) {
                ("exp" | "iat" | "nbf", Some(seconds)) => {
                    let seconds: u64 = seconds.parse().map_err(|_| "not a number of seconds")?;
                    let now = unix_now();
                    Value::from(if value.starts_with('+') {
                        now + seconds
                    } else {
                        now - seconds
                    })
                }
                _ => serde_json::from_str(value).unwrap_or_else(|_| Value::from(value.as_str())),
            };
        }
        Ok(self.key.token(&claims))
    }

    fn connect(&self, token: Option<&str>, source: &str) -> Result<Connect, String> {
        let connection = Connect::to(self.address);
        let Some(token) = token else {
            return Ok(connection);
        };
        let token = self.tokens.get(token).ok_or("no such token")?;
        match source {
            "header" => Ok(connection.bearer(token)),
            "query" => Ok(connection.path(format!("/ws?token={token}"))),
            "subprotocol" => Ok(connection.subprotocols(&format!("curfew.v1, bearer.{token}"))),
            _ => Err("a token's source is header, query or subprotocol".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_kind_of_line_is_read() {
        let script = Script::parse(
            "# a comment\n\
             ! set limits.subscriptions = 1\n\
             | [[policy.rules]]\n\
             ! token a user=alice exp=+60\n\
             ! connect one token=a source=query\n\
             one> {\"type\":\"ping\"}\n\
             < *\n\
             one< {\"a\": \"<any>\"}\n\
             < close 4401 auth_failed\n\
             ! binary client=one xyz\n\
             ! quiet one\n",
        )
        .unwrap();
        assert_eq!(script.settings, ["limits.subscriptions = 1"]);
        assert_eq!(script.rules, "[[policy.rules]]\n");
        let one = || "one".to_owned();
        let steps: Vec<_> = script.steps.into_iter().map(|(_, step)| step).collect();
        assert_eq!(
            steps,
            [
                Step::Token {
                    name: "a".to_owned(),
                    claims: vec![
                        ("user".to_owned(), "alice".to_owned()),
                        ("exp".to_owned(), "+60".to_owned())
                    ],
                },
                Step::Connect {
                    client: one(),
                    token: Some("a".to_owned()),
                    source: "query".to_owned()
                },
                Step::Send {
                    client: one(),
                    text: r#"{"type":"ping"}"#.to_owned()
                },
                Step::Receive {
                    client: String::new(),
                    expect: json!("<any>")
                },
                Step::Receive {
                    client: one(),
                    expect: json!({"a":"<any>"})
                },
                Step::Close {
                    client: String::new(),
                    code: 4401,
                    reason: "auth_failed".to_owned()
                },
                Step::Binary {
                    client: one(),
                    text: "xyz".to_owned()
                },
                Step::Quiet { client: one() },
            ]
        );
    }

    #[test]
    fn what_is_not_a_line_is_reported_with_its_number() {
        for (text, expect) in [
            ("# x\nhello", "line 2: neither"),
            ("! dance", "line 1: no such directive"),
            ("< {", "line 1: EOF"),
            ("< close x", "line 1: not a close code"),
        ] {
            let problem = Script::parse(text).unwrap_err();
            assert!(problem.starts_with(expect), "{problem}");
        }
    }
}
