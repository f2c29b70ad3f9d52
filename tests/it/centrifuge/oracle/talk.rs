//! Plays a script to a server, and collects the server's answers.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use curfew_testkit::mint::{Key, SECRET};
use curfew_testkit::{OutFrame, PATIENCE, opcode, unix_now};
use serde_json::Value as Json;
use tokio::time::Instant;

use super::line::{Line, Said};
use super::script::{Act, Encoding, Script};
use super::server::Server;
use super::value::{Message, Value};

/// Without expected answers, a step is complete after this time without a message.
const QUIET: Duration = Duration::from_millis(150);

/// With expected answers, the server must send as many messages as expected within this time.
const LATE: Duration = Duration::from_secs(1);

/// Longest time to wait for a message that the server sends unprompted, such as a ping.
const BY_ITSELF: Duration = Duration::from_secs(45);

/// Time for which the test listens to one connection before it listens to the next.
const TURN: Duration = Duration::from_millis(20);

/// Members whose values are new in each run. They do not concern the protocol.
const LEFT_OUT: [&str; 3] = ["node", "session", "time"];

/// Users whose tokens are defined without a `token` step in the script.
const USERS: [&str; 2] = ["alice", "bob"];

/// A script while it is played.
struct Talk<'a> {
    server: &'a Server,
    encoding: Encoding,
    /// Replacement for each `~` of the script, so that scripts do not share channels and users.
    unique: String,
    tokens: BTreeMap<String, String>,
    epochs: Vec<String>,
    lines: BTreeMap<String, Line>,
}

/// Plays the script. Returns the answers, step by step. `expected` has the recorded answers.
pub(super) async fn tell(
    server: &Server,
    script: &Script,
    encoding: Encoding,
    expected: Option<&[Vec<String>]>,
) -> Vec<Vec<String>> {
    let mut talk = Talk {
        server,
        encoding,
        unique: format!("{:016x}", RandomState::new().hash_one(0)),
        tokens: BTreeMap::new(),
        epochs: Vec::new(),
        lines: BTreeMap::new(),
    };
    let mut said = Vec::new();
    for (at, step) in script.steps.iter().enumerate() {
        talk.act(&step.act).await;
        talk.settle(&step.act, expected.map(|expected| &expected[at][..]))
            .await;
        said.push(talk.said());
    }
    said
}

impl Talk<'_> {
    async fn act(&mut self, act: &Act) {
        match act {
            Act::Token {
                name,
                claims,
                options,
            } => {
                let token = mint(&self.fill(claims), options);
                self.tokens.insert(name.clone(), token);
            }
            Act::Open {
                client,
                encoding: Some(encoding),
                ..
            } => {
                let line = Line::usual(self.server.address(), *encoding).await;
                self.lines.insert(client.clone(), line);
            }
            Act::Open {
                client,
                query,
                subprotocols,
                ..
            } => {
                let address = self.server.address();
                let line = Line::open(address, self.encoding, query, subprotocols.as_deref()).await;
                self.lines.insert(client.clone(), line);
            }
            Act::Send { client, commands } => {
                let commands: Vec<String> = commands.iter().map(|text| self.fill(text)).collect();
                self.line(client).await.send_commands(&commands).await;
            }
            Act::Raw { client, text } => {
                let frame = OutFrame::text(&self.fill(text));
                self.line(client).await.send(frame).await;
            }
            Act::Hex { client, bytes } => {
                let frame = OutFrame::new(opcode::BINARY, bytes.clone());
                self.line(client).await.send(frame).await;
            }
            Act::Wait { client } => {
                self.line(client).await;
            }
            Act::Ping { client } => self.line(client).await.ping().await,
            Act::Close { client } => self.line(client).await.hang_up().await,
            Act::Publish { channel, data } => {
                self.server
                    .publish(&self.fill(channel), &self.fill(data))
                    .await;
            }
            Act::Disconnect { user } => self.server.disconnect(&self.fill(user)).await,
        }
    }

    /// The connection of `client`, which is opened at first use.
    async fn line(&mut self, client: &str) -> &mut Line {
        if !self.lines.contains_key(client) {
            let line = Line::usual(self.server.address(), self.encoding).await;
            self.lines.insert(client.to_owned(), line);
        }
        self.lines.get_mut(client).expect("the connection is open")
    }

    /// Waits until the server has sent everything that a step causes.
    async fn settle(&mut self, act: &Act, expected: Option<&[String]>) {
        let waiting = match act {
            Act::Wait { client } => Some(client),
            _ => None,
        };
        for (client, line) in &mut self.lines {
            line.begin(Some(client) == waiting);
        }
        let wanted = |client: &str| {
            let prefix = prefix(client);
            expected.map(|said| said.iter().filter(|line| line.starts_with(&prefix)).count())
        };
        let patience = waiting.map_or(PATIENCE, |_| BY_ITSELF);
        let deadline = Instant::now() + patience;
        // The test listens to all connections in turn, because a server may need a message from one
        // client before it answers another client.
        loop {
            let mut settled = true;
            for (client, line) in &mut self.lines {
                settled &= line.is_settled(wanted(client)).await;
            }
            if settled || Instant::now() > deadline {
                break;
            }
            for line in self.lines.values_mut() {
                line.listen_once(TURN).await;
            }
        }
        for (client, line) in &mut self.lines {
            match wanted(client) {
                Some(wanted) => line.until(wanted, LATE).await,
                None => line.until_quiet(QUIET).await,
            }
        }
    }

    /// The events of this step, without the values that are new in each run.
    fn said(&mut self) -> Vec<String> {
        let name = |client: &str| format!("<{}>", format!("client {client}").trim());
        let ids = self
            .lines
            .iter()
            .filter_map(|(client, line)| Some((line.id.clone()?, name(client))));
        let ids: Vec<_> = ids.collect();
        let mut lines: Vec<(String, usize)> = Vec::new();
        for (client, line) in &mut self.lines {
            for said in line.heard.drain(..) {
                let shown = show(said, &ids, &mut self.epochs);
                let line = prefix(client) + &shown.replace(&self.unique, "~");
                match lines.last_mut() {
                    Some((last, times)) if *last == line => *times += 1,
                    _ => lines.push((line, 1)),
                }
            }
        }
        let show = |(line, times)| match times {
            1 => line,
            _ => format!("{line} ({times} times)"),
        };
        lines.into_iter().map(show).collect()
    }

    /// Fills in the placeholders of a template.
    fn fill(&self, template: &str) -> String {
        let template = template.replace('~', &self.unique);
        let mut filled = String::new();
        let mut rest = template.as_str();
        while let Some((before, after)) = rest.split_once('<') {
            filled += before;
            let place = after.split_once('>');
            let value = place.and_then(|(name, _)| self.value(name));
            match (place, value) {
                (Some((_, behind)), Some(value)) => {
                    filled += &value;
                    rest = behind;
                }
                _ => {
                    filled.push('<');
                    rest = after;
                }
            }
        }
        filled + rest
    }

    /// The value of `<name>`.
    fn value(&self, name: &str) -> Option<String> {
        if let Some(token) = self.tokens.get(name) {
            return Some(token.clone());
        }
        if USERS.contains(&name) {
            let claims = format!(r#"{{"sub":"{name}","iat":"-1","exp":"+3600"}}"#);
            return Some(mint(&claims, &[]));
        }
        if let Some(client) = name.strip_prefix("client") {
            return self.lines.get(client.trim())?.id.clone();
        }
        if let Some(number) = name.strip_prefix('E') {
            let at: usize = number.parse().ok()?;
            return self.epochs.get(at.checked_sub(1)?).cloned();
        }
        let (text, times) = name.rsplit_once('*')?;
        Some(text.repeat(times.parse().ok()?))
    }
}

/// The prefix of lines about a client.
pub(super) fn prefix(client: &str) -> String {
    format!("{client}< ")
}

fn show(said: Said, ids: &[(String, String)], epochs: &mut Vec<String>) -> String {
    match said {
        Said::Open(subprotocol) => format!("open {subprotocol}"),
        Said::Refused(status) => format!("refused {status}"),
        Said::Message(message) => normal(message, ids, epochs).show(),
        Said::OtherKind(message) => format!("other kind {}", normal(message, ids, epochs).show()),
        Said::Unreadable(problem) => format!("unreadable {problem}"),
        Said::Close(code, reason) => format!("close {code} {reason}").trim_end().to_owned(),
        Said::End => "end".to_owned(),
    }
}

/// The message without the values that are new in each run.
fn normal(mut message: Message, ids: &[(String, String)], epochs: &mut Vec<String>) -> Message {
    let name = |text: &mut String| {
        if let Some((_, name)) = ids.iter().find(|(id, _)| id == text) {
            name.clone_into(text);
        }
    };
    message.walk(&mut |member, value| {
        match (member, &mut *value) {
            ("version", Value::Text(_)) => *value = Value::Text("<version>".to_owned()),
            ("ttl", Value::Number(1..)) => *value = Value::Unquoted("<ttl>".to_owned()),
            ("epoch", Value::Text(epoch)) if !epoch.is_empty() => {
                let known = epochs.iter().position(|known| known == epoch);
                let at = known.unwrap_or_else(|| {
                    epochs.push(epoch.clone());
                    epochs.len() - 1
                });
                *epoch = format!("<E{}>", at + 1);
            }
            (_, Value::Text(text)) => name(text),
            (_, Value::Map(entries)) => entries.iter_mut().for_each(|(key, _)| name(key)),
            _ => {}
        }
        !LEFT_OUT.contains(&member)
    });
    message
}

/// Signs a token with `claims`. `tests/centrifuge/README.md` describes the options.
fn mint(claims: &str, options: &[String]) -> String {
    let mut claims: serde_json::Map<String, Json> =
        serde_json::from_str(claims).expect("claims are JSON");
    for time in ["exp", "nbf", "iat", "expire_at"] {
        let Some(Json::String(text)) = claims.get(time) else {
            continue;
        };
        let offset = text
            .starts_with(['+', '-'])
            .then(|| text.parse::<i64>().ok())
            .flatten();
        if let Some(seconds) = offset {
            let at = i64::try_from(unix_now()).expect("the time fits into 64 bits") + seconds;
            claims.insert(time.to_owned(), at.into());
        }
    }
    let (mut secret, mut algorithm, mut header) = (SECRET, "HS256", None);
    for option in options {
        match option.split_once('=') {
            Some(("alg", "HS384")) => algorithm = "HS384",
            Some(("alg", "HS512")) => algorithm = "HS512",
            Some(("secret", "other")) => secret = "another secret of thirty-two bytes",
            Some(("header", json)) => header = Some(json.to_owned()),
            _ => panic!("{option} is no option of a token"),
        }
    }
    let key = Key::hmac(algorithm, secret.as_bytes());
    let header = header.unwrap_or_else(|| key.header().to_string());
    key.sign(&header, &Json::Object(claims).to_string())
}
