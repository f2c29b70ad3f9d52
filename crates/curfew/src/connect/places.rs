//! Positions of subscriptions in the streams of their channels. A client that wants to recover
//! missed publications later tracks positions in the same way.

use std::collections::{BTreeMap, HashMap};

use curfew_model::{Epoch, Position};
use serde::Deserialize;
use serde_json::Value;

/// Tracks positions by the frames that a connection sends and receives.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Subscriptions that are not answered yet, by the command's id as JSON.
    asked: HashMap<String, Asked>,
    /// The position of each subscription whose channel has a stream.
    held: BTreeMap<String, Position>,
}

/// A subscription that was requested.
#[derive(Debug)]
struct Asked {
    channel: String,
    since: Option<Position>,
}

/// The members of a frame that concern positions.
#[derive(Debug, Deserialize)]
struct Frame {
    r#type: String,
    id: Option<Value>,
    channel: Option<String>,
    since: Option<Position>,
    epoch: Option<Epoch>,
    offset: Option<u64>,
    recovered: Option<bool>,
}

impl Frame {
    fn position(&self) -> Option<Position> {
        let (epoch, offset) = (self.epoch?, self.offset?);
        Some(Position { epoch, offset })
    }
}

impl Places {
    /// Records a frame that is sent.
    pub(super) fn sent(&mut self, text: &str) {
        let Ok(frame) = serde_json::from_str::<Frame>(text) else {
            return;
        };
        let Some(channel) = frame.channel else { return };
        match (frame.r#type.as_str(), frame.id) {
            ("subscribe", Some(id)) => {
                let since = frame.since;
                self.asked.insert(id.to_string(), Asked { channel, since });
            }
            ("unsubscribe", _) => {
                self.held.remove(&channel);
            }
            _ => {}
        }
    }

    /// Records a received frame. Returns a remark if the frame says which messages were missed.
    pub(super) fn received(&mut self, text: &str) -> Option<String> {
        let frame: Frame = serde_json::from_str(text).ok()?;
        match frame.r#type.as_str() {
            "ok" | "error" => {
                let asked = self.asked.remove(&frame.id.as_ref()?.to_string())?;
                (frame.r#type == "ok").then(|| self.subscribed(asked, &frame))?
            }
            "message" => {
                // A message without an offset does not move the position. The server sends a gap
                // frame after such a message.
                let held = self.held.get_mut(frame.channel.as_ref()?)?;
                held.offset = frame.offset?;
                None
            }
            "gap" => {
                let (position, channel) = (frame.position()?, frame.channel?);
                let remark = format!(
                    "gap in {channel}: the missed publications cannot be recovered; delivery continues after {position}"
                );
                self.held.insert(channel, position);
                Some(remark)
            }
            "unsubscribed" => {
                self.held.remove(frame.channel.as_ref()?);
                None
            }
            _ => None,
        }
    }

    /// Records the answer to a subscription. After a successful recovery, the position stays at
    /// `since`, and each recovered message moves it.
    fn subscribed(&mut self, asked: Asked, answer: &Frame) -> Option<String> {
        let channel = asked.channel;
        let Some(position) = answer.position() else {
            return answer
                .recovered
                .map(|_| format!("not recovered: {channel} has no history"));
        };
        let (held, remark) = match (answer.recovered, asked.since) {
            (Some(true), Some(since)) if since.offset == position.offset => {
                (since, Some(format!("nothing was missed in {channel}")))
            }
            (Some(true), Some(since)) => {
                let (first, last) = (since.offset.saturating_add(1), position.offset);
                let offsets = match first == last {
                    true => format!("offset {last} follows"),
                    false => format!("offsets {first} to {last} follow"),
                };
                let remark = format!("recovered in {channel}: {offsets}");
                (since, Some(remark))
            }
            (Some(false), Some(since)) => {
                let remark = format!(
                    "not recovered in {channel}: the publications after {since} are lost; delivery continues after {position}"
                );
                (position, Some(remark))
            }
            _ => (position, None),
        };
        self.held.insert(channel, held);
        remark
    }

    /// Returns a line for each position, which the next connection can use for `--since`.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        let line = |(channel, position): (&String, &Position)| {
            format!("position in {channel}: {position}")
        };
        self.held.iter().map(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(since: &str, frames: &[&str]) -> (Vec<String>, Vec<String>) {
        let mut places = Places::default();
        places.sent(&format!(
            r#"{{"type":"subscribe","id":1,"channel":"a"{since}}}"#
        ));
        let remarks = frames.iter().filter_map(|frame| places.received(frame));
        let remarks = remarks.collect();
        (remarks, places.lines().collect())
    }

    #[test]
    fn a_place_moves_as_the_protocol_says() {
        const SINCE: &str = r#","since":{"epoch":"kdWqZx3a","offset":41}"#;
        let message = |offset: u64| {
            format!(r#"{{"type":"message","channel":"a","data":1,"offset":{offset}}}"#)
        };
        let (first, second) = (message(42), message(43));
        let recovered = r#"{"type":"ok","id":1,"epoch":"kdWqZx3a","offset":43,"recovered":true}"#;
        for (since, frames, remark, place) in [
            ("", vec![r#"{"type":"ok","id":1}"#], None, None),
            (
                "",
                vec![r#"{"type":"ok","id":1,"epoch":"kdWqZx3a","offset":43}"#],
                None,
                Some("43"),
            ),
            (
                "",
                vec![r#"{"type":"ok","id":2,"epoch":"kdWqZx3a","offset":43}"#],
                None,
                None,
            ),
            (
                "",
                vec![r#"{"type":"error","id":1,"code":"forbidden"}"#],
                None,
                None,
            ),
            // The connection ended before all messages were recovered. The next connection asks for
            // the remaining messages.
            (
                SINCE,
                vec![recovered, &first],
                Some("offsets 42 to 43 follow"),
                Some("42"),
            ),
            (
                SINCE,
                vec![recovered, &first, &second],
                Some("offsets 42 to 43 follow"),
                Some("43"),
            ),
            (
                SINCE,
                vec![r#"{"type":"ok","id":1,"epoch":"kdWqZx3a","offset":42,"recovered":true}"#],
                Some("recovered in a: offset 42 follows"),
                Some("41"),
            ),
            // A message from a node with other settings does not move the position.
            (
                SINCE,
                vec![recovered, r#"{"type":"message","channel":"a","data":1}"#],
                Some("follow"),
                Some("41"),
            ),
            (
                SINCE,
                vec![r#"{"type":"ok","id":1,"epoch":"kdWqZx3a","offset":41,"recovered":true}"#],
                Some("nothing was missed"),
                Some("41"),
            ),
            (
                SINCE,
                vec![r#"{"type":"ok","id":1,"epoch":"kdWqZx3a","offset":90,"recovered":false}"#],
                Some("not recovered in a: the publications after kdWqZx3a:41"),
                Some("90"),
            ),
            (
                SINCE,
                vec![r#"{"type":"ok","id":1,"recovered":false}"#],
                Some("no history"),
                None,
            ),
            (
                "",
                vec![
                    r#"{"type":"ok","id":1,"epoch":"kdWqZx3a","offset":43}"#,
                    r#"{"type":"gap","channel":"a","epoch":"kdWqZx3a","offset":90}"#,
                ],
                Some("gap in a"),
                Some("90"),
            ),
            (
                "",
                vec![
                    r#"{"type":"ok","id":1,"epoch":"kdWqZx3a","offset":43}"#,
                    r#"{"type":"unsubscribed","channel":"a","reason":"forbidden"}"#,
                ],
                None,
                None,
            ),
        ] {
            let (remarks, places) = conversation(since, &frames);
            match (remark, remarks.as_slice()) {
                (None, []) => {}
                (Some(remark), [only]) => assert!(only.contains(remark), "{only}"),
                _ => panic!("{frames:?}: {remarks:?}"),
            }
            let place = place.map(|offset| format!("position in a: kdWqZx3a:{offset}"));
            assert_eq!(places, Vec::from_iter(place), "{frames:?}");
        }
    }
}
