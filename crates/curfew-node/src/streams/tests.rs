use std::sync::atomic::AtomicUsize;
use std::thread;

use super::*;

/// Detects this fault: if two readers of a channel end at the same time, neither removes the
/// channel's entry.
#[test]
fn the_last_of_readers_that_end_together_removes_their_turns() {
    const CHANNELS: usize = 40_000;
    const READERS: usize = 2;
    let reads = StreamReads::default();
    let begun = AtomicUsize::new(0);
    let read_all = || {
        for n in 1..=CHANNELS {
            let channel = Channel::parse(&format!("room:{n}")).unwrap();
            let reader = reads.reader(&channel);
            begun.fetch_add(1, Ordering::AcqRel);
            while begun.load(Ordering::Acquire) < n * READERS {
                thread::yield_now();
            }
            drop(reader);
        }
    };
    thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(read_all);
        }
    });
    let left = reads.by_channel.lock().len();
    assert_eq!(
        left, 0,
        "{left} channels without a reader still have an entry"
    );
}
