//! Counted slots for connections of the admin listener. When all slots are taken, a new connection
//! displaces a connection that waits for a request. A stranger's idle connections therefore cannot
//! lock out health checks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time;
use tokio_util::sync::CancellationToken;

/// The time that a displaced connection has to free its slot.
const MAKE_ROOM: Duration = Duration::from_secs(1);

/// The slots for connections of the admin listener.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    waiting: Mutex<Waiting>,
}

/// The connections that wait for a request, in the order in which they began to wait.
#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    connections: BTreeMap<u64, CancellationToken>,
}

/// The slot of a connection. Dropping this value frees the slot.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    /// The connection's number in [`Waiting`] while the connection waits for a request.
    number: Mutex<Option<u64>>,
    gone: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    pub(super) fn new(count: usize) -> Arc<Self> {
        Arc::new(Self {
            free: Arc::new(Semaphore::new(count)),
            waiting: Mutex::default(),
        })
    }

    /// Takes a free slot. If no slot is free, displaces the connection that has waited longest for
    /// a request, and takes the slot that it frees. Returns `None` if every connection has a
    /// request to answer, or if the displaced connection does not free its slot within
    /// [`MAKE_ROOM`].
    pub(super) async fn take(self: Arc<Self>) -> Option<Arc<Place>> {
        let free = Arc::clone(&self.free);
        let permit = match Arc::clone(&free).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let (_, longest) = self.waiting.lock().connections.pop_first()?;
                longest.cancel();
                let freed = time::timeout(MAKE_ROOM, free.acquire_owned());
                freed.await.ok()?.ok()?
            }
        };
        let place = Place {
            places: self,
            number: Mutex::new(None),
            gone: CancellationToken::new(),
            _permit: permit,
        };
        place.wait();
        Some(Arc::new(place))
    }
}

impl Place {
    /// Notes that the connection waits for a request. From now on the connection can be displaced.
    pub(super) fn wait(&self) {
        // `waiting` is locked before `number`, as in `serve`. The opposite order could deadlock.
        let mut waiting = self.places.waiting.lock();
        let number = waiting.next;
        waiting.next += 1;
        waiting.connections.insert(number, self.gone.clone());
        *self.number.lock() = Some(number);
    }

    /// Notes that the connection has a request to answer. The connection cannot be displaced until
    /// the next [`Place::wait`].
    pub(super) fn serve(&self) {
        let mut waiting = self.places.waiting.lock();
        if let Some(number) = self.number.lock().take() {
            waiting.connections.remove(&number);
        }
    }

    /// Waits until the connection is displaced.
    pub(super) async fn given_up(&self) {
        self.gone.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A connection that has ended must not stay in the list of connections that wait for a
        // request.
        self.serve();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_connection_that_has_waited_longest_makes_room() {
        let places = Places::new(2);
        let take = || Arc::clone(&places).take();
        let (first, second) = (take().await.unwrap(), take().await.unwrap());
        // The first connection has had a request. It now has a higher number than the second
        // connection, so the second has waited longer.
        first.serve();
        first.wait();
        let makes_room = async {
            second.given_up().await;
            drop(second);
        };
        let (third, ()) = tokio::join!(take(), makes_room);
        let third = third.unwrap();
        for busy in [&first, &third] {
            busy.serve();
        }
        assert!(
            take().await.is_none(),
            "both connections have a request, so neither makes room"
        );
        drop(first);
        assert!(take().await.is_some());
    }
}
