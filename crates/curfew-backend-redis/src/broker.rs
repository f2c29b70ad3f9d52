//! Subscribes to channels, and publishes. A publication is sent in an envelope, and received
//! through [`subscriber`](crate::subscriber).

use std::time::{Duration, Instant};

use curfew_backend::{BackendError, BoxFuture, Broker};
use curfew_model::{Channel, Position, Publication};
use curfew_telemetry::{Span, SpanKind};

use crate::envelope;
use crate::fault::Fault;
use crate::slots::slot_of;
use crate::streams::NewEntry;
use crate::subscriber::Verbs;
use crate::{Connections, Redis, span};

impl Broker for Redis {
    fn subscribe<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(async move {
            // The channel is added to `wanted` before the command is sent, because a connection
            // that is being made must subscribe to the channel too.
            self.connections.wanted.lock().insert(channel.clone());
            let told = self
                .connections
                .tell(channel, |verbs| verbs.subscribe)
                .await;
            told.map_err(|fault| self.failed(fault))
        })
    }

    fn unsubscribe<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(async move {
            self.connections.forget(channel);
            match self
                .connections
                .tell(channel, |verbs| verbs.unsubscribe)
                .await
            {
                // Without a connection nothing is left to do: the next connection does not
                // subscribe to a channel that is not in `wanted`.
                Ok(()) | Err(Fault::NotConnected) => Ok(()),
                Err(fault) => Err(self.failed(fault)),
            }
        })
    }

    fn publish(
        &self,
        publication: Publication,
        until: Duration,
    ) -> BoxFuture<'_, Result<(), BackendError>> {
        Box::pin(async move {
            self.hand_over(publication, until, None).await?;
            Ok(())
        })
    }
}

impl Redis {
    /// Counts a fault of the broker, and converts it into an error of the backend.
    pub(crate) fn failed(&self, fault: Fault) -> BackendError {
        let errors = &self.core.metrics.broker_errors;
        errors.inc(fault.as_broker_error());
        fault.into()
    }

    /// Publishes through Redis. With an `entry`, Redis also appends the publication to the stream
    /// of its channel, and the publication's position in the stream is returned.
    pub(crate) async fn hand_over(
        &self,
        mut publication: Publication,
        until: Duration,
        entry: Option<Box<NewEntry>>,
    ) -> Result<Option<Position>, BackendError> {
        let mut span = Span::NONE;
        if publication.trace.is_some() {
            span = self.producer(&publication);
            publication.trace = span.context();
        }
        let name = self.core.keys.channel(&publication.channel);
        let envelope = match entry {
            None => envelope::encode(&publication),
            Some(_) => envelope::encode_end(&publication),
        };
        let published = self.connections.publish(name, envelope, until, entry).await;
        let position = published.map_err(|fault| {
            span::failed(&mut span, &fault);
            self.failed(fault)
        })?;
        self.core.metrics.broker_messages_sent.inc();
        Ok(position)
    }

    /// The span of a publication that is sent to Redis. The spans of the receiving nodes are
    /// children of this span.
    fn producer(&self, publication: &Publication) -> Span {
        let tracer = self.core.metrics.tracer();
        let mut span = tracer.within("publish", SpanKind::Producer);
        span.set("messaging.system", "redis");
        span.set("messaging.operation.name", "publish");
        span.set("messaging.operation.type", "send");
        let bytes = i64::try_from(publication.data.len()).unwrap_or(i64::MAX);
        span.set("messaging.message.body.size", bytes);
        if tracer.names_users() {
            let channel = publication.channel.as_str().to_owned();
            span.set("messaging.destination.name", channel);
        }
        span
    }
}

impl Connections {
    /// Sends the command `verb` (subscribe or unsubscribe) for a channel over the connection that
    /// carries the channel.
    async fn tell(
        &self,
        channel: &Channel,
        verb: impl Fn(Verbs) -> &'static str,
    ) -> Result<(), Fault> {
        let name = self.core.keys.channel(channel);
        let server = self.of(slot_of(name.as_bytes()))?;
        let mut connection = match server.subscriber.load_full() {
            Some(connection) => (*connection).clone(),
            None => return Err(Fault::NotConnected),
        };
        let (verb, began) = (verb(Verbs::new(self.is_cluster())), Instant::now());
        let mut span = span::begin(self.core.metrics.tracer(), verb, 1, &server.address);
        let mut command = redis::cmd(verb);
        let told = command
            .arg(name)
            .query_async::<redis::Value>(&mut connection);
        if let Err(error) = told.await {
            let fault = Fault::from(error);
            span::failed(&mut span, &fault);
            if fault.is_misrouted() {
                self.stale.notify_one();
            }
            return Err(fault);
        }
        self.core.answered(verb, began);
        Ok(())
    }
}
