use curfew_model::{Channel, StreamEntry};
use proptest::prelude::*;

use super::*;

const TTL: Duration = Duration::from_secs(600);

fn epoch(n: u64) -> Epoch {
    Epoch::from_random(n)
}

fn position(epoch: Epoch, offset: u64) -> Position {
    Position { epoch, offset }
}

fn publication(epoch: Epoch, offset: u64) -> Publication {
    Publication {
        channel: Channel::parse("room").unwrap(),
        data: offset.to_string().into(),
        from: None,
        sender: None,
        is_binary: false,
        entry: Some(StreamEntry {
            position: position(epoch, offset),
            at: 0,
        }),
        trace: None,
    }
}

/// The state of a stream in the backend.
struct Stream {
    epoch: Epoch,
    first: u64,
    top: u64,
}

impl Stream {
    fn publications(&self, after: u64) -> Vec<Publication> {
        (self.first.max(after.saturating_add(1))..=self.top)
            .map(|offset| publication(self.epoch, offset))
            .collect()
    }

    fn position(&self) -> Position {
        position(self.epoch, self.top)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Message(Epoch, u64),
    Gap(Epoch, u64),
}

/// Records the publications and gaps that the feed delivers.
#[derive(Debug, Default)]
struct Log(Vec<Told>);

impl Deliver for Log {
    fn publication(&mut self, publication: &Publication) {
        let position = publication.entry.unwrap().position;
        self.0.push(Told::Message(position.epoch, position.offset));
    }

    fn gap(&mut self, position: Position, _: GapReason) {
        self.0.push(Told::Gap(position.epoch, position.offset));
    }
}

struct Rig {
    feed: Feed,
    log: Log,
    now: Instant,
    /// The time of day. The timestamp of every publication is 0.
    clock: Duration,
}

impl Rig {
    fn new(size: usize) -> Self {
        let now = Instant::now();
        let mut feed = Feed::new(now);
        (feed.size, feed.ttl) = (size, TTL);
        Self {
            feed,
            log: Log::default(),
            now,
            clock: Duration::ZERO,
        }
    }

    fn arrive(&mut self, epoch: Epoch, offset: u64) -> FeedState {
        let publication = publication(epoch, offset);
        self.feed.arrive(&publication, self.now, &mut self.log)
    }

    fn read(&mut self, stream: &Stream, after: u64) -> FeedState {
        let publications = stream.publications(after);
        let part = ReadPart {
            position: stream.position(),
            doubts: self.feed.doubts,
            publications: &publications,
        };
        self.feed.ingest(part, self.now, &mut self.log)
    }

    fn replay(&mut self, since: Position) -> Option<Vec<u64>> {
        match self.feed.replay(since, None, self.now, self.clock) {
            Replay::Whole(missed) => Some(offsets(&missed)),
            Replay::Read(_) | Replay::Lost => None,
        }
    }

    fn told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.log.0)
    }
}

fn offsets(publications: &[Publication]) -> Vec<u64> {
    publications
        .iter()
        .map(|publication| publication.entry.unwrap().position.offset)
        .collect()
}

#[test]
fn a_publication_that_does_not_follow_waits_for_the_read() {
    let (e, mut rig) = (epoch(1), Rig::new(10));
    let mut stream = Stream {
        epoch: e,
        first: 1,
        top: 3,
    };
    rig.read(&stream, u64::MAX);
    assert_eq!(rig.arrive(e, 4), FeedState::Whole);
    assert_eq!(rig.arrive(e, 6), FeedState::Missing { after: 4 });
    assert_eq!(rig.arrive(e, 7), FeedState::Missing { after: 4 });
    assert_eq!(rig.told(), [Told::Message(e, 4)]);
    stream.top = 6;
    assert_eq!(rig.read(&stream, 4), FeedState::Whole);
    let expect = [5, 6, 7].map(|offset| Told::Message(e, offset));
    assert_eq!(rig.told(), expect);
    // Late copies are not delivered again.
    assert_eq!(rig.arrive(e, 5), FeedState::Whole);
    assert_eq!(rig.told(), []);
}

#[test]
fn what_the_stream_has_no_more_is_a_gap_in_its_place() {
    let (e, mut rig) = (epoch(1), Rig::new(10));
    let mut stream = Stream {
        epoch: e,
        first: 1,
        top: 2,
    };
    rig.read(&stream, u64::MAX);
    (stream.first, stream.top) = (5, 6);
    rig.arrive(e, 7);
    rig.read(&stream, 2);
    let expect = [
        Told::Gap(e, 4),
        Told::Message(e, 5),
        Told::Message(e, 6),
        Told::Message(e, 7),
    ];
    assert_eq!(rig.told(), expect);
    // An expired stream has a position and no publications.
    (stream.first, stream.top) = (20, 9);
    rig.read(&stream, 7);
    assert_eq!(rig.told(), [Told::Gap(e, 9)]);
}

#[test]
fn another_epoch_is_a_gap_and_what_it_has_follows() {
    let (old, new, mut rig) = (epoch(1), epoch(2), Rig::new(10));
    let stream = Stream {
        epoch: old,
        first: 1,
        top: 8,
    };
    rig.read(&stream, 5);
    assert_eq!(rig.arrive(new, 2), FeedState::Missing { after: 0 });
    let stream = Stream {
        epoch: new,
        first: 1,
        top: 3,
    };
    assert_eq!(rig.read(&stream, 0), FeedState::Whole);
    let expect = [
        Told::Gap(new, 0),
        Told::Message(new, 1),
        Told::Message(new, 2),
        Told::Message(new, 3),
    ];
    assert_eq!(rig.told(), expect);
    assert_eq!(rig.replay(position(old, 8)), None);
    assert_eq!(rig.replay(position(old, 1)), None);
    assert_eq!(rig.replay(position(new, 1)), Some(vec![2, 3]));
}

#[test]
fn a_hole_that_cannot_be_read_is_given_up() {
    let (e, mut rig) = (epoch(1), Rig::new(10));
    let stream = Stream {
        epoch: e,
        first: 1,
        top: 2,
    };
    rig.read(&stream, u64::MAX);
    for offset in [5, 6, 9] {
        rig.arrive(e, offset);
    }
    assert!(rig.feed.give_up(rig.now, &mut rig.log));
    let expect = [
        Told::Gap(e, 4),
        Told::Message(e, 5),
        Told::Message(e, 6),
        Told::Gap(e, 8),
        Told::Message(e, 9),
    ];
    assert_eq!(rig.told(), expect);
    assert!(rig.feed.confirmed().is_none(), "more may be missing");
    assert!(!rig.feed.give_up(rig.now, &mut rig.log));
}

#[test]
fn a_subscriber_is_given_what_the_window_has() {
    let (e, mut rig) = (epoch(1), Rig::new(3));
    let stream = Stream {
        epoch: e,
        first: 1,
        top: 4,
    };
    rig.read(&stream, 2);
    for offset in 5..=6 {
        rig.arrive(e, offset);
    }
    assert_eq!(rig.replay(position(e, 6)), Some(vec![]));
    assert_eq!(rig.replay(position(e, 3)), Some(vec![4, 5, 6]));
    // The window has room for three publications. Older publications must be read.
    let since = position(e, 1);
    assert_eq!(
        rig.feed.replay(since, None, rig.now, rig.clock),
        Replay::Read(1)
    );
    let (publications, part);
    let stream = Stream { top: 5, ..stream };
    publications = stream.publications(1);
    part = ReadPart {
        position: stream.position(),
        doubts: 0,
        publications: &publications,
    };
    // The read part ends at offset 5, and the window at offset 6.
    match rig.feed.replay(since, Some(part), rig.now, rig.clock) {
        Replay::Whole(missed) => assert_eq!(offsets(&missed), [2, 3, 4, 5, 6]),
        other => panic!("{other:?}"),
    }
    // The position may be ahead of this node, so it counts as lost only if a read of the stream
    // confirms that.
    let ahead = position(e, 9);
    assert_eq!(
        rig.feed.replay(ahead, None, rig.now, rig.clock),
        Replay::Read(6)
    );
    assert_eq!(
        rig.feed.replay(ahead, Some(part), rig.now, rig.clock),
        Replay::Lost
    );
    rig.clock += TTL;
    assert_eq!(rig.replay(position(e, 5)), None, "the window has expired");
}

#[test]
fn publications_that_wait_are_bounded_and_read_again() {
    let (e, mut rig) = (epoch(1), Rig::new(10));
    let mut stream = Stream {
        epoch: e,
        first: 1,
        top: 0,
    };
    rig.read(&stream, u64::MAX);
    let last = MAX_WAITING as u64 + 5;
    for offset in 2..=last {
        rig.arrive(e, offset);
    }
    assert_eq!(rig.feed.waiting.len(), MAX_WAITING);
    stream.top = 1;
    let state = rig.read(&stream, 0);
    let delivered = rig.told().len() as u64;
    assert_eq!(delivered, MAX_WAITING as u64 + 1);
    assert_eq!(state, FeedState::Missing { after: delivered });
    stream.top = last;
    assert_eq!(rig.read(&stream, delivered), FeedState::Whole);
    assert_eq!(rig.told().last(), Some(&Told::Message(e, last)));
}

#[test]
fn a_read_that_began_before_a_doubt_confirms_nothing() {
    let (e, mut rig) = (epoch(1), Rig::new(10));
    let stream = Stream {
        epoch: e,
        first: 1,
        top: 2,
    };
    let part = ReadPart {
        position: stream.position(),
        doubts: rig.feed.doubts,
        publications: &[],
    };
    rig.feed.doubt();
    rig.feed.ingest(part, rig.now, &mut rig.log);
    assert_eq!(rig.feed.confirmed(), None);
    assert_eq!(rig.feed.at(), Some(stream.position()));
    rig.read(&stream, 2);
    assert_eq!(rig.feed.confirmed(), Some(stream.position()));
}

#[test]
fn what_was_read_and_has_come_meanwhile_is_delivered_once() {
    let (e, mut rig) = (epoch(1), Rig::new(10));
    let mut stream = Stream {
        epoch: e,
        first: 1,
        top: 2,
    };
    rig.read(&stream, u64::MAX);
    // The read began at offset 2.
    for offset in 3..=4 {
        rig.arrive(e, offset);
    }
    stream.top = 5;
    rig.read(&stream, 2);
    let expect = [3, 4, 5].map(|offset| Told::Message(e, offset));
    assert_eq!(rig.told(), expect);
}

#[test]
fn a_doubt_empties_the_window() {
    let (e, mut rig) = (epoch(1), Rig::new(10));
    let stream = Stream {
        epoch: e,
        first: 1,
        top: 2,
    };
    rig.read(&stream, 0);
    assert_eq!(rig.replay(position(e, 1)), Some(vec![2]));
    rig.feed.doubt();
    assert_eq!(rig.replay(position(e, 1)), None, "it may be deleted");
    rig.read(&stream, 0);
    assert_eq!(rig.replay(position(e, 1)), Some(vec![2]));
}

#[test]
fn publications_of_an_epoch_that_the_stream_does_not_show_are_not_delivered() {
    let (e, other, mut rig) = (epoch(1), epoch(2), Rig::new(10));
    let stream = Stream {
        epoch: e,
        first: 1,
        top: 2,
    };
    rig.read(&stream, u64::MAX);
    rig.arrive(other, 7);
    assert!(!rig.feed.give_up(rig.now, &mut rig.log));
    rig.read(&stream, 0);
    assert!(
        rig.feed.confirmed().is_none(),
        "the other epoch may have begun since the read"
    );
    rig.read(&stream, 0);
    assert_eq!(rig.feed.confirmed(), Some(stream.position()));
    assert_eq!(rig.told(), []);
}

#[derive(Debug, Clone)]
enum Step {
    /// Publishes; the publication arrives by pub/sub unless it is lost.
    Publish { is_lost: bool },
    /// An earlier publication arrives by pub/sub again.
    Repeat { back: u64 },
    /// The stream drops all but `keep` publications.
    Trim { keep: u64 },
    /// The stream begins another epoch.
    Flush,
    /// The node reads the stream after its own position. If no publication is missing, this only
    /// compares the positions.
    Read,
    /// The node gives up the missing publications.
    GiveUp,
    /// A subscriber joins that has missed the last `back` publications.
    Join { back: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => prop::bool::weighted(0.3).prop_map(|is_lost| Step::Publish { is_lost }),
        1 => (0..5_u64).prop_map(|back| Step::Repeat { back }),
        1 => (0..4_u64).prop_map(|keep| Step::Trim { keep }),
        1 => Just(Step::Flush),
        3 => Just(Step::Read),
        1 => Just(Step::GiveUp),
        3 => (0..8_u64).prop_map(|back| Step::Join { back }),
    ];
    prop::collection::vec(step, 0..60)
}

/// Checks that messages of one epoch have consecutive offsets, except after gaps.
fn check_order(told: &[Told], mut at: Position) {
    for told in told {
        match *told {
            Told::Message(epoch, offset) => {
                assert_eq!(position(epoch, offset - 1), at, "one is missing or double");
                at.offset = offset;
            }
            Told::Gap(epoch, offset) => {
                assert!(epoch != at.epoch || offset > at.offset, "an empty gap");
                at = position(epoch, offset);
            }
        }
    }
}

/// Regression: two publications had the same offset. The size of the first was added to the
/// waiting bytes, but the size of the second was subtracted.
#[test]
fn a_waiting_publication_may_be_replaced_by_a_longer_one() {
    let mut rig = Rig::new(10);
    let stream = Stream {
        epoch: epoch(1),
        first: 1,
        top: 0,
    };
    rig.read(&stream, u64::MAX);
    rig.arrive(epoch(1), 2);
    let longer = Publication {
        data: "another of this offset".into(),
        ..publication(epoch(1), 2)
    };
    rig.feed.arrive(&longer, rig.now, &mut rig.log);
    rig.arrive(epoch(1), 1);
    assert_eq!(rig.feed.state(), FeedState::Whole);
    assert_eq!(rig.feed.waiting_bytes, 0);
}

proptest! {
    #[test]
    fn listeners_are_told_everything_in_order_or_of_a_gap(steps in steps(), size in 1..6_usize) {
        let mut rig = Rig::new(size);
        let mut stream = Stream { epoch: epoch(1), first: 1, top: 0 };
        let mut epochs = 1;
        rig.read(&stream, u64::MAX);
        let begin = stream.position();
        for step in steps {
            match step {
                Step::Publish { is_lost } => {
                    stream.top += 1;
                    if !is_lost {
                        rig.arrive(stream.epoch, stream.top);
                    }
                }
                Step::Repeat { back } if stream.top > back => {
                    rig.arrive(stream.epoch, stream.top - back);
                }
                Step::Repeat { .. } => {}
                Step::Trim { keep } => {
                    stream.first = stream.first.max((stream.top + 1).saturating_sub(keep));
                }
                Step::Flush => {
                    epochs += 1;
                    stream = Stream { epoch: epoch(epochs), first: 1, top: 0 };
                }
                Step::Read => {
                    let at = rig.feed.at().unwrap();
                    let after = if at.epoch == stream.epoch { at.offset } else { 0 };
                    rig.read(&stream, after);
                    prop_assert_eq!(rig.feed.at(), Some(stream.position()));
                }
                Step::GiveUp => {
                    rig.feed.give_up(rig.now, &mut rig.log);
                }
                Step::Join { back } => {
                    let at = rig.feed.at().unwrap();
                    let since = position(at.epoch, at.offset.saturating_sub(back));
                    if let Some(missed) = rig.replay(since) {
                        let expect: Vec<_> = (since.offset + 1..=at.offset).collect();
                        prop_assert_eq!(missed, expect);
                    }
                }
            }
            prop_assert!(rig.feed.window.len() <= size);
            let bytes: usize = rig.feed.window.iter().map(super::size).sum();
            prop_assert_eq!(bytes, rig.feed.window_bytes);
        }
        let told = rig.told();
        check_order(&told, begin);
    }
}
