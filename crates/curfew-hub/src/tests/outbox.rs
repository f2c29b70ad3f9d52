use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll, Wake};

use curfew_model::Disconnect;

use super::*;
use crate::Ending;

fn frame(bytes: usize) -> Bytes {
    Bytes::from(vec![b'x'; bytes])
}

/// Lets the task write to a socket with room for `room` bytes. Returns the progress and the number
/// of bytes written.
fn take(harness: &Harness, member: &Member, room: usize) -> (Progress, usize) {
    let mut socket = Pipe::with_room(room);
    let progress = harness.write(member, &mut socket);
    (progress, socket.taken.len())
}

#[track_caller]
fn assert_ends(taken: (Progress, usize), ending: Ending) {
    assert!(
        matches!(taken, (Progress::End(found), 0) if found == ending),
        "{taken:?}"
    );
}

#[test]
fn an_overflow_ends_the_session_as_a_slow_consumer_and_lets_go_of_its_queue() {
    let harness = Harness::with_limits(100, 0);
    let member = harness.open("u");
    for _ in 0..10 {
        assert!(harness.hub.send(&member, frame(10)));
    }
    assert_eq!(harness.hub.queued_bytes(), 100);
    assert!(!harness.hub.send(&member, frame(1)));
    assert_eq!(harness.hub.queued_bytes(), 0);
    assert_eq!(harness.dropped(DropReason::SlowConsumer), 11);
    let ending = Ending::new(Disconnect::SLOW_CONSUMER);
    assert_ends(take(&harness, &member, 100), ending);
    assert!(!harness.hub.send(&member, frame(1)));
    assert_eq!(harness.dropped(DropReason::Closed), 1);
}

#[test]
fn what_is_not_written_counts_against_the_bound() {
    let harness = Harness::with_limits(100, 0);
    let member = harness.open("u");
    assert!(harness.hub.send(&member, frame(60)));
    assert!(harness.hub.send(&member, frame(40)));
    assert_eq!(harness.hub.queued_bytes(), 100);
    // The socket takes 30 of the first frame's 60 bytes.
    let (progress, written) = take(&harness, &member, 30);
    assert!(matches!(progress, Progress::Blocked { wrote: true }));
    assert_eq!(written, 30);
    assert!(harness.hub.send(&member, frame(30)));
    assert!(
        !harness.hub.send(&member, frame(1)),
        "100 bytes are not written yet"
    );
    assert_eq!(
        harness.hub.queued_bytes(),
        30,
        "the rest of the partly written frame stays queued"
    );
    harness.unregister(&member);
    assert_eq!(harness.hub.queued_bytes(), 0);
}

#[test]
fn a_single_frame_is_never_too_large_for_an_empty_queue() {
    let harness = Harness::with_limits(100, 0);
    let member = harness.open("u");
    assert!(harness.hub.send(&member, frame(1_000)));
    assert!(!harness.hub.send(&member, frame(1)));
}

#[test]
fn over_the_bound_of_the_node_only_long_queues_overflow() {
    const KIB: usize = 1024;
    let harness = Harness::with_limits(1024 * KIB, 200 * KIB);
    let [slow, quick] = ["slow", "quick"].map(|user| harness.open(user));
    for _ in 0..5 {
        assert!(
            harness.hub.send(&slow, frame(50 * KIB)),
            "the queue is below its own bound"
        );
    }
    assert!(
        harness.hub.send(&quick, frame(KIB)),
        "a short queue still takes frames"
    );
    assert!(!harness.hub.send(&slow, frame(KIB)));
    assert_eq!(
        slow.outbox().ending(),
        Some(Ending::new(Disconnect::SLOW_CONSUMER))
    );
    assert_eq!(harness.dropped(DropReason::QueueFull), 6);
    assert_eq!(harness.hub.queued_bytes(), KIB as u64);
    // The node is below its bound again, so a long queue may grow.
    for _ in 0..3 {
        assert!(harness.hub.send(&quick, frame(50 * KIB)));
    }
}

#[test]
fn limits_take_effect_when_they_are_set() {
    let harness = Harness::with_limits(100, 0);
    let member = harness.open("u");
    assert!(harness.hub.send(&member, frame(100)));
    harness.hub.set_limits(HubLimits {
        outbound_bytes: 200,
        node_outbound_bytes: 0,
        window_bytes: 64 * 1024 * 1024,
    });
    assert!(harness.hub.send(&member, frame(100)));
    harness.hub.set_limits(HubLimits {
        outbound_bytes: 100,
        node_outbound_bytes: 0,
        window_bytes: 64 * 1024 * 1024,
    });
    assert!(!harness.hub.send(&member, frame(1)));
}

#[test]
fn the_task_is_woken_once_for_many_frames_and_not_while_it_works() {
    let harness = Harness::new();
    let member = harness.open("u");
    let task = Task::new();
    assert!(task.waits(&member, false));
    for _ in 0..5 {
        harness.hub.send(&member, frame(1));
    }
    assert_eq!(task.wakes(), 1);
    assert_eq!(take(&harness, &member, 5).1, 5);
    harness.hub.send(&member, frame(1));
    assert_eq!(task.wakes(), 1, "a task that does not wait is not woken");
    assert!(
        !task.waits(&member, false),
        "the task finds the frame before it waits"
    );
    assert_eq!(take(&harness, &member, 5).1, 1);
    assert!(task.waits(&member, false));
}

#[test]
fn a_blocked_task_is_woken_by_an_ending_and_a_policy_change_but_not_by_frames() {
    let harness = Harness::new();
    for interruption in ["end", "reconsider"] {
        let member = harness.open("u");
        let task = Task::new();
        assert!(task.waits(&member, true));
        harness.hub.send(&member, frame(1));
        assert_eq!(task.wakes(), 0, "a frame does not wake a blocked task");
        assert!(
            task.waits(&member, true),
            "a blocked task waits although a frame is queued"
        );
        let ending = Ending::new(Disconnect::DISCONNECTED);
        if interruption == "end" {
            harness.hub.end(&member, ending);
        } else {
            harness.hub.reconsider_all();
        }
        assert_eq!(task.wakes(), 1, "{interruption}");
        assert!(!task.waits(&member, true));
        let (progress, written) = take(&harness, &member, 1);
        assert!(match progress {
            Progress::End(found) => interruption == "end" && found == ending,
            progress => interruption != "end" && matches!(progress, Progress::Reconsider),
        });
        assert_eq!(written, 0);
        harness.unregister(&member);
    }
}

#[test]
fn a_task_that_was_blocked_is_woken_by_frames_again() {
    let harness = Harness::new();
    let member = harness.open("u");
    let task = Task::new();
    assert!(task.waits(&member, true));
    assert!(task.waits(&member, false));
    harness.hub.send(&member, frame(1));
    assert_eq!(task.wakes(), 1);
}

#[test]
fn a_policy_change_is_told_before_what_is_queued_and_once() {
    let harness = Harness::new();
    let member = harness.open("u");
    harness.hub.send(&member, frame(1));
    harness.hub.reconsider_all();
    harness.hub.reconsider_all();
    assert!(matches!(
        take(&harness, &member, 1),
        (Progress::Reconsider, 0)
    ));
    assert!(matches!(take(&harness, &member, 1), (Progress::Done, 1)));
}

#[test]
fn the_first_ending_stays_except_that_a_revocation_replaces_it() {
    let harness = Harness::new();
    let end = |member: &Member, disconnect| harness.hub.end(member, Ending::new(disconnect));
    let member = harness.open("u");
    harness.hub.send(&member, frame(1));
    assert!(end(&member, Disconnect::DRAINING));
    assert!(!end(&member, Disconnect::DISCONNECTED));
    assert_eq!(
        harness.hub.queued_bytes(),
        1,
        "the queued frame stays during a drain"
    );
    assert!(end(&member, Disconnect::REVOKED));
    assert!(!end(&member, Disconnect::REVOKED));
    assert!(!end(&member, Disconnect::DRAINING));
    let ending = Ending::new(Disconnect::REVOKED);
    assert_ends(take(&harness, &member, 100), ending);
    assert_eq!(harness.hub.queued_bytes(), 0);
    assert!(!member.outbox().open(Lanes::default()));
}

#[test]
fn a_session_that_left_is_not_counted_again() {
    let harness = Harness::new();
    let member = harness.open("u");
    for _ in 0..3 {
        harness.hub.send(&member, frame(10));
    }
    assert_eq!(take(&harness, &member, 20).1, 20);
    harness.unregister(&member);
    assert_eq!(harness.hub.queued_bytes(), 0);
    assert_eq!(
        harness.dropped(DropReason::Closed),
        1,
        "only the frame that was not written is dropped"
    );
    // A revocation may have found the member just before the session left.
    assert!(!harness.hub.end(&member, Ending::new(Disconnect::REVOKED)));
    assert!(!harness.hub.send(&member, frame(10)));
    assert!(!member.outbox().open(Lanes::default()));
    let other = harness.open("v");
    harness.hub.send(&other, frame(7));
    assert_eq!(harness.hub.queued_bytes(), 7);
}

#[test]
fn no_wake_up_is_lost_between_threads() {
    let harness = Harness::with_limits(1 << 20, 0);
    let member = harness.open("u");
    let (sent, finished) = (2_000, AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..sent {
                harness.hub.send(&member, frame(1));
            }
            finished.store(1, Ordering::SeqCst);
            harness
                .hub
                .end(&member, Ending::new(Disconnect::DISCONNECTED));
        });
        let mut got = 0;
        park_on(poll_fn(|cx| {
            loop {
                let (progress, bytes) = take(&harness, &member, usize::MAX);
                got += bytes;
                match progress {
                    Progress::End(_) => {
                        let mut socket = Pipe::default();
                        member.write_last(&harness.hub, &At(1_000), &mut socket);
                        got += socket.taken.len();
                        return Poll::Ready(());
                    }
                    Progress::Done if member.outbox().poll_wake(cx, false).is_pending() => {
                        return Poll::Pending;
                    }
                    _ => {}
                }
            }
        }));
        assert_eq!(got, sent);
    });
}

/// Runs a future on this thread. The thread sleeps while the future waits.
fn park_on(future: impl Future<Output = ()>) {
    struct Thread(std::thread::Thread);
    impl Wake for Thread {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Thread(std::thread::current())).into();
    let mut future = pin!(future);
    while future
        .as_mut()
        .poll(&mut Context::from_waker(&waker))
        .is_pending()
    {
        std::thread::park();
    }
}
