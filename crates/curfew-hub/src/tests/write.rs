//! Writes to the socket: the access checks before each write, and the frames that need no access.

use curfew_model::{Disconnect, Revocation, boottime};
use curfew_ws::MAX_WRITE_BYTES;

use super::*;
use crate::{Ending, HeldBack};

const LEASE: Duration = Duration::from_secs(60);

/// A socket that calls `after` after each write, to simulate an event such as a revocation at that
/// moment.
struct Then<'a> {
    pipe: Pipe,
    after: Box<dyn FnMut() + 'a>,
}

impl<'a> Then<'a> {
    fn new(after: impl FnMut() + 'a) -> Self {
        Self {
            pipe: Pipe::default(),
            after: Box::new(after),
        }
    }
}

impl Socket for Then<'_> {
    fn write(&mut self, batch: WriteBatch<'_>) -> Poll<io::Result<usize>> {
        let written = self.pipe.write(batch);
        (self.after)();
        written
    }

    fn flush(&mut self) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn holds_back(&self) -> bool {
        false
    }
}

/// A socket that buffers like TLS: it takes all bytes, and passes them on when it is flushed.
#[derive(Default)]
struct Buffered {
    pipe: Pipe,
    held: Vec<u8>,
    is_stuck: bool,
}

impl Socket for Buffered {
    fn write(&mut self, batch: WriteBatch<'_>) -> Poll<io::Result<usize>> {
        assert!(
            self.held.is_empty(),
            "the socket is flushed before the next write"
        );
        let mut taken = Pipe::default();
        let written = taken.write(batch);
        self.held = taken.taken;
        written
    }

    fn flush(&mut self) -> Poll<io::Result<()>> {
        if self.is_stuck {
            return Poll::Pending;
        }
        self.pipe.taken.append(&mut self.held);
        Poll::Ready(Ok(()))
    }

    fn holds_back(&self) -> bool {
        true
    }
}

impl Harness {
    fn with_lease() -> Self {
        let harness = Self::with_limits(1 << 30, 0);
        harness.lease.expire();
        harness.renew();
        harness
    }

    fn renew(&self) {
        let until = boottime() + LEASE;
        self.lease.renew(until, self.lease.stretch());
    }

    /// Opens a session with `frames` queued frames. Each frame is so large that it needs a write of
    /// its own.
    fn with_large_frames(&self, frames: usize) -> Arc<Member> {
        let member = self.open("u");
        for _ in 0..frames {
            assert!(
                self.hub
                    .send(&member, Bytes::from(vec![b'x'; MAX_WRITE_BYTES]))
            );
        }
        member
    }
}

#[test]
fn one_write_is_given_no_more_than_a_bound() {
    let harness = Harness::with_limits(1 << 30, 0);
    for sizes in [
        vec![1_000; 500],
        vec![60_000; 5],
        vec![1_000_000],
        vec![10, 200_000, 10],
    ] {
        let member = harness.open("u");
        for size in &sizes {
            harness.hub.send(&member, Bytes::from(vec![b'x'; *size]));
        }
        let mut socket = Pipe::default();
        assert!(matches!(
            harness.write(&member, &mut socket),
            Progress::Done
        ));
        assert_eq!(socket.taken.len(), sizes.iter().sum::<usize>());
        assert!(socket.writes.iter().all(|size| *size <= MAX_WRITE_BYTES));
    }
}

#[test]
fn each_write_asks_anew() {
    for what in ["lease", "revoked", "suspended", "expired"] {
        let harness = Harness::with_lease();
        let member = harness.with_large_frames(3);
        let key = RevocationKey::user("u");
        let mut suspension = None;
        let mut socket = Then::new(|| match what {
            "lease" => harness.lease.expire(),
            "revoked" => drop(harness.hub.revoke(&key, &Revocation::default())),
            "suspended" => suspension = harness.hub.suspend(&key),
            _ => member.end_token(),
        });
        let progress = harness.write_to(&member, &mut socket);
        assert_eq!(socket.pipe.writes, [MAX_WRITE_BYTES], "{what}");
        assert!(
            match progress {
                Progress::Held(HeldBack::NoLease) => what == "lease",
                Progress::Held(HeldBack::Suspended) => what == "suspended",
                Progress::End(ending) => what == "revoked" && ending.is_revocation(),
                Progress::Expired => what == "expired",
                _ => false,
            },
            "{what}: {progress:?}"
        );
    }
}

/// The node resumes after a pause. The revocation is pushed before the heartbeat renews the lease.
#[test]
fn what_waited_for_the_lease_is_asked_about_again_when_it_is_back() {
    let harness = Harness::with_lease();
    let member = harness.with_large_frames(1);
    harness.lease.expire();
    let mut socket = Pipe::default();
    let progress = harness.write(&member, &mut socket);
    assert!(matches!(progress, Progress::Held(HeldBack::NoLease)));
    let suspension = harness.hub.suspend(&RevocationKey::user("u"));
    harness.renew();
    let progress = harness.write(&member, &mut socket);
    assert!(matches!(progress, Progress::Held(HeldBack::Suspended)));
    assert!(socket.writes.is_empty());
    drop(suspension);
    assert!(matches!(
        harness.write(&member, &mut socket),
        Progress::Done
    ));
}

/// The lease is loaded before the session's state, so that a renewal in between does not permit a
/// write based on the older state.
#[test]
fn a_lease_that_is_renewed_while_bytes_are_made_ready_counts_for_the_next_write() {
    let harness = Harness::with_lease();
    let member = harness.with_large_frames(2);
    let stopped = || {
        harness.lease.renew(Duration::ZERO, harness.lease.stretch());
        // Another thread handles the push and renews the lease.
        harness.renew();
    };
    let mut socket = Then::new(stopped);
    assert!(matches!(
        harness.write_to(&member, &mut socket),
        Progress::Done
    ));
    assert_eq!(socket.pipe.writes.len(), 2);
}

#[test]
fn notices_leave_without_access_and_behind_a_frame_begun() {
    let harness = Harness::with_lease();
    let notice = || Bytes::from_static(&[0x89, 0]);
    let member = harness.open("u");
    harness
        .hub
        .send(&member, Bytes::from_static(&[0x81, 1, b'm']));
    harness.lease.expire();
    member.outbox().push_notice(notice());
    let mut socket = Pipe::default();
    let progress = harness.write(&member, &mut socket);
    assert!(matches!(progress, Progress::Held(HeldBack::NoLease)));
    assert_eq!(socket.taken, [0x89, 0]);
    // With access, notices are sent first.
    harness.renew();
    member.outbox().push_notice(notice());
    let mut socket = Pipe::with_room(4);
    harness.write(&member, &mut socket);
    assert_eq!(socket.taken, [0x89, 0, 0x81, 1]);
    // A frame is partly written now. The rest of that frame must be sent before any other frame.
    harness.lease.expire();
    member.outbox().push_notice(notice());
    let mut socket = Pipe::default();
    let progress = harness.write(&member, &mut socket);
    assert!(matches!(progress, Progress::Held(HeldBack::NoLease)));
    assert!(socket.taken.is_empty() && member.outbox().is_amid_frame());
    harness.renew();
    harness.write(&member, &mut socket);
    assert_eq!(socket.taken, [b'm', 0x89, 0]);
    assert!(!member.outbox().is_amid_frame());
}

#[test]
fn a_notice_keeps_its_turn_until_that_does_not_come() {
    let harness = Harness::with_lease();
    let member = harness.open("u");
    let message = |data| Bytes::from(vec![0x81, 1, data]);
    for data in [b'a', b'b'] {
        harness.hub.send(&member, message(data));
        harness.hub.send_notice(&member, message(data - 32));
    }
    let mut socket = Pipe::with_room(6);
    harness.write(&member, &mut socket);
    assert_eq!(payloads(&socket.frames()), ["a", "A"]);
    let suspension = harness.hub.suspend(&RevocationKey::user("u"));
    let mut socket = Pipe::default();
    harness.write(&member, &mut socket);
    assert_eq!(payloads(&socket.frames()), ["B"]);
    drop(suspension);
    assert!(matches!(
        harness.write(&member, &mut socket),
        Progress::Done
    ));
    assert_eq!(payloads(&socket.frames()), ["B", "b"]);
    assert_eq!(harness.hub.queued_bytes(), 0);
}

#[test]
fn what_the_socket_holds_back_is_asked_about_and_bounded() {
    let harness = Harness::with_lease();
    let member = harness.with_large_frames(3);
    let mut socket = Buffered {
        is_stuck: true,
        ..Buffered::default()
    };
    let progress = harness.write_to(&member, &mut socket);
    assert!(matches!(progress, Progress::Blocked { wrote: true }));
    assert_eq!(socket.held.len(), MAX_WRITE_BYTES);
    assert!(member.outbox().is_amid_frame());
    socket.is_stuck = false;
    harness.lease.expire();
    let progress = harness.write_to(&member, &mut socket);
    assert!(matches!(progress, Progress::Held(HeldBack::NoLease)));
    assert!(socket.pipe.taken.is_empty());
    harness.renew();
    assert!(matches!(
        harness.write_to(&member, &mut socket),
        Progress::Done
    ));
    assert_eq!(socket.pipe.taken.len(), 3 * MAX_WRITE_BYTES);
}

#[test]
fn at_the_end_only_what_the_ending_lets_out_is_written() {
    for (disconnect, expect) in [
        (Disconnect::DRAINING, 2),
        (Disconnect::SLOW_CONSUMER, 0),
        (Disconnect::REVOKED, 0),
        (Disconnect::EXPIRED, 0),
    ] {
        let harness = Harness::with_lease();
        let member = harness.with_large_frames(2);
        harness.hub.end(&member, Ending::new(disconnect));
        let mut socket = Pipe::default();
        member.write_last(&harness.hub, &At(1_000), &mut socket);
        assert_eq!(socket.writes.len(), expect, "{disconnect:?}");
    }
    // Even an ending that still sends queued frames writes nothing while the node holds no lease.
    let harness = Harness::with_lease();
    let member = harness.with_large_frames(2);
    harness.hub.end(&member, Ending::new(Disconnect::DRAINING));
    harness.lease.expire();
    let mut socket = Pipe::default();
    member.write_last(&harness.hub, &At(1_000), &mut socket);
    assert!(socket.writes.is_empty());
}

#[test]
fn frames_of_a_session_that_ends_while_they_are_written_are_counted() {
    let harness = Harness::with_lease();
    let member = harness.with_large_frames(3);
    let key = RevocationKey::user("u");
    let mut socket = Then::new(|| drop(harness.hub.revoke(&key, &Revocation::default())));
    harness.write_to(&member, &mut socket);
    assert_eq!(harness.dropped(DropReason::Revoked), 2);
    assert_eq!(harness.hub.queued_bytes(), 0);
}
