//! Revocations: checked at admission, written with a receipt, listed.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use curfew_backend::{
    BackendError, BoxFuture, Durability, Ended, Listed, Receipt, ReceiptNodes, Revocations, Revoked,
};
use curfew_model::{NodeId, Revocation, RevocationKey, TraceContext};
use curfew_telemetry::{Span, SpanKind};
use tokio::sync::oneshot;
use tokio::time;
use tracing::{Instrument as _, debug};

use crate::connections::Keyed;
use crate::control::{Known, SpelledKey, find_names, read, why_ineffective};
use crate::core::MAX_CLOCK_SKEW;
use crate::fault::Fault;
use crate::inbox::{Message, NodeAnswer, found_within, left_within};
use crate::request::{ControlRequest, WriteReceipt};
use crate::slots::Slot;
use crate::subscriber::Verbs;
use crate::{Redis, control};

/// Longest time for which an admission waits until this node and Redis agree on a revocation.
const HEARSAY: Duration = Duration::from_millis(500);

/// Name of the span that covers the wait for confirmations.
const AWAIT: &str = "await confirmations";

/// Maximum number of index entries read in one command.
const BATCH: isize = 1000;

/// Longest wait for the control connection to execute an operation.
const OPERATION: Duration = Duration::from_secs(5);

impl Revocations for Redis {
    /// Asks the primary of the revocations. In a cluster, a session's record is in another slot, so
    /// the write of the record does not show that this primary was replaced. In a cluster, this
    /// method therefore also sends a write to the slot of the revocations. A replaced primary
    /// refuses that write.
    fn check<'a>(
        &'a self,
        keys: &'a [RevocationKey],
        issued_at: Option<u64>,
    ) -> BoxFuture<'a, Result<Option<Revoked>, BackendError>> {
        Box::pin(async move {
            if !self.core.status.clocks_agree() {
                // The clocks differ so much that a cutoff would cover the wrong tokens.
                return Err(Fault::Clock(MAX_CLOCK_SKEW.as_secs()).into());
            }
            if keys.is_empty() {
                return Ok(None);
            }
            // `hold` is called before the request to Redis: the session must be held back if one of
            // its keys was pushed and waits to be read.
            self.known_revocations.hold(keys);
            let written: Vec<SpelledKey> = keys.iter().flat_map(SpelledKey::all).collect();
            let there = self.count(&written).await?;
            if self.connections.is_cluster() {
                self.touch_heartbeat().await?;
            }
            // Nearly every admission takes this branch, after one `EXISTS`.
            if there == 0 {
                self.agree_with_memory(keys, issued_at).await?;
                return Ok(None);
            }
            let server = self.connections.of(Slot::REVOKED)?;
            let known = read(&server.commands()?, &self.core.keys, &written).await?;
            let mut covering = None;
            for (written, known) in written.iter().zip(known) {
                let Some(known) = known else { continue };
                self.known_revocations.meet(written, &known);
                let revoked = written.revoked(&known);
                if covering.is_none() && revoked.revocation.covers(issued_at) {
                    covering = Some(revoked);
                }
            }
            if covering.is_none() {
                self.agree_with_memory(keys, issued_at).await?;
            }
            Ok(covering)
        })
    }

    fn revoke(
        &self,
        key: RevocationKey,
        revocation: Revocation,
    ) -> BoxFuture<'_, Result<Receipt, BackendError>> {
        Box::pin(async move {
            let started = Instant::now();
            let call = revocation.trace.clone();
            let WriteReceipt { id, replicas } = self
                .operate(|reply| ControlRequest::Revoke {
                    key: key.clone(),
                    revocation,
                    reply,
                })
                .await?;
            let await_all = self.confirm_traced(id, &key, call.as_deref());
            let (nodes, closed) = await_all.await?;
            let durability = replicas.map(|(have, wanted)| match have >= wanted {
                true => Durability::Replicated,
                false => Durability::PrimaryOnly,
            });
            Ok(Receipt {
                key: self.core.keys.revoked(&key),
                nodes,
                closed,
                durability,
                replicas: replicas.map(|(have, _)| have),
                took_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            })
        })
    }

    fn restore<'a>(&'a self, key: &'a RevocationKey) -> BoxFuture<'a, Result<bool, BackendError>> {
        Box::pin(self.operate(|reply| ControlRequest::Restore {
            key: key.clone(),
            reply,
        }))
    }

    fn compare(&self) -> BoxFuture<'_, Result<(), BackendError>> {
        Box::pin(async move {
            let gone = || BackendError::from(Fault::NotConnected);
            let (reply, compared) = oneshot::channel();
            let asked = self.requests.send(ControlRequest::Compare { reply }).await;
            asked.map_err(|_| gone())?;
            compared.await.map_err(|_| gone())
        })
    }

    /// Asks the primary of the revocations, because cutoffs are set by the clock of this primary.
    fn time(&self) -> BoxFuture<'_, Result<Duration, BackendError>> {
        Box::pin(async move {
            let time = self.connections.call(Keyed::at(Slot::REVOKED, "TIME"));
            let (seconds, microseconds): (u64, u32) = time.await?;
            Ok(Duration::new(seconds, microseconds.saturating_mul(1000)))
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Listed>, BackendError>> {
        Box::pin(async move { Ok(self.list_revocations().await?) })
    }
}

impl Redis {
    /// Sends a request to the control connection and waits for the result.
    async fn operate<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, BackendError>>) -> ControlRequest,
    ) -> Result<T, BackendError> {
        let (reply, answer) = oneshot::channel();
        let unavailable = || BackendError::from(Fault::NotConnected);
        self.requests
            .try_send(request(reply))
            .map_err(|_| unavailable())?;
        match time::timeout(OPERATION, answer).await {
            Ok(Ok(result)) => result,
            _ => Err(unavailable()),
        }
    }

    /// Waits until this node knows no revocation that covers the token. The caller has just found
    /// no such revocation in Redis. A revocation that only the node knows was lifted a moment ago,
    /// or Redis has just lost it and the node is about to write it back. The session is not
    /// admitted until it is clear which of the two has happened. Fails after [`HEARSAY`].
    async fn agree_with_memory(
        &self,
        keys: &[RevocationKey],
        issued_at: Option<u64>,
    ) -> Result<(), Fault> {
        let deadline = time::Instant::now() + HEARSAY;
        let known = || {
            let now = self.core.clock.now() + self.core.status.skew();
            let now_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
            self.known_revocations.covers(keys, issued_at, now_ms)
        };
        while known() {
            if time::Instant::now() >= deadline {
                return Err(Fault::Disagreement);
            }
            time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Counts the keys that exist in Redis.
    async fn count(&self, written: &[SpelledKey]) -> Result<u64, Fault> {
        let (first, rest) = written
            .split_first()
            .ok_or(Fault::Unexpected("EXISTS without keys"))?;
        let mut command = Keyed::new("EXISTS", &first.name(&self.core.keys));
        for written in rest {
            command = command.arg(written.name(&self.core.keys));
        }
        self.connections.call(command).await
    }

    /// Extends this node's heartbeat, as a write that a replaced primary refuses.
    async fn touch_heartbeat(&self) -> Result<(), Fault> {
        let lease = u64::try_from(control::NODE_LEASE.as_millis()).unwrap_or(u64::MAX);
        let key = self.core.keys.heartbeat(self.core.node);
        self.connections
            .call::<i64>(Keyed::new("PEXPIRE", &key).arg(lease))
            .await?;
        Ok(())
    }

    /// Runs [`Redis::confirm_everywhere`] in a span of the caller's trace.
    async fn confirm_traced(
        &self,
        id: String,
        key: &RevocationKey,
        call: Option<&TraceContext>,
    ) -> Result<(ReceiptNodes, u64), BackendError> {
        let tracer = self.core.metrics.tracer();
        let mut span = match call {
            Some(call) => tracer.child(AWAIT, SpanKind::Internal, call),
            None => Span::NONE,
        };
        let confirm = self.confirm_everywhere(id, key);
        let confirmed = confirm.instrument(span.scope()).await;
        match &confirmed {
            Ok((nodes, _)) if span.is_recorded() => {
                let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
                span.set("curfew.nodes.live", count(nodes.live));
                span.set("curfew.nodes.confirmed", count(nodes.confirmed));
                if !nodes.missing.is_empty() {
                    let missing: Vec<String> =
                        nodes.missing.iter().map(ToString::to_string).collect();
                    span.set("curfew.nodes.missing", missing.join(","));
                    span.failed("unconfirmed");
                }
            }
            Ok(_) => {}
            Err(error) => span.failed(error.error_type()),
        }
        confirmed
    }

    /// Asks every live node to confirm that the revocation is in force there, and waits for one
    /// lease at most. A node that was disconnected from Redis has no lease by then and delivers
    /// nothing, but it does not count as confirmed.
    async fn confirm_everywhere(
        &self,
        id: String,
        key: &RevocationKey,
    ) -> Result<(ReceiptNodes, u64), BackendError> {
        let deadline = time::Instant::now() + self.core.config.lease;
        let mut live: HashSet<NodeId> = self.live_nodes().await?.into_iter().collect();
        live.insert(self.core.node);
        // The question is registered before it is sent, because an early answer must find it.
        let mut question = self.inbox.ask(id.clone(), live.len() * 2);
        if live.len() > 1 {
            let told = self
                .tell_all(&Message::Revoked {
                    id: id.clone(),
                    key: key.to_string(),
                    from: self.core.node,
                })
                .await;
            if let Err(fault) = told {
                // The revocation is in force, but only this node can confirm it.
                debug!(error = %fault, "the other nodes could not be asked to confirm a revocation");
            }
        }
        let mut confirmed = HashSet::new();
        let mut closed = 0;
        // This node is asked directly. Answers of other nodes wait in `question.answers` meanwhile.
        let own: Result<Ended, BackendError> =
            match found_within(&self.core, key.kind(), self.core.config.lease).await {
                false => Err(Fault::Unfound.into()),
                true => {
                    self.operate(|reply| ControlRequest::Confirm {
                        id,
                        key: key.clone(),
                        reply,
                    })
                    .await
                }
            };
        match own {
            Ok(ended) => {
                let count = ended.count() as u64;
                if left_within(ended, self.core.config.lease).await {
                    confirmed.insert(self.core.node);
                    closed += count;
                }
            }
            Err(error) => debug!(error = %error, "this node could not confirm a revocation"),
        }
        while confirmed.len() < live.len() {
            let answer = time::timeout_at(deadline, question.answers.recv()).await;
            let Ok(Some(NodeAnswer {
                node, closed: more, ..
            })) = answer
            else {
                break;
            };
            if live.contains(&node) && confirmed.insert(node) {
                closed += more;
            }
        }
        Ok((ReceiptNodes::new(live, &confirmed), closed))
    }

    /// Publishes a message to every node.
    pub(crate) async fn tell_all(&self, message: &Message) -> Result<(), Fault> {
        let text = serde_json::to_string(message).map_err(|_| Fault::Unexpected("a message"))?;
        let verb = Verbs::new(self.connections.is_cluster()).publish;
        let command = Keyed::new(verb, &self.core.keys.control()).arg(text);
        self.connections.call::<i64>(command).await?;
        Ok(())
    }

    /// Every revocation and every ineffective key, sorted.
    async fn list_revocations(&self) -> Result<Vec<Listed>, Fault> {
        let keys = &self.core.keys;
        let prefix = keys.revoked_prefix();
        let below = |mut member: Vec<u8>| {
            let mut name = prefix.clone().into_bytes();
            name.append(&mut member);
            name
        };
        let mut list = self.list_index(&keys.revoked_index(), below).await?;
        list.extend(self.list_index(&keys.ineffective(), |name| name).await?);
        list.sort_unstable_by(Listed::order);
        // A key may be in both indexes.
        list.dedup_by(|a, b| a.key == b.key);
        Ok(list)
    }

    /// Lists the existing keys of an index. `name` makes a key's name from an entry of the index.
    async fn list_index(
        &self,
        index: &str,
        name: impl Fn(Vec<u8>) -> Vec<u8>,
    ) -> Result<Vec<Listed>, Fault> {
        let mut list = Vec::new();
        let mut from = 0;
        loop {
            let command = Keyed::new("ZRANGE", index).arg(from).arg(from + BATCH - 1);
            let members: Vec<Vec<u8>> = self.connections.call(command).await?;
            let last = (members.len() as isize) < BATCH;
            let names: Vec<Vec<u8>> = members.into_iter().map(&name).collect();
            let server = self.connections.of(Slot::REVOKED)?;
            let found = find_names(&mut server.commands()?, &names).await?;
            list.extend(
                found
                    .iter()
                    .map(|(at, known)| self.listed(&names[*at], known)),
            );
            if last {
                return Ok(list);
            }
            from += BATCH;
        }
    }

    /// The entry of the list for a key that exists.
    fn listed(&self, name: &[u8], known: &Known) -> Listed {
        let keys = &self.core.keys;
        let (prefix, unbraced) = (keys.revoked_prefix(), keys.unbraced_prefix());
        let written = name
            .strip_prefix(prefix.as_bytes())
            .or_else(|| name.strip_prefix(unbraced.as_bytes()))
            .unwrap_or(name);
        // Every kind counts as known here. The caller, which knows the settings, reports unknown
        // kinds.
        let ineffective = why_ineffective(keys, name).or_else(|| {
            let (key, spelling) = RevocationKey::parse_written(written).ok()?;
            key.ineffective(spelling, |_| true)
        });
        let written = String::from_utf8_lossy(written);
        let (kind, value) = written.split_once(':').unwrap_or((&written, ""));
        Listed {
            key: String::from_utf8_lossy(name).into_owned(),
            kind: kind.to_owned(),
            value: value.to_owned(),
            revocation: known.revocation(),
            ineffective,
        }
    }
}
