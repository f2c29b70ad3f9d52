//! A second protocol beside the native one, implemented by the public interface alone. It has
//! binary messages of one or more requests, pings as messages, and close codes of its own.
//!
//! A request is one byte for its id, one letter, one byte for the length of its content, and the
//! content.

use bytes::{BufMut as _, BytesMut};
use curfew_hub::{Carrier, Framing, WebSocket};
use curfew_model::{
    ClientRequest, CommandId, Message, MessageKind, Payload, Push, Reply, SubscribeOptions,
    Subscribed,
};
use curfew_protocol::DecodeError;

use super::peer::{BINARY, CLOSE, TEXT, frame};
use super::*;

#[derive(Debug)]
struct Letters;

impl Protocol for Letters {
    fn name(&self) -> &'static str {
        "letters"
    }

    fn kind(&self) -> MessageKind {
        MessageKind::Binary
    }

    fn decode<'a>(&self, message: &mut Message<'a>) -> Result<ClientRequest<'a>, DecodeError> {
        let Message::Binary(&[id, letter, length, ref rest @ ..]) = *message else {
            return Err(DecodeError::NotTheProtocol {
                message: "no letters",
            });
        };
        let (content, rest) = rest.split_at(length.into());
        *message = Message::Binary(rest);
        let text = str::from_utf8(content).unwrap();
        let (channel, token) = (text.into(), text.into());
        let command = match letter {
            b'a' => Command::Auth {
                token: Some(token),
                subscriptions: Vec::new(),
            },
            b's' => Command::Subscribe {
                channel,
                options: SubscribeOptions {
                    since: None,
                    join_leave: false,
                    ..SubscribeOptions::default()
                },
            },
            b'u' => Command::Unsubscribe { channel },
            b'p' => Command::Publish {
                channel: "room".into(),
                data: Payload::Json(text),
                trace: None,
                key: None,
            },
            _ => return Ok(ClientRequest::Pong),
        };
        let id = Some(CommandId::from_number(id.into()));
        Ok(ClientRequest::Command { id, command })
    }

    fn encode_reply(&self, id: Option<&CommandId>, reply: &Reply<'_>, out: &mut BytesMut) -> bool {
        let letter = match reply {
            Reply::Connected { .. } => 'C',
            Reply::Subscribed(Subscribed {
                position: None,
                recovered: None,
                ..
            }) => 'S',
            Reply::Unsubscribed => 'U',
            Reply::Published { .. } => 'P',
            Reply::AuthFailed { .. } => 'F',
            _ => 'E',
        };
        let id = id.map_or("-", CommandId::as_json);
        out.put_slice(format!("{id}{letter}").as_bytes());
        true
    }

    /// Encodes only publications.
    fn encode_push(&self, push: &Push<'_>, out: &mut BytesMut) -> bool {
        let Push::Message { data, .. } = push else {
            return false;
        };
        out.put_slice(data);
        true
    }

    /// A publication of this protocol does not name its channel, so no frame is recognized.
    fn is_of(&self, _: &[u8], _: &Channel) -> bool {
        false
    }

    fn ping(&self, out: &mut BytesMut) -> bool {
        out.put_slice(b"?");
        true
    }

    fn close(&self, disconnect: &Disconnect) -> (u16, &'static str) {
        match disconnect.code {
            4400..4500 => (3500, "bye"),
            _ => (3000, "later"),
        }
    }
}

/// Encodes requests in this protocol.
fn requests(requests: &[(u8, char, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (id, letter, content) in requests {
        bytes.extend([*id, *letter as u8, content.len() as u8]);
        bytes.extend(content.bytes());
    }
    bytes
}

impl Peer {
    async fn letters(&mut self, some: &[(u8, char, &str)]) {
        self.send_bytes(&frame(BINARY, &requests(some))).await;
    }

    async fn expect_letters(&mut self, expect: &[&str]) {
        for expect in expect {
            let (opcode, payload) = self
                .frame()
                .await
                .expect("the stream ended before the message");
            let got = String::from_utf8(payload).unwrap();
            assert_eq!((opcode, got.as_str()), (BINARY, *expect));
        }
    }
}

fn harness() -> Harness {
    let wires = vec![Wire::websocket(Native), Wire::websocket(Letters)];
    Harness::build(|_| {}, wires)
}

impl Harness {
    /// A connection with this protocol that has sent no token.
    fn letters(&self) -> Peer {
        let wire = self.hub().wires().find("letters").unwrap();
        let (ours, theirs) = tokio::io::duplex(ROOM);
        let transport = Transport::Memory(Box::new(ours));
        self.serve_on(wire, transport, Opening::Awaiting(by_message()), &[]);
        Peer::new(theirs)
    }
}

#[tokio::test(start_paused = true)]
async fn two_protocols_share_a_channel_and_each_is_spoken_to_in_its_own_words() {
    let harness = harness();
    let token = harness.token(json!({}));
    let mut native = harness.subscribed().await;
    let mut letters = harness.letters();
    // All requests are in one message. The requests behind a request that waits for the backend are
    // acted on afterwards.
    letters
        .letters(&[
            (1, 'a', &token),
            (2, 's', "room"),
            (3, 's', "a channel"),
            (4, 'p', "10"),
            (5, 'p', "11"),
            (6, 'u', "room"),
        ])
        .await;
    letters
        .expect_letters(&["1C", "2S", "3E", "10", "4P", "11", "5P", "6U"])
        .await;
    for data in [10, 11] {
        assert_eq!(native.expect("message").await["data"], data);
    }
    // This protocol cannot express a gap, so its client receives only the publication after the
    // gap.
    letters.letters(&[(7, 's', "room")]).await;
    letters.expect_letters(&["7S"]).await;
    let room = Channel::parse("room").unwrap();
    harness.hub().gap(&room, curfew_model::GapReason::NoLease);
    harness.publish("room", "12");
    letters.expect_letters(&["12"]).await;
    native.expect("gap").await;
    assert_eq!(native.expect("message").await["data"], 12);
    drop((native, letters));
    harness.assert_nothing_left().await;
}

#[tokio::test(start_paused = true)]
async fn pings_and_closes_are_the_protocols() {
    let harness = harness();
    let mut peer = harness.letters();
    let token = harness.token(json!({}));
    peer.letters(&[(1, 'a', &token)]).await;
    peer.expect_letters(&["1C", "?"]).await;
    peer.letters(&[(0, 'o', "")]).await;
    // The next ping shows that the client's pong was accepted. The client does not answer this
    // ping.
    peer.expect_letters(&["?"]).await;
    let (opcode, payload) = peer.frame().await.unwrap();
    assert_eq!((opcode, &payload[..]), (CLOSE, &b"\x0b\xb8later"[..]));
    drop(peer);
    harness.assert_nothing_left().await;
    // The metric has the native code for every protocol.
    assert_eq!(harness.closed_with(Disconnect::NO_PONG), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_answered_by_its_command_and_then_closed() {
    let harness = harness();
    let mut peer = harness.letters();
    peer.letters(&[(9, 'a', "no token")]).await;
    peer.expect_letters(&["9F"]).await;
    let (opcode, payload) = peer.frame().await.unwrap();
    assert_eq!(
        (opcode, &payload[..2]),
        (CLOSE, &3500_u16.to_be_bytes()[..])
    );
    drop(peer);
    harness.assert_nothing_left().await;
}

/// The framing of an event stream over HTTP, which shows that a protocol does not depend on its
/// framing.
#[derive(Debug)]
struct EventStream;

impl Framing for EventStream {
    fn carrier(&self) -> Carrier {
        Carrier::EventStream
    }

    fn message(
        &self,
        _: MessageKind,
        write: &mut dyn FnMut(&mut BytesMut) -> bool,
    ) -> Option<Bytes> {
        let mut frame = BytesMut::from(&b"data: "[..]);
        let is_told = write(&mut frame);
        frame.put_slice(b"\n\n");
        is_told.then(|| frame.freeze())
    }

    fn content<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        &frame[b"data: ".len()..]
    }

    fn ping(&self) -> Bytes {
        Bytes::from_static(b":\n\n")
    }

    fn close(&self, _: u16, _: &str) -> Bytes {
        Bytes::new()
    }
}

#[test]
fn a_protocol_is_carried_by_any_transport() {
    let room = Channel::parse("room").unwrap();
    let push = Push::Gap {
        channel: &room,
        position: None,
    };
    let [websocket, stream] = [
        Wire::new(Arc::new(Native), Arc::new(WebSocket)),
        Wire::new(Arc::new(Native), Arc::new(EventStream)),
    ];
    let words = br#"{"type":"gap","channel":"room"}"#;
    let framed = websocket.push(&push).unwrap();
    assert_eq!((framed[0], &framed[2..]), (0x80 | TEXT, &words[..]));
    let event = [b"data: ", &words[..], b"\n\n"].concat();
    assert_eq!(stream.push(&push).unwrap(), event);
    assert!(stream.is_of(&event, &room) && websocket.is_of(&framed, &room));
    assert_eq!(
        stream.reply(
            None,
            &Reply::Subscribed(Subscribed {
                position: None,
                recovered: None,
                ..Subscribed::default()
            })
        ),
        None
    );
    assert_eq!(&stream.ping()[..], b":\n\n");
}
