//! Subscribers that join a channel with a stream: their position, the publications that they
//! missed, and the live publications.

use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use curfew_model::{Epoch, Position, Revocation, StreamEntry};

use super::*;
use crate::{Join, Joined, Joining, ReadPart, Subscriber};

const SIZE: usize = 1_000;
const TTL: Duration = Duration::from_secs(600);

/// A reply to `subscribe`: bare bytes that [`Pipe::frames`] accepts.
const ANSWER: &[u8] = b"x";

pub(super) fn place(offset: u64) -> Position {
    let epoch = Epoch::from_random(1);
    Position { epoch, offset }
}

/// The publication at an offset; its data is the offset.
fn placed(channel: &Channel, offset: u64) -> Publication {
    placed_data(channel, offset, &offset.to_string())
}

pub(super) fn placed_data(channel: &Channel, offset: u64, data: &str) -> Publication {
    let position = place(offset);
    Publication {
        entry: Some(StreamEntry { position, at: 0 }),
        ..publication(channel, data)
    }
}

/// A channel whose stream was found empty. A subscriber is about to join the channel.
pub(super) struct Room {
    pub(super) harness: Harness,
    pub(super) channel: Channel,
    joining: Joining,
}

impl Room {
    pub(super) fn new() -> Self {
        let harness = Harness::with_limits(16 << 20, 0);
        let channel = channel("room");
        let joining = harness.hub.begin_join(&channel, SIZE, TTL, Duration::ZERO);
        let room = Self {
            harness,
            channel,
            joining,
        };
        room.find(0);
        room
    }

    /// Passes to the hub the result of a read that found the stream at this offset.
    fn find(&self, offset: u64) {
        let part = ReadPart {
            position: place(offset),
            doubts: self.harness.hub.doubts(&self.channel),
            publications: &[],
        };
        let hub = &self.harness.hub;
        hub.ingest(&self.channel, part, |publication| {
            hub.broadcast_in_turn(publication, None);
        });
    }

    fn arrive(&self, offset: u64) {
        self.arrive_as(&placed(&self.channel, offset));
    }

    pub(super) fn arrive_as(&self, publication: &Publication) {
        let hub = &self.harness.hub;
        hub.arrive(publication, |publication| {
            hub.broadcast_in_turn(publication, None);
        });
    }

    /// Makes a session join, with [`ANSWER`] as its reply.
    pub(super) fn join(&self, member: &Arc<Member>, since: Option<u64>) -> Join {
        self.join_as(subscriber(member, since.map(place)))
    }

    pub(super) fn join_as(&self, subscriber: Subscriber<'_>) -> Join {
        let answer = |_: Joined, _: &[Publication]| Some(Bytes::from_static(ANSWER));
        let (joining, channel) = (&self.joining, &self.channel);
        let hub = &self.harness.hub;
        hub.join(joining, channel, subscriber, None, false, answer)
    }
}

/// A session that joins even without recovery, and takes whole publications.
pub(super) fn subscriber(member: &Arc<Member>, since: Option<Position>) -> Subscriber<'_> {
    Subscriber {
        member,
        since,
        must_recover: false,
        delta: false,
    }
}

/// The offsets in the frames after the reply, which is the first frame.
fn offsets(frames: &[Bytes]) -> Vec<u64> {
    assert_eq!(
        frames[0], ANSWER,
        "the reply is the first frame: {frames:?}"
    );
    let payloads = payloads(&frames[1..]);
    let offsets = payloads.iter().map(|payload| payload.parse().unwrap());
    offsets.collect()
}

#[test]
fn the_answer_comes_first_then_what_was_missed_then_what_follows() {
    let room = Room::new();
    for offset in 1..=5 {
        room.arrive(offset);
    }
    let member = room.harness.open("alice");
    let expect = Joined {
        position: Some(place(5)),
        recovered: Some(true),
        is_delta: false,
        was_read: false,
    };
    assert_eq!(room.join(&member, Some(2)), Join::Done(expect));
    room.arrive(6);
    let frames = room.harness.drain(&member);
    assert_eq!(offsets(&frames), [3, 4, 5, 6]);
}

#[test]
fn a_publication_while_a_subscriber_is_answered_comes_after_what_it_missed() {
    let room = Room::new();
    room.arrive(1);
    let member = room.harness.open("alice");
    thread::scope(|scope| {
        let (said, heard) = mpsc::sync_channel(1);
        let room = &room;
        let answer = |_: Joined, _: &[Publication]| {
            scope.spawn(move || {
                room.arrive(2);
                said.send(())
            });
            // The publication waits until the subscriber has joined, so nothing is received here.
            let is_apart = heard.recv_timeout(Duration::from_millis(100)).is_err();
            assert!(
                is_apart,
                "a publication was delivered while the subscriber joined"
            );
            Some(Bytes::from_static(ANSWER))
        };
        let since = Some(place(0));
        let hub = &room.harness.hub;
        let (joining, channel) = (&room.joining, &room.channel);
        let join = hub.join(
            joining,
            channel,
            subscriber(&member, since),
            None,
            false,
            answer,
        );
        assert!(matches!(join, Join::Done(_)));
    });
    assert_eq!(offsets(&room.harness.drain(&member)), [1, 2]);
}

/// A guard that sets the flag when the guard is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn subscribers_that_join_amid_publications_have_no_hole_and_no_double() {
    const ROUNDS: usize = 100;
    const TOGETHER: usize = 20;
    let room = Room::new();
    let is_over = AtomicBool::new(false);
    let mut count = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            for offset in 1.. {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                room.arrive(offset);
            }
        });
        // The guard is dropped even if a check below fails, so that the publisher stops.
        let _over = Over(&is_over);
        for _ in 0..ROUNDS {
            let joined = (0..TOGETHER).map(|n| {
                let member = room.harness.open("alice");
                let reached = room.harness.hub.reached(&room.channel).unwrap().offset;
                // Every second subscriber names a position. The window reaches back to that
                // position unless this thread was held up.
                let since = (n % 2 == 1).then_some(reached);
                let first = match room.join(&member, since) {
                    Join::Done(joined) if joined.recovered == Some(true) => reached + 1,
                    Join::Done(joined) => joined.position.unwrap().offset + 1,
                    Join::Read { .. } | Join::Unrecoverable => return None,
                };
                Some((member, first))
            });
            let joined: Vec<_> = joined.collect();
            for (member, first) in joined.into_iter().flatten() {
                room.harness.hub.unsubscribe(&room.channel, &member);
                let told = offsets(&room.harness.drain(&member));
                let expect: Vec<_> = (first..first + told.len() as u64).collect();
                assert_eq!(told, expect);
                room.harness.unregister(&member);
                count += told.len();
            }
        }
    });
    assert!(
        count > ROUNDS,
        "only {count} publications were delivered, too few for this test"
    );
}

#[test]
fn a_place_in_doubt_recovers_nothing_before_the_stream_is_read() {
    let room = Room::new();
    for offset in 1..=3 {
        room.arrive(offset);
    }
    room.harness.hub.doubt(&room.channel);
    let member = room.harness.open("alice");
    for since in [None, Some(1), Some(3)] {
        let after = since.unwrap_or(3);
        assert_eq!(room.join(&member, since), Join::Read { after });
    }
    assert!(room.harness.drain(&member).is_empty());
    // Two publications were missed.
    room.find(5);
    let expect = Joined {
        position: Some(place(5)),
        recovered: Some(true),
        is_delta: false,
        was_read: false,
    };
    assert_eq!(room.join(&member, Some(5)), Join::Done(expect));
}

#[test]
fn what_is_recovered_is_written_only_while_the_session_has_access() {
    let room = Room::new();
    for offset in 1..=3 {
        room.arrive(offset);
    }
    let joined = || {
        let member = room.harness.open("alice");
        assert!(matches!(room.join(&member, Some(0)), Join::Done(_)));
        member
    };
    let hub = &room.harness.hub;
    let key = RevocationKey::user("alice");
    // A key that may name the session is being read.
    let member = joined();
    let suspension = hub.suspend(&key);
    assert!(room.harness.drain(&member).is_empty());
    drop(suspension);
    assert_eq!(offsets(&room.harness.drain(&member)), [1, 2, 3]);
    // The token has ended.
    let member = joined();
    let mut socket = Pipe::default();
    member.write(hub, &At(5_000_000_000), &mut socket);
    assert_eq!(socket.frames(), [""; 0]);
    // The node holds no lease any more.
    let member = joined();
    room.harness.lease.expire();
    assert!(room.harness.drain(&member).is_empty());
    // A revocation was written between the join and the write.
    let room = Room::new();
    room.arrive(1);
    let member = room.harness.open("alice");
    assert!(matches!(room.join(&member, Some(0)), Join::Done(_)));
    room.harness.hub.revoke(&key, &Revocation::default());
    assert!(room.harness.drain(&member).is_empty());
}

#[test]
fn a_lease_that_ends_while_a_publication_is_delivered_loses_none() {
    let room = Room::new();
    let member = room.harness.open("alice");
    assert!(matches!(room.join(&member, None), Join::Done(_)));
    let (hub, lease) = (&room.harness.hub, &room.harness.lease);
    hub.arrive(&placed(&room.channel, 1), |publication| {
        lease.expire();
        hub.broadcast_in_turn(publication, None);
    });
    // A publication that arrives without a lease is read from the stream later.
    room.arrive(2);
    assert_eq!(hub.reached(&room.channel), Some(place(1)));
    assert!(room.harness.drain(&member).is_empty());
    lease.renew(curfew_model::boottime() + TTL, lease.stretch());
    hub.reopened();
    assert_eq!(offsets(&room.harness.drain(&member)), [1]);
}

#[test]
fn a_doubt_that_a_filler_leaves_behind_is_asked_for_again() {
    let room = Room::new();
    let (hub, channel) = (&room.harness.hub, &room.channel);
    let wanted = || hub.poll_wanted(&mut Context::from_waker(std::task::Waker::noop()));
    hub.doubt(channel);
    assert!(wanted().is_ready());
    hub.want_if_missing(channel, false);
    assert!(
        wanted().is_pending(),
        "no publication waits for a missing one"
    );
    hub.want_if_missing(channel, true);
    assert!(wanted().is_ready());
    room.find(0);
    hub.want_if_missing(channel, true);
    assert!(wanted().is_pending());
}

/// Regression: a read that began before the broker listened again counted as proof that nothing was
/// missed.
#[test]
fn a_read_that_began_for_an_ended_feed_confirms_no_later_one() {
    let harness = Harness::new();
    let (hub, room) = (&harness.hub, channel("room"));
    // Begins to join, as a subscriber does when the broker begins to listen.
    let begin = || {
        let joining = hub.begin_join(&room, SIZE, TTL, Duration::ZERO);
        hub.doubt(&room);
        joining
    };
    drop(begin());
    let doubts = hub.doubts(&room);
    hub.end_stream(&room);
    let _joining = begin();
    let part = ReadPart {
        position: place(1),
        doubts,
        publications: &[],
    };
    hub.ingest(&room, part, |_| ());
    assert!(hub.is_missing(&room));
}

#[test]
fn windows_are_counted_exactly_while_streams_begin_end_and_are_doubted() {
    const ROUNDS: u64 = 50_000;
    let harness = Harness::with_limits(16 << 20, 0);
    let hub = &harness.hub;
    // Every second reload sets a bound smaller than one window, so windows are emptied all the
    // time.
    let limits = |window_bytes| HubLimits {
        outbound_bytes: 16 << 20,
        node_outbound_bytes: 0,
        window_bytes,
    };
    let rooms = [channel("one"), channel("two")];
    // Each publication is the first of a stream. Most of the time, the stream has just begun.
    let publish = |_| {
        for room in &rooms {
            hub.arrive(&placed(room, 1), |_| ());
        }
    };
    let begin_and_end = |_| {
        for room in &rooms {
            drop(hub.begin_join(room, SIZE, TTL, Duration::ZERO));
            let part = ReadPart {
                position: place(0),
                doubts: hub.doubts(room),
                publications: &[],
            };
            hub.ingest(room, part, |_| ());
            hub.end_stream(room);
        }
    };
    let doubt = |_| hub.doubt_all();
    let reload = |round| hub.set_limits(limits(if round % 2 == 0 { 64 } else { 1 << 20 }));
    let tasks: [&(dyn Fn(u64) + Sync); 4] = [&publish, &begin_and_end, &doubt, &reload];
    let (done, is_done) = mpsc::channel();
    thread::scope(|scope| {
        for task in tasks {
            let done = done.clone();
            scope.spawn(move || {
                (0..ROUNDS).for_each(task);
                done.send(()).unwrap();
            });
        }
        for _ in tasks {
            if is_done.recv_timeout(Duration::from_secs(60)).is_err() {
                // A panic would hang: the scope waits for its threads, which wait for each other.
                eprintln!("a thread does not end");
                std::process::abort();
            }
        }
    });
    for room in &rooms {
        hub.end_stream(room);
    }
    let left = hub.streams.window_bytes.load(Ordering::Relaxed);
    assert_eq!(
        left, 0,
        "bytes of windows that no longer exist are still counted"
    );
}
