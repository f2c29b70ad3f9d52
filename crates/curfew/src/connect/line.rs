//! The meaning of a typed line: a frame to send unchanged, the short form of a frame, or a text to
//! publish.

use curfew_model::Position;
use serde::de::IgnoredAny;
use serde_json::json;
use serde_json::value::RawValue;

/// The help, which lists the short forms.
pub(super) const HELP: &str = "JSON is sent unchanged; text that does not begin like JSON is published to the most recently subscribed channel; short forms:
  /sub CHANNEL         subscribe
  /unsub CHANNEL       unsubscribe
  /pub CHANNEL JSON    publish
  /auth TOKEN          authenticate, for a connection opened without a token
  /refresh TOKEN       replace the token
  /ping                ask for a pong
  /quit                close the connection";

/// The effect of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// Nothing was typed.
    Nothing,
    /// Send this frame.
    Send(String),
    /// Show the short forms.
    Help,
    /// Close the connection.
    Quit,
    /// A line that cannot be sent, with the message to show.
    Wrong(String),
}

/// Reads lines. The frames of short forms get the ids 1, 2, 3 and so on.
#[derive(Debug)]
pub(super) struct Lines {
    next_id: u64,
    /// The channel that was subscribed to last. Text that is not JSON is published to this channel.
    channel: Option<String>,
}

impl Lines {
    /// Creates a reader whose first id is 1.
    pub(super) fn new() -> Self {
        Self {
            next_id: 1,
            channel: None,
        }
    }

    /// Reads a line, and returns its effect.
    pub(super) fn read(&mut self, line: &str) -> Input {
        let line = line.trim();
        if line.is_empty() {
            return Input::Nothing;
        }
        if !line.starts_with('/') {
            return match serde_json::from_str::<IgnoredAny>(line) {
                Ok(_) => Input::Send(line.to_owned()),
                // The line may be a mistyped command that holds a token, so it must not be
                // published as text.
                Err(error) if line.starts_with(['{', '[', '"']) => Input::Wrong(format!(
                    "the line is not JSON and is not sent: {error}; to publish it as a text, put it in quotes: /pub CHANNEL \"...\""
                )),
                Err(_) => self.say(line),
            };
        }
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match (name, rest) {
            ("/help", _) => Input::Help,
            ("/quit", _) => Input::Quit,
            ("/ping", _) => Input::Send(json!({ "type": "ping" }).to_string()),
            ("/pub", _) => self.publish(rest),
            ("/sub" | "/unsub" | "/auth" | "/refresh", "") => {
                Input::Wrong(format!("{name} needs an argument; see /help"))
            }
            ("/sub", channel) => Input::Send(self.subscribe(channel, None)),
            ("/unsub", channel) => {
                let id = self.id();
                Input::Send(
                    json!({ "type": "unsubscribe", "id": id, "channel": channel }).to_string(),
                )
            }
            ("/auth", token) => Input::Send(self.auth(token)),
            ("/refresh", token) => {
                let id = self.id();
                Input::Send(json!({ "type": "refresh", "id": id, "token": token }).to_string())
            }
            _ => Input::Wrong(format!("there is no short form {name}; see /help")),
        }
    }

    /// Publishes text that is not JSON. The server would end the session if the text were sent as
    /// it is.
    fn say(&mut self, text: &str) -> Input {
        let Some(channel) = self.channel.clone() else {
            return Input::Wrong(
                "the line is not JSON; to publish it as a text, first subscribe to a channel: /sub CHANNEL"
                    .to_owned(),
            );
        };
        let id = self.id();
        Input::Send(
            json!({ "type": "publish", "id": id, "channel": channel, "data": text }).to_string(),
        )
    }

    /// The frame that subscribes, with the position from which to recover missed messages.
    pub(super) fn subscribe(&mut self, channel: &str, since: Option<Position>) -> String {
        self.channel = Some(channel.to_owned());
        let id = self.id();
        let mut frame = json!({ "type": "subscribe", "id": id, "channel": channel });
        if let Some(since) = since {
            frame["since"] = json!(since);
        }
        frame.to_string()
    }

    /// The frame that authenticates.
    pub(super) fn auth(&mut self, token: &str) -> String {
        let id = self.id();
        json!({ "type": "auth", "id": id, "token": token }).to_string()
    }

    fn publish(&mut self, rest: &str) -> Input {
        let Some((channel, data)) = rest.split_once(char::is_whitespace) else {
            return Input::Wrong("/pub needs a channel and JSON; see /help".to_owned());
        };
        #[derive(serde::Serialize)]
        struct Publish<'a> {
            r#type: &'a str,
            id: u64,
            channel: &'a str,
            data: &'a RawValue,
        }
        // The data stays byte for byte as it was typed.
        let Ok(data) = serde_json::from_str::<&RawValue>(data.trim()) else {
            return Input::Wrong(
                "the data is not JSON; write a text in quotes: \"hello\"".to_owned(),
            );
        };
        let frame = Publish {
            r#type: "publish",
            id: self.id(),
            channel,
            data,
        };
        match serde_json::to_string(&frame) {
            Ok(text) => Input::Send(text),
            Err(error) => Input::Wrong(error.to_string()),
        }
    }

    fn id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Detects this fault: a mistyped command is published to all subscribers of the channel.
    #[test]
    fn what_begins_like_json_is_never_published_as_a_text() {
        let mut lines = Lines::new();
        lines.subscribe("room:1", None);
        for line in [
            r#"{"type":"refresh","token":"eyJ""#,
            r#"["type""#,
            r#""quoted"#,
        ] {
            assert!(matches!(lines.read(line), Input::Wrong(why) if why.contains("not sent")));
        }
        assert!(matches!(lines.read("hello {you}"), Input::Send(_)));
    }

    #[test]
    fn lines_become_frames() {
        let mut lines = Lines::new();
        assert!(matches!(lines.read("hello"), Input::Wrong(_)));
        for (line, expect) in [
            (r#"{"type":"ping"}"#, r#"{"type":"ping"}"#),
            (r#"[1, "a"]"#, r#"[1, "a"]"#),
            (
                "/sub room:1",
                r#"{"channel":"room:1","id":1,"type":"subscribe"}"#,
            ),
            (
                "/unsub room:1",
                r#"{"channel":"room:1","id":2,"type":"unsubscribe"}"#,
            ),
            (
                r#"/pub room:1  {"b":1.0, "a":2}"#,
                r#"{"type":"publish","id":3,"channel":"room:1","data":{"b":1.0, "a":2}}"#,
            ),
            (
                "/refresh x.y.z",
                r#"{"id":4,"token":"x.y.z","type":"refresh"}"#,
            ),
            ("/ping", r#"{"type":"ping"}"#),
            // Text that is not JSON would end the session if it were sent unchanged.
            (
                r#"it's "me""#,
                r#"{"channel":"room:1","data":"it's \"me\"","id":5,"type":"publish"}"#,
            ),
        ] {
            assert_eq!(lines.read(line), Input::Send(expect.to_owned()), "{line}");
        }
        assert_eq!(lines.read("  "), Input::Nothing);
        assert_eq!(lines.read("/quit"), Input::Quit);
        assert_eq!(lines.read("/help"), Input::Help);
        for line in ["/sub", "/pub room:1", "/pub room:1 hello", "/nothing"] {
            assert!(matches!(lines.read(line), Input::Wrong(_)), "{line}");
        }
    }
}
