//! Flushers: the frames that they write for a sleeping task, and the frames that they leave to that
//! task.

use curfew_model::{Disconnect, Revocation, boottime};
use curfew_ws::{Transport, frame};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::{Ending, Opcode};

/// More bytes than a socket and its peer's socket hold together.
const LARGE: usize = 8 * 1024 * 1024;

/// A clock whose wall time is set back to 1970, and whose monotonic time is ahead by the given
/// duration.
#[derive(Debug)]
struct Later(Duration);

impl Clock for Later {
    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn boottime(&self) -> Duration {
        boottime() + self.0
    }
}

/// A session on a real socket. The session's task waits unless a test wakes it.
struct Connected {
    member: Arc<Member>,
    task: Task,
    transport: Transport,
    client: TcpStream,
}

impl Harness {
    /// A harness with one flusher, and with room for large frames.
    fn flushing() -> Self {
        let harness = Self::with_limits(2 * LARGE, 0);
        harness.hub.set_flushers(1, || 0);
        harness
    }

    async fn connect(&self, room: &Channel) -> Connected {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (server, _) = server.unwrap();
        // The runtime learns from an event that the socket is writable, so the test waits for this
        // event. A real session has written its handshake before, and so has received the event.
        server.writable().await.unwrap();
        let (transport, direct_writer) = Transport::Plain(server).share();
        let member = self.register(&principal("u", "t", 100, "{}"), "one");
        member.outbox().attach(direct_writer.unwrap());
        assert!(member.outbox().open(Lanes::default()));
        self.hub.subscribe(room, &member);
        let task = Task::new();
        assert!(task.waits(&member, false));
        Connected {
            member,
            task,
            transport,
            client: client.unwrap(),
        }
    }

    /// Runs the flusher once. Returns the number of members that were due.
    fn flush(&self) -> usize {
        self.flush_at(1_000)
    }

    fn flush_at(&self, now: u64) -> usize {
        let due = self.hub.take_due(0);
        self.hub.flush(&due, &At(now));
        due.len()
    }
}

impl Connected {
    /// Reads exactly these payloads, each of one letter.
    async fn reads(&mut self, payloads: &str) {
        let mut read = vec![0; 3 * payloads.len()];
        self.client.read_exact(&mut read).await.unwrap();
        let expect = payloads.bytes().flat_map(|byte| [0x81, 1, byte]);
        assert!(expect.eq(read.iter().copied()), "{read:?}");
    }

    fn reads_nothing(&self) {
        let error = self.client.try_read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    }

    /// Wakes the task and lets it write.
    fn wakes_to(&self, harness: &Harness) -> (Progress, Pipe) {
        self.member.outbox().claim();
        let mut socket = Pipe::default();
        (harness.write(&self.member, &mut socket), socket)
    }
}

#[tokio::test]
async fn publications_go_straight_to_the_socket_of_a_session_that_waits() {
    let harness = Harness::flushing();
    let room = channel("room");
    let mut one = harness.connect(&room).await;
    let mut two = harness.connect(&room).await;
    for data in ["a", "b", "c"] {
        let delivered = harness.publish(&room, data);
        assert_eq!((delivered.queued, delivered.dropped), (2, 0));
    }
    assert_eq!(harness.hub.queued_bytes(), 18);
    assert_eq!(
        harness.flush(),
        2,
        "each member is reported to the flusher once"
    );
    for connected in [&mut one, &mut two] {
        connected.reads("abc").await;
        assert_eq!(connected.task.wakes(), 0);
    }
    assert_eq!(harness.hub.queued_bytes(), 0);
    assert_eq!(harness.metrics.frames_sent.get(Opcode::Text), 6);
    assert_eq!(harness.metrics.sent_bytes.get(), 18);
    harness.publish(&room, "d");
    assert_eq!(harness.flush(), 2);
    one.reads("d").await;
}

#[tokio::test]
async fn the_nearest_flusher_is_told_and_woken_once() {
    let harness = Harness::new();
    harness.hub.set_flushers(3, || 4);
    // Only the first call of `set_flushers` has an effect.
    harness.hub.set_flushers(1, || 0);
    let room = channel("room");
    let mut one = harness.connect(&room).await;
    let mut two = harness.connect(&room).await;
    let flushers = Sleeping::new(&harness.hub);
    harness.publish(&room, "a");
    harness.publish(&room, "b");
    assert_eq!(flushers.woken(), [0, 1, 0]);
    assert_eq!(flushers.are_due(), [false, true, false]);
    let due = harness.hub.take_due(1);
    harness.hub.flush(&due, &At(1_000));
    one.reads("ab").await;
    two.reads("ab").await;
}

#[test]
fn a_flusher_leaves_others_their_share_of_many() {
    let harness = Harness::new();
    harness.hub.set_flushers(3, || 0);
    let member = harness.register(&principal("u", "t", 100, "{}"), "one");
    for (count, expect) in [
        (2_047, [0, 2_047, 0]),
        (2_049, [0, 1_024, 1_025]),
        (5_000, [1_667, 1_666, 1_667]),
    ] {
        let flushers = Sleeping::new(&harness.hub);
        let mut members = vec![Arc::clone(&member); count];
        harness.hub.flushers.share(1, &mut members);
        assert_eq!(flushers.woken(), [expect[0].min(1), 0, expect[2].min(1)]);
        let [zero, two] = [0, 2].map(|flusher| harness.hub.take_due(flusher).len());
        assert_eq!([zero, members.len(), two], expect);
    }
}

/// Three flushers that wait.
struct Sleeping<'a> {
    hub: &'a Hub,
    wakes: [Arc<Waker>; 3],
}

impl<'a> Sleeping<'a> {
    fn new(hub: &'a Hub) -> Self {
        let wakes = Default::default();
        let flushers = Self { hub, wakes };
        assert_eq!(flushers.are_due(), [false; 3]);
        flushers
    }

    fn are_due(&self) -> [bool; 3] {
        [0, 1, 2].map(|flusher| {
            let waker = Arc::clone(&self.wakes[flusher]).into();
            let polled = self.hub.poll_due(flusher, &Context::from_waker(&waker));
            polled.is_ready()
        })
    }

    fn woken(&self) -> [usize; 3] {
        self.wakes
            .each_ref()
            .map(|wakes| wakes.0.load(Ordering::Relaxed))
    }
}

#[tokio::test]
async fn a_task_that_is_awake_writes_for_itself() {
    let harness = Harness::flushing();
    let room = channel("room");
    let connected = harness.connect(&room).await;
    connected.member.outbox().claim();
    harness.publish(&room, "a");
    assert_eq!(harness.flush(), 0, "no member is reported to a flusher");
    // The task is awake, and finds the frame before it waits.
    assert!(!connected.task.waits(&connected.member, false));
    let (progress, socket) = connected.wakes_to(&harness);
    assert!(matches!(progress, Progress::Done) && socket.frames().len() == 1);
    assert!(connected.task.waits(&connected.member, false));
    harness.publish(&room, "b");
    connected.member.outbox().claim();
    assert_eq!(harness.flush(), 1);
    connected.reads_nothing();
    let (progress, socket) = connected.wakes_to(&harness);
    assert!(matches!(progress, Progress::Done) && socket.frames().len() == 1);
    // The task waits because the session's socket is full.
    assert!(connected.task.waits(&connected.member, true));
    harness.publish(&room, "c");
    assert_eq!((harness.flush(), connected.task.wakes()), (0, 0));
    connected.reads_nothing();
}

#[tokio::test]
async fn what_a_full_socket_does_not_take_is_left_to_the_task() {
    let harness = Harness::flushing();
    let room = channel("room");
    let mut connected = harness.connect(&room).await;
    let large = "x".repeat(LARGE);
    harness.publish(&room, &large);
    harness.publish(&room, "after");
    let queued = harness.hub.queued_bytes();
    harness.flush();
    assert_eq!(connected.task.wakes(), 1);
    let begun = harness.metrics.sent_bytes.get();
    assert!(begun > 0);
    assert_eq!(harness.hub.queued_bytes(), queued - begun);
    // Only the partly written frame is counted. The task counts the other frame when it writes that
    // frame.
    assert_eq!(harness.metrics.frames_sent.get(Opcode::Text), 1);
    harness.publish(&room, "later");
    assert_eq!(harness.flush(), 0, "the task is awake");
    let (_, socket) = connected.wakes_to(&harness);
    let mut read = vec![0; usize::try_from(begun).unwrap()];
    connected.client.read_exact(&mut read).await.unwrap();
    read.extend_from_slice(&socket.taken);
    let frames = [large.as_str(), "after", "later"].map(|data| frame::text(data.as_bytes()));
    assert!(
        read == frames.concat(),
        "the client receives every byte once and in order"
    );
}

#[tokio::test]
async fn nothing_leaves_once_the_session_is_revoked_or_while_it_is_held_back() {
    let harness = Harness::flushing();
    let room = channel("room");
    let mut held = harness.connect(&room).await;
    let revoked = harness.connect(&room).await;
    harness.publish(&room, "a");
    harness
        .hub
        .end(&revoked.member, Ending::new(Disconnect::REVOKED));
    let key = RevocationKey::session(held.member.session());
    let suspension = harness.hub.suspend(&key);
    assert!(suspension.is_some());
    assert_eq!(harness.flush(), 2);
    harness.publish(&room, "b");
    assert_eq!(harness.flush(), 0);
    held.reads_nothing();
    revoked.reads_nothing();
    assert_eq!(held.task.wakes(), 0);
    drop(suspension);
    assert_eq!(
        held.task.wakes(),
        1,
        "the end of the suspension wakes the task"
    );
    assert!(!held.task.waits(&held.member, false));
    let (_, socket) = held.wakes_to(&harness);
    assert_eq!(payloads(&socket.frames()), ["a", "b"]);
    assert!(held.task.waits(&held.member, false));
    harness.publish(&room, "c");
    harness.flush();
    held.reads("c").await;
}

#[tokio::test]
async fn of_a_frame_begun_the_rest_stays_when_the_session_is_revoked() {
    let harness = Harness::flushing();
    let room = channel("room");
    let connected = harness.connect(&room).await;
    harness.publish(&room, &"x".repeat(LARGE));
    harness.publish(&room, "after");
    harness.flush();
    let key = RevocationKey::user("u");
    assert_eq!(
        harness
            .hub
            .revoke(&key, &Revocation::default())
            .sessions
            .len(),
        1
    );
    // The following frame is dropped. The partly written frame makes the task reset the connection.
    let (progress, socket) = connected.wakes_to(&harness);
    let ending = Ending::new(Disconnect::REVOKED);
    assert!(matches!(progress, Progress::End(found) if found == ending));
    assert!(connected.member.outbox().is_amid_frame() && socket.taken.is_empty());
    assert_eq!(harness.dropped(DropReason::Revoked), 1);
    harness.unregister(&connected.member);
    assert_eq!(harness.hub.queued_bytes(), 0);
}

#[tokio::test]
async fn nothing_leaves_without_a_lease_or_after_the_tokens_end() {
    let harness = Harness::flushing();
    let room = channel("room");
    let connected = harness.connect(&room).await;
    let ends_at = connected.member.principal().ends_at().as_secs();
    harness.publish(&room, "a");
    assert_eq!(harness.flush_at(ends_at), 1);
    connected.reads_nothing();
    assert_eq!(
        connected.task.wakes(),
        1,
        "the task is woken to handle the end of the token"
    );
    let mut other = harness.connect(&room).await;
    harness.publish(&room, "b");
    harness.lease.expire();
    assert_eq!(harness.flush(), 1);
    other.reads_nothing();
    assert_eq!(other.task.wakes(), 1);
    let until = boottime() + Duration::from_secs(60);
    harness.lease.renew(until, harness.lease.stretch());
    assert!(!other.task.waits(&other.member, false));
    other.wakes_to(&harness);
    assert!(other.task.waits(&other.member, false));
    harness.publish(&room, "c");
    harness.flush_at(ends_at - 1);
    other.reads("c").await;
}

#[tokio::test]
async fn nothing_leaves_when_as_much_time_has_passed_as_the_token_had_left() {
    let harness = Harness::flushing();
    let room = channel("room");
    let connected = harness.connect(&room).await;
    let left = connected.member.principal().ends_at();
    harness.publish(&room, "a");
    let due = harness.hub.take_due(0);
    // The wall clock has been set back by as much time as has passed since registration.
    harness.hub.flush(&due, &Later(left));
    connected.reads_nothing();
    assert_eq!(
        connected.task.wakes(),
        1,
        "the task is woken to handle the end of the token"
    );
}

#[tokio::test]
async fn a_broken_socket_is_left_to_the_task() {
    let harness = Harness::flushing();
    let room = channel("room");
    let connected = harness.connect(&room).await;
    connected.client.set_zero_linger().unwrap();
    drop(connected.client);
    // The loop publishes until the reset of the connection has arrived.
    let mut writes = 0;
    while connected.task.wakes() == 0 && writes < 1_000 {
        harness.publish(&room, "a");
        harness.flush();
        tokio::task::yield_now().await;
        writes += 1;
    }
    assert_eq!(connected.task.wakes(), 1);
}

#[tokio::test]
async fn a_session_that_left_lets_go_of_its_socket() {
    let harness = Harness::flushing();
    let room = channel("room");
    let mut connected = harness.connect(&room).await;
    harness.publish(&room, "a");
    let due = harness.hub.take_due(0);
    harness.hub.unsubscribe(&room, &connected.member);
    harness.unregister(&connected.member);
    drop(connected.transport);
    // The socket is closed although the test still holds the member.
    assert_eq!(connected.client.read(&mut [0]).await.unwrap(), 0);
    harness.hub.flush(&due, &At(1_000));
}
