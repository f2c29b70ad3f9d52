//! Many tasks' commands in one write: each would cost Redis and this node a system call of its own.
//!
//! Whoever wants something of Redis puts it here. One task takes what is there, after having given
//! way once to whoever is about to add more, and sends it as one pipeline; several are under way at
//! a time. Commands are sent in the order in which they were put here.

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, StreamExt as _};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, Value, pipe};
use tokio::sync::{mpsc, oneshot};
use tokio::task;

use crate::fault::Fault;

/// Commands sent in one write, give or take a request's.
const BATCH: usize = 512;

/// Pipelines under way at once.
const UNDER_WAY: usize = 8;

/// Some commands, and whoever waits for their replies.
struct Request {
    commands: Vec<Cmd>,
    reply: oneshot::Sender<Result<Vec<Value>, RedisError>>,
}

/// The way in.
#[derive(Debug, Clone)]
pub(crate) struct Funnel(mpsc::UnboundedSender<Request>);

/// The way out: run by whoever owns the connection.
pub(crate) struct Spout {
    connection: MultiplexedConnection,
    requests: mpsc::UnboundedReceiver<Request>,
}

/// A funnel over a connection.
#[expect(
    clippy::disallowed_methods,
    reason = "it holds what its callers wait for, who are bounded: with a bound of its own they \
              would wait for a place instead, and those that come later could get one first"
)]
pub(crate) fn funnel(connection: MultiplexedConnection) -> (Funnel, Spout) {
    let (sender, requests) = mpsc::unbounded_channel();
    let spout = Spout {
        connection,
        requests,
    };
    (Funnel(sender), spout)
}

impl Funnel {
    /// Runs commands; their replies in order. The first error among them is the error of all. They
    /// are sent in the order of the first polls.
    pub(crate) async fn run(&self, commands: Vec<Cmd>) -> Result<Vec<Value>, Fault> {
        let (reply, answer) = oneshot::channel();
        let request = Request { commands, reply };
        // Both fail when the connection is gone.
        self.0.send(request).map_err(|_| Fault::NotConnected)?;
        let replies = answer.await.map_err(|_| Fault::NotConnected)??;
        replies
            .into_iter()
            .map(|reply| match reply {
                Value::ServerError(error) => Err(RedisError::from(error).into()),
                reply => Ok(reply),
            })
            .collect()
    }
}

impl Spout {
    /// Sends what comes in, for as long as it is polled.
    pub(crate) async fn run(mut self) {
        let mut under_way: FuturesOrdered<BoxFuture<'static, ()>> = FuturesOrdered::new();
        loop {
            tokio::select! {
                // First: what was taken last is sent before more is taken.
                biased;
                Some(()) = under_way.next() => {}
                request = self.requests.recv(), if under_way.len() < UNDER_WAY => {
                    let Some(request) = request else { return };
                    let batch = self.gather(request).await;
                    under_way.push_back(Box::pin(send(self.connection.clone(), batch)));
                }
            }
        }
    }

    async fn gather(&mut self, first: Request) -> Vec<Request> {
        // Tasks that are ready to run add theirs meanwhile.
        task::yield_now().await;
        let mut commands = first.commands.len();
        let mut batch = vec![first];
        while commands < BATCH
            && let Ok(request) = self.requests.try_recv()
        {
            commands += request.commands.len();
            batch.push(request);
        }
        batch
    }
}

async fn send(mut connection: MultiplexedConnection, batch: Vec<Request>) {
    let mut pipeline = pipe();
    let mut waiting = Vec::with_capacity(batch.len());
    for request in batch {
        // Whoever gave up before it was sent need not be served.
        if request.reply.is_closed() {
            continue;
        }
        waiting.push((request.commands.len(), request.reply));
        for command in request.commands {
            pipeline.add_command(command);
        }
    }
    let count = pipeline.len();
    if count == 0 {
        return;
    }
    // The receivers may have gone.
    match connection.send_packed_commands(&pipeline, 0, count).await {
        Ok(mut replies) => {
            for (count, reply) in waiting.into_iter().rev() {
                let own = replies.split_off(replies.len().saturating_sub(count));
                drop(reply.send(Ok(own)));
            }
        }
        Err(error) => {
            for (_, reply) in waiting {
                drop(reply.send(Err(error.clone())));
            }
        }
    }
}
