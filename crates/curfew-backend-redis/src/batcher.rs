//! Combines the commands of many tasks into one write, because each separate write costs Redis and
//! this node a system call.
//!
//! Tasks queue their commands here. One task, the batcher, first yields once to tasks that are
//! about to add more commands, and then sends the queued commands as one pipeline. Several
//! pipelines are under way at a time. Commands are sent in the order in which they were queued.
//! Adjacent publications are executed by one call of a script ([`crate::fence`]). A cluster needs
//! one call for each channel.
//!
//! If Redis has forgotten the script, the call has no effect. The batcher then waits for every
//! pipeline under way, loads the script, and sends the unexecuted publications again before
//! anything else. An unexecuted publication is refused instead if Redis may have executed a later
//! publication meanwhile.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use curfew_model::Position;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, StreamExt as _};
use redis::{Cmd, Pipeline, RedisError, Value, pipe};
use tokio::sync::{mpsc, oneshot};
use tokio::task;
use tracing::info;

use crate::connect::Connection;
use crate::fault::Fault;
use crate::fence::{Fence, Publication, Ran, Run};
use crate::streams::NewEntry;

/// Number of commands and publications at which a batch is full. The last item of a batch may
/// exceed this number.
const BATCH: usize = 512;

/// Maximum number of pipelines under way at once.
const UNDER_WAY: usize = 8;

/// An entry of the queue.
enum Item {
    Commands(Commands),
    Publication(Publication),
}

/// Commands, and the channel that returns their replies.
struct Commands {
    commands: Vec<Cmd>,
    reply: oneshot::Sender<Result<Vec<Value>, RedisError>>,
}

/// The sending side of the queue.
#[derive(Debug, Clone)]
pub(crate) struct BatchSender(mpsc::UnboundedSender<Item>);

/// Sends the queued commands. The task that owns the connection polls [`Batcher::run`].
pub(crate) struct Batcher {
    /// The connection that everything is sent over.
    connection: Connection,
    /// Turns publications into calls of the script.
    fence: Arc<Fence>,
    items: mpsc::UnboundedReceiver<Item>,
}

/// The outcome of a pipeline's publications.
#[derive(Default)]
struct Settled {
    /// Publications that Redis did not execute because it lacks the script.
    undone: Vec<Publication>,
    /// True if Redis has answered another call of the script, and so may have executed other
    /// publications.
    has_run: bool,
}

/// Pipelines under way, in the order in which they were sent.
type UnderWay = FuturesOrdered<BoxFuture<'static, Settled>>;

/// Creates a batcher for a connection, with the sending side of its queue.
#[expect(
    clippy::disallowed_methods,
    reason = "callers wait for the items it holds, and are bounded themselves; with a bound here \
              they would wait for a place, and later ones could get it first"
)]
pub(crate) fn batcher(connection: Connection, fence: Arc<Fence>) -> (BatchSender, Batcher) {
    let (sender, items) = mpsc::unbounded_channel();
    let batcher = Batcher {
        connection,
        fence,
        items,
    };
    (BatchSender(sender), batcher)
}

impl BatchSender {
    /// Runs commands and returns their replies in order. If any command fails, the first error is
    /// returned. Commands are sent in the order in which the futures of `run` and `publish` are
    /// first polled.
    pub(crate) async fn run(&self, commands: Vec<Cmd>) -> Result<Vec<Value>, Fault> {
        let (reply, answer) = oneshot::channel();
        let item = Item::Commands(Commands { commands, reply });
        // Both the send and the answer fail once the connection is closed.
        self.0.send(item).map_err(|_| Fault::NotConnected)?;
        let replies = answer.await.map_err(|_| Fault::NotConnected)??;
        replies
            .into_iter()
            .map(|reply| match reply {
                Value::ServerError(error) => Err(RedisError::from(error).into()),
                reply => Ok(reply),
            })
            .collect()
    }

    /// Publishes into a channel, unless the time `until` ([`boottime`](curfew_model::boottime)) has
    /// passed. `channel` is the channel's name at Redis. With an entry, the publication is also
    /// appended to the channel's stream, and its position is returned. Publications are sent in the
    /// order in which the futures of `run` and `publish` are first polled.
    pub(crate) async fn publish(
        &self,
        channel: String,
        payload: Bytes,
        until: Duration,
        entry: Option<Box<NewEntry>>,
    ) -> Result<Option<Position>, Fault> {
        let (publication, answer) = Publication::new(channel, payload, until, entry);
        // A publication that cannot be queued is dropped here. Its `Drop` sends the answer.
        drop(self.0.send(Item::Publication(publication)));
        answer.await.map_err(|_| Fault::NotConnected)?
    }
}

impl Batcher {
    /// Sends the queued items for as long as this future is polled.
    pub(crate) async fn run(mut self) {
        let mut under_way = UnderWay::new();
        loop {
            tokio::select! {
                // Results come first, because unexecuted publications are sent again before new
                // ones are taken.
                biased;
                Some(settled) = under_way.next() => {
                    if !settled.undone.is_empty() {
                        self.send_again(settled.undone, &mut under_way).await;
                    }
                }
                item = self.items.recv(), if under_way.len() < UNDER_WAY => {
                    // `None` means that every sender was dropped, so nothing can be queued any
                    // more.
                    let Some(item) = item else { return };
                    let batch = self.gather(item).await;
                    under_way.push_back(self.send(batch));
                }
            }
        }
    }

    /// Takes a batch from the queue, starting with `first`.
    async fn gather(&mut self, first: Item) -> Vec<Item> {
        // Tasks that are ready to run add their commands during this yield.
        task::yield_now().await;
        let mut commands = first.len();
        let mut batch = vec![first];
        while commands < BATCH
            && let Ok(item) = self.items.try_recv()
        {
            commands += item.len();
            batch.push(item);
        }
        batch
    }

    /// Returns a future that sends a batch and waits for the replies.
    fn send(&self, batch: Vec<Item>) -> BoxFuture<'static, Settled> {
        let (fence, connection) = (Arc::clone(&self.fence), self.connection.clone());
        Box::pin(send(fence, connection, batch))
    }

    /// Loads the script again and sends the publications that Redis did not execute.
    async fn send_again(&mut self, mut undone: Vec<Publication>, under_way: &mut UnderWay) {
        // All results are read first, because a publication must not be sent again once a later
        // publication has been executed.
        while let Some(settled) = under_way.next().await {
            if settled.has_run {
                // Another client has loaded the script meanwhile, so publications that were queued
                // later may have been executed.
                undone.drain(..).for_each(Publication::overtaken);
            }
            undone.extend(settled.undone);
        }
        info!(
            publications = undone.len(),
            "redis has lost the publishing script, and the node loads it again"
        );
        // If the script cannot be loaded, the connection is broken, and the publications fail like
        // everything that is sent over it.
        if self.fence.load(&mut self.connection).await.is_ok() {
            let batch = undone.into_iter().map(Item::Publication).collect();
            under_way.push_back(self.send(batch));
        }
    }
}

impl Item {
    /// The number of commands in this item. A publication counts as one command.
    fn len(&self) -> usize {
        match self {
            Self::Commands(Commands { commands, .. }) => commands.len(),
            Self::Publication(_) => 1,
        }
    }
}

/// A part of a pipeline. The replies to its commands are consecutive. Parts are stored in the order
/// of the replies.
enum Part {
    Commands(usize, oneshot::Sender<Result<Vec<Value>, RedisError>>),
    Run(Run),
}

impl Part {
    fn run(&mut self) -> Option<&mut Run> {
        match self {
            Self::Run(run) => Some(run),
            Self::Commands(..) => None,
        }
    }
}

/// Sends one batch, waits for the replies, and answers every task that waits.
async fn send(fence: Arc<Fence>, mut connection: Connection, batch: Vec<Item>) -> Settled {
    let (pipeline, mut parts) = pack(&fence, batch);
    let count = pipeline.len();
    if count == 0 {
        // Nothing is left to send: each requester has given up, or its publication was refused
        // because its lease is over.
        return Settled::default();
    }
    let until = parts
        .iter_mut()
        .filter_map(Part::run)
        .map(|run| run.until());
    let until = until.min();
    let replies = {
        let asking = connection.send_packed_commands(&pipeline, 0, count);
        let mut asking = std::pin::pin!(asking);
        match until {
            None => asking.await,
            Some(until) => tokio::select! {
                biased;
                replies = &mut asking => replies,
                () = fence.lease_over(until) => {
                    for run in parts.iter_mut().filter_map(Part::run) {
                        run.give_up();
                    }
                    // The publishers already have their answer. The replies are still awaited, so
                    // that refusals are counted.
                    asking.await
                }
            },
        }
    };
    match replies {
        Ok(replies) => settle(&fence, parts, replies),
        Err(error) => {
            for part in parts {
                match part {
                    // The requester may have given up.
                    Part::Commands(_, reply) => drop(reply.send(Err(error.clone()))),
                    Part::Run(mut run) => run.leave_open(&error),
                }
            }
            Settled::default()
        }
    }
}

/// Builds the pipeline of a batch. Publications whose lease is over are refused and left out, so
/// call this function right before the pipeline is sent.
fn pack(fence: &Fence, batch: Vec<Item>) -> (Pipeline, Vec<Part>) {
    let mut pipeline = pipe();
    let mut parts = Vec::new();
    let mut publications = Vec::new();
    let publish =
        |publications: Vec<Publication>, pipeline: &mut Pipeline, parts: &mut Vec<Part>| {
            for run in fence.runs(publications) {
                pipeline.add_command(fence.command(&run));
                parts.push(Part::Run(run));
            }
        };
    for item in batch {
        match item {
            Item::Publication(publication) => publications.push(publication),
            // Commands whose task gave up before they were sent are left out.
            Item::Commands(Commands { reply, .. }) if reply.is_closed() => {}
            Item::Commands(Commands { commands, reply }) => {
                // The publications that were queued before these commands are sent first.
                publish(std::mem::take(&mut publications), &mut pipeline, &mut parts);
                parts.push(Part::Commands(commands.len(), reply));
                for command in commands {
                    pipeline.add_command(command);
                }
            }
        }
    }
    publish(publications, &mut pipeline, &mut parts);
    (pipeline, parts)
}

/// Answers every part of a pipeline from the replies.
fn settle(fence: &Fence, parts: Vec<Part>, replies: Vec<Value>) -> Settled {
    let mut settled = Settled::default();
    let mut replies = replies.into_iter();
    for part in parts {
        match part {
            Part::Commands(count, reply) => {
                let own = replies.by_ref().take(count).collect();
                // The requester may have given up.
                drop(reply.send(Ok(own)));
            }
            Part::Run(mut run) => {
                match fence.answer(&mut run, replies.next().unwrap_or_default()) {
                    Ran::NoScript => settled.undone.extend(run.into_publications()),
                    Ran::Answered => {
                        settled.has_run = true;
                        // Redis may have executed these publications, so earlier publications that
                        // it did not execute are refused.
                        let undone = settled.undone.drain(..);
                        undone.for_each(Publication::overtaken);
                    }
                }
            }
        }
    }
    settled
}
