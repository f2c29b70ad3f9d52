//! Many tasks' commands in one write: each would cost Redis and this node a system call of its own.
//!
//! Whoever wants something of Redis puts it here. One task takes what is there, after having given
//! way once to whoever is about to add more, and sends it as one pipeline; several are under way at
//! a time. Commands are sent in the order in which they were put here. Publications that stand next
//! to each other are carried out by one call of a script ([`crate::fence`]), in a cluster by one for
//! each channel.
//!
//! Where Redis has forgotten the script, nothing was done of the call: everything under way is
//! waited for, the script is put into place, and what was not done is sent again before anything
//! else. What would then come after something that was behind it is refused instead.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, StreamExt as _};
use redis::{Cmd, Pipeline, RedisError, Value, pipe};
use tokio::sync::{mpsc, oneshot};
use tokio::task;
use tracing::info;

use crate::connect::Connection;
use crate::fault::Fault;
use crate::fence::{Fence, Publication, Ran, Run};

/// Commands and publications sent in one write, give or take those that come together.
const BATCH: usize = 512;

/// Pipelines under way at once.
const UNDER_WAY: usize = 8;

enum Item {
    Commands(Commands),
    Publication(Publication),
}

/// Some commands, and whoever waits for their replies.
struct Commands {
    commands: Vec<Cmd>,
    reply: oneshot::Sender<Result<Vec<Value>, RedisError>>,
}

/// The way in.
#[derive(Debug, Clone)]
pub(crate) struct BatchSender(mpsc::UnboundedSender<Item>);

/// Sends what comes in, in batches: run by the owner of the connection.
pub(crate) struct Batcher {
    connection: Connection,
    fence: Arc<Fence>,
    items: mpsc::UnboundedReceiver<Item>,
}

/// What is left of a pipeline when Redis has answered it.
#[derive(Default)]
struct Settled {
    /// Publications for which Redis had no script.
    undone: Vec<Publication>,
    /// Whether it had the script for others.
    has_run: bool,
}

type UnderWay = FuturesOrdered<BoxFuture<'static, Settled>>;

/// A batcher over a connection, and the way in.
#[expect(
    clippy::disallowed_methods,
    reason = "it holds what its callers wait for, who are bounded: with a bound of its own they \
              would wait for a place instead, and those that come later could get one first"
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
    /// Runs commands; their replies in order. The first error among them is the error of all. They
    /// are sent in the order of the first polls.
    pub(crate) async fn run(&self, commands: Vec<Cmd>) -> Result<Vec<Value>, Fault> {
        let (reply, answer) = oneshot::channel();
        let item = Item::Commands(Commands { commands, reply });
        // Both fail when the connection is gone.
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

    /// Publishes into a channel, by its name at Redis, unless it is later than `until`
    /// ([`boottime`](curfew_model::boottime)). Likewise sent in the order of the first polls.
    pub(crate) async fn publish(
        &self,
        channel: String,
        payload: Bytes,
        until: Duration,
    ) -> Result<(), Fault> {
        let (publication, answer) = Publication::new(channel, payload, until);
        // One that cannot be sent answers for itself as well.
        drop(self.0.send(Item::Publication(publication)));
        answer.await.map_err(|_| Fault::NotConnected)?
    }
}

impl Batcher {
    /// Sends what comes in, for as long as it is polled.
    pub(crate) async fn run(mut self) {
        let mut under_way = UnderWay::new();
        loop {
            tokio::select! {
                // First: what was taken last is sent before more is taken.
                biased;
                Some(settled) = under_way.next() => {
                    if !settled.undone.is_empty() {
                        self.send_again(settled.undone, &mut under_way).await;
                    }
                }
                item = self.items.recv(), if under_way.len() < UNDER_WAY => {
                    let Some(item) = item else { return };
                    let batch = self.gather(item).await;
                    under_way.push_back(self.send(batch));
                }
            }
        }
    }

    async fn gather(&mut self, first: Item) -> Vec<Item> {
        // Tasks that are ready to run add theirs meanwhile.
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

    fn send(&self, batch: Vec<Item>) -> BoxFuture<'static, Settled> {
        let (fence, connection) = (Arc::clone(&self.fence), self.connection.clone());
        Box::pin(send(fence, connection, batch))
    }

    /// Sends what was not done for want of the script.
    async fn send_again(&mut self, mut undone: Vec<Publication>, under_way: &mut UnderWay) {
        while let Some(settled) = under_way.next().await {
            if settled.has_run {
                // Somebody has put the script into place meanwhile: it is too late for these.
                undone.drain(..).for_each(Publication::overtaken);
            }
            undone.extend(settled.undone);
        }
        info!(
            publications = undone.len(),
            "redis has forgotten the script that publishes, it is told again"
        );
        // Where that fails, so does what is sent next.
        if self.fence.load(&mut self.connection).await.is_ok() {
            let batch = undone.into_iter().map(Item::Publication).collect();
            under_way.push_back(self.send(batch));
        }
    }
}

impl Item {
    fn len(&self) -> usize {
        match self {
            Self::Commands(Commands { commands, .. }) => commands.len(),
            Self::Publication(_) => 1,
        }
    }
}

/// What waits for the replies to a pipeline, in their order.
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

async fn send(fence: Arc<Fence>, mut connection: Connection, batch: Vec<Item>) -> Settled {
    let (pipeline, mut parts) = pack(&fence, batch);
    let count = pipeline.len();
    if count == 0 {
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
                    // Nobody waits for it any more, but what was refused is counted.
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
                    // The receiver may have gone.
                    Part::Commands(_, reply) => drop(reply.send(Err(error.clone()))),
                    Part::Run(mut run) => run.leave_open(&error),
                }
            }
            Settled::default()
        }
    }
}

/// Everything of a batch in its order. To be sent at once: what is late already is left out.
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
            // Whoever gave up before it was sent need not be served.
            Item::Commands(Commands { reply, .. }) if reply.is_closed() => {}
            Item::Commands(Commands { commands, reply }) => {
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

/// Answers everyone by what Redis said.
fn settle(fence: &Fence, parts: Vec<Part>, replies: Vec<Value>) -> Settled {
    let mut settled = Settled::default();
    let mut replies = replies.into_iter();
    for part in parts {
        match part {
            Part::Commands(count, reply) => {
                let own = replies.by_ref().take(count).collect();
                // The receiver may have gone.
                drop(reply.send(Ok(own)));
            }
            Part::Run(mut run) => {
                match fence.answer(&mut run, replies.next().unwrap_or_default()) {
                    Ran::NoScript => settled.undone.extend(run.into_publications()),
                    Ran::Answered => {
                        settled.has_run = true;
                        // It is too late for what was in front of it.
                        let undone = settled.undone.drain(..);
                        undone.for_each(Publication::overtaken);
                    }
                }
            }
        }
    }
    settled
}
