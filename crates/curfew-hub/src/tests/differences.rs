//! Listeners that take differences: the base that each has, and the frames that they share.

use proptest::prelude::*;

use super::joins::{Room, placed_data};
use super::*;
use crate::{ChannelInfo, Join, Subscriber};

/// Publications that have much in common with each other.
const DATA: [&str; 5] = [
    "a long beginning, the same in all: 1",
    "a long beginning, the same in all: 2",
    "a long beginning, the same in all: 34",
    "a long beginning that differs early",
    "short",
];

/// A client that takes differences.
#[derive(Debug, Default)]
struct Reader {
    base: Option<String>,
}

impl Reader {
    /// The publications that the frames stand for. Each publication is marked with `D` if it was
    /// sent as a difference, and with `W` if it was sent whole.
    fn read(&mut self, frames: &[Bytes]) -> Vec<(char, String)> {
        let read = payloads(frames).into_iter().map(|payload| {
            let (mark, rest) = payload.split_at(1);
            let data = match mark {
                "W" => rest.to_owned(),
                "D" => {
                    let base = self.base.as_ref().expect("a difference needs a base");
                    let (length, end) = rest.split_once('+').unwrap();
                    let length: usize = length.parse().unwrap();
                    format!("{}{end}", &base[..length])
                }
                _ => panic!("a client that takes differences received a plain message: {payload}"),
            };
            self.base = Some(data.clone());
            (mark.chars().next().unwrap(), data)
        });
        read.collect()
    }
}

impl Room {
    fn publish(&self, offset: u64, data: &str) {
        self.arrive_as(&placed_data(&self.channel, offset, data));
    }

    /// Subscribes a session that takes differences. Returns the frames after the reply. These
    /// frames hold the publications that the session missed.
    fn join_delta(&self, member: &Arc<Member>, since: Option<u64>) -> Vec<Bytes> {
        let subscriber = Subscriber {
            delta: true,
            ..super::joins::subscriber(member, since.map(super::joins::place))
        };
        let join = self.join_as(subscriber);
        assert!(matches!(join, Join::Done(joined) if joined.is_delta));
        let frames = self.harness.drain(member);
        frames[1..].to_vec()
    }

    fn two(&self) -> Arc<Member> {
        let member = self.harness.register(&principal("u", "t", 1, "{}"), "two");
        assert!(member.outbox().open(Lanes::default()));
        member
    }
}

fn marks(read: &[(char, String)]) -> String {
    read.iter().map(|(mark, _)| mark).collect()
}

#[test]
fn the_first_publication_is_whole_and_later_ones_are_differences() {
    let room = Room::new();
    let member = room.harness.open("alice");
    assert!(room.join_delta(&member, None).is_empty());
    for (offset, data) in (1..).zip(DATA) {
        room.publish(offset, data);
    }
    let frames = room.harness.drain(&member);
    let read = Reader::default().read(&frames);
    assert!(read.iter().map(|(_, data)| data).eq(DATA.iter()));
    // The last publication is shorter than its difference would be.
    assert_eq!(marks(&read), "WDDDW");
    assert_eq!(payload(&frames[1]), "D35+2");
}

#[test]
fn listeners_of_both_kinds_and_wires_have_their_own_frames_each_made_once() {
    let room = Room::new();
    let plain = [room.harness.open("a"), room.two()];
    let delta = [
        room.harness.open("b"),
        room.harness.open("b"),
        room.two(),
        room.two(),
    ];
    for member in &plain {
        room.join(member, None);
        room.harness.drain(member);
    }
    for member in &delta {
        room.join_delta(member, None);
    }
    let encoded = || {
        let plain = room.harness.protocols.each_ref();
        plain.map(|plain| plain.encoded())
    };
    // Each wire encodes one plain frame and one whole frame.
    room.publish(1, DATA[0]);
    assert_eq!(encoded(), [2, 2]);
    // Each wire encodes one plain frame and one difference.
    room.publish(2, DATA[1]);
    assert_eq!(encoded(), [4, 4]);
    let late = room.harness.open("c");
    room.join_delta(&late, None);
    // On its wire, the late listener needs a whole frame as well.
    room.publish(3, DATA[2]);
    assert_eq!(encoded(), [7, 6]);
    for member in &plain {
        assert_eq!(payloads(&room.harness.drain(member)), DATA[..3]);
    }
    for member in &delta {
        let read = Reader::default().read(&room.harness.drain(member));
        assert!(read.iter().map(|(_, data)| data).eq(&DATA[..3]));
        assert_eq!(marks(&read), "WDD");
    }
    let read = Reader::default().read(&room.harness.drain(&late));
    assert_eq!(read, [('W', DATA[2].to_owned())]);
}

#[test]
fn what_was_recovered_is_the_base_of_what_follows() {
    let room = Room::new();
    room.publish(1, DATA[0]);
    room.publish(2, DATA[1]);
    let member = room.harness.open("alice");
    let mut reader = Reader::default();
    let missed = reader.read(&room.join_delta(&member, Some(0)));
    assert!(missed.iter().map(|(_, data)| data).eq(&DATA[..2]));
    room.publish(3, DATA[2]);
    let read = reader.read(&room.harness.drain(&member));
    assert_eq!(read, [('D', DATA[2].to_owned())]);
    // A session that joins the same channel later shares the difference.
    let other = room.harness.open("bob");
    let mut reader = Reader::default();
    reader.read(&room.join_delta(&other, Some(2)));
    room.publish(4, DATA[1]);
    for member in [&member, &other] {
        assert_eq!(payloads(&room.harness.drain(member)), ["D35+2"]);
    }
}

#[test]
fn after_a_recovery_without_publications_the_next_one_is_whole() {
    let room = Room::new();
    let first = room.harness.open("alice");
    room.join_delta(&first, None);
    room.publish(1, DATA[0]);
    for since in [Some(1), None] {
        let member = room.harness.open("bob");
        let subscriber = Subscriber {
            delta: true,
            ..super::joins::subscriber(&member, since.map(super::joins::place))
        };
        assert!(matches!(room.join_as(subscriber), Join::Done(_)));
        room.harness.drain(&member);
        let offset = room.harness.hub.reached(&room.channel).unwrap().offset + 1;
        room.publish(offset, DATA[1]);
        let read = Reader::default().read(&room.harness.drain(&member));
        assert_eq!(read, [('W', DATA[1].to_owned())], "{since:?}");
    }
}

#[test]
fn listeners_of_both_kinds_are_counted_and_leave() {
    let room = Room::new();
    let (hub, channel) = (&room.harness.hub, &room.channel);
    let members = [room.harness.open("a"), room.harness.open("b")];
    room.join_delta(&members[0], None);
    assert_eq!(hub.subscribers(channel), 1);
    assert!(hub.has_subscribers(channel) && hub.listens(channel, &members[0]));
    room.join(&members[1], None);
    let info = ChannelInfo {
        channel: channel.clone(),
        subscribers: 2,
    };
    assert_eq!((hub.channels(), hub.subscribers(channel)), (vec![info], 2));
    room.publish(1, DATA[0]);
    assert!(!hub.unsubscribe(channel, &members[0]));
    assert!(!hub.listens(channel, &members[0]));
    // The base is dropped with the last listener that takes differences.
    hub.channels.with(channel, |listeners| {
        assert!(listeners.delta().is_none());
    });
    room.join_delta(&members[0], None);
    assert!(!hub.unsubscribe(channel, &members[1]));
    assert!(hub.unsubscribe(channel, &members[0]));
    assert_eq!(hub.channel_count(), 0);
}

#[test]
fn a_gap_is_told_to_listeners_of_both_kinds() {
    let room = Room::new();
    let member = room.harness.open("a");
    room.join_delta(&member, None);
    room.publish(1, DATA[0]);
    // The publication at offset 2 is missing, and the stream no longer has it.
    room.publish(3, DATA[1]);
    room.harness
        .hub
        .give_up_missing(&room.channel, |publication| {
            room.harness.hub.broadcast_in_turn(publication, None);
        });
    let frames = payloads(&room.harness.drain(&member));
    assert_eq!(
        frames[1], "",
        "a gap is sent in place of the missing publication"
    );
    // The base is the last publication that was sent, even after a gap.
    assert_eq!(frames[2], "D35+2");
}

#[derive(Debug, Clone)]
enum Op {
    Publish(usize),
    Join { since: Option<usize> },
    Leave(usize),
    Read(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..DATA.len()).prop_map(Op::Publish),
        2 => proptest::option::of(0..6_usize).prop_map(|since| Op::Join { since }),
        1 => (0..8_usize).prop_map(Op::Leave),
        2 => (0..8_usize).prop_map(Op::Read),
    ]
}

proptest! {
    #[test]
    fn every_reader_makes_each_publication_once(ops in proptest::collection::vec(op(), 1..60)) {
        let room = Room::new();
        let mut published: Vec<&str> = Vec::new();
        // Each reader, with its session and the number of publications that it has read.
        let mut readers: Vec<(Arc<Member>, Reader, usize)> = Vec::new();
        let read = |published: &[&str], (member, reader, at): &mut (Arc<Member>, Reader, usize)| {
            let read = reader.read(&room.harness.drain(member));
            assert!(read.iter().map(|(_, data)| data).eq(&published[*at..]));
            *at = published.len();
        };
        for op in ops {
            match op {
                Op::Publish(data) => {
                    published.push(DATA[data]);
                    room.publish(published.len() as u64, DATA[data]);
                }
                Op::Join { since } => {
                    let since = since.map(|back| published.len().saturating_sub(back));
                    let member = room.harness.open("u");
                    let missed = room.join_delta(&member, since.map(|since| since as u64));
                    let mut reader = Reader::default();
                    let missed = reader.read(&missed);
                    let at = since.unwrap_or(published.len());
                    assert!(missed.iter().map(|(_, data)| data).eq(&published[at..]));
                    readers.push((member, reader, published.len()));
                }
                Op::Leave(at) if at < readers.len() => {
                    let mut left = readers.swap_remove(at);
                    read(&published, &mut left);
                    room.harness.hub.unsubscribe(&room.channel, &left.0);
                    room.harness.unregister(&left.0);
                }
                Op::Read(at) if at < readers.len() => read(&published, &mut readers[at]),
                Op::Leave(_) | Op::Read(_) => {}
            }
        }
        for reader in &mut readers {
            read(&published, reader);
        }
    }
}
