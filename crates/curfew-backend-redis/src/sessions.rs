//! Session records: written, refreshed, removed, and listed over the whole cluster.

use std::pin::pin;
use std::time::Duration;

use curfew_backend::{
    BackendError, BoxFuture, ClosedSession, OpenError, OverLimit, SessionFilter, SessionPage,
    SessionRecord, Sessions,
};
use curfew_model::{Disconnect, SessionId};
use redis::{Value, from_redis_value};
use tokio::time;

use crate::connections::Keyed;
use crate::fault::Fault;
use crate::{Redis, records};

/// Number of ids read beyond the size of a page, because some of the records may have expired.
const SPARE: usize = 16;

/// Interval between two checks of the record of a session that another node is asked to end, and
/// the longest wait for that node's answer once the record was removed.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

impl Sessions for Redis {
    /// Usually takes one round trip to Redis. In a cluster it takes two, because the node's set of
    /// sessions is in another slot.
    fn open(
        &self,
        record: SessionRecord,
        max_per_user: u32,
    ) -> BoxFuture<'_, Result<(), OpenError>> {
        Box::pin(async move {
            let keys = &self.core.keys;
            let note = records::note(keys, &record);
            // After a crash of this node, another node finds the record only if this node is in the
            // set of nodes.
            if !self.core.status.is_registered() {
                self.register().await.map_err(unavailable)?;
            }
            let mut commands = Vec::with_capacity(10);
            // The note (the session's entry in the node's set of sessions) is written before the
            // record. In the other order, a crash in between would leave a record that no node
            // removes.
            if self.connections.is_cluster() {
                self.connections
                    .call::<i64>(note)
                    .await
                    .map_err(unavailable)?;
            } else {
                commands.push(note);
            }
            commands.extend(records::write(keys, &record));
            if max_per_user == 0 {
                // The commands form a pipeline, because a transaction would double the cost. If the
                // connection breaks halfway, the partial record is removed with the session.
                self.connections
                    .pipeline(commands)
                    .await
                    .map_err(unavailable)?;
                return Ok(());
            }
            let user = keys.user_sessions(record.principal.user());
            let expired = Keyed::new("ZREMRANGEBYSCORE", &user);
            commands.push(expired.arg("-inf").arg(self.core.clock.unix()));
            commands.push(Keyed::new("ZCARD", &user));
            let mut replies = self
                .connections
                .transact(commands)
                .await
                .map_err(unavailable)?;
            // The count includes this session. If several sessions open at once, they are admitted
            // in the order of their writes, up to the limit.
            let count: u64 = replies
                .pop()
                .and_then(|count| from_redis_value(count).ok())
                .ok_or(Fault::Unexpected("ZCARD"))
                .map_err(unavailable)?;
            if count <= u64::from(max_per_user) {
                return Ok(());
            }
            let refused = ClosedSession {
                session: record.session,
                principal: record.principal,
            };
            self.connections
                .remove(record.node, &[refused])
                .await
                .map_err(unavailable)?;
            Err(OpenError::SessionLimit {
                limit: max_per_user,
            })
        })
    }

    fn refresh(&self, record: SessionRecord) -> BoxFuture<'_, Result<(), BackendError>> {
        Box::pin(async move {
            // If another node removed the record of a session that is alive here, the record is
            // written again. If the session closes meanwhile, its close removes the record after
            // this write.
            let lives_here = !self.core.local.records(&[record.session]).is_empty();
            if !lives_here && !self.is_recorded(record.session).await? {
                // The session is neither alive on this node nor recorded, so a write would leave a
                // record without a session.
                return Ok(());
            }
            self.connections
                .write(std::slice::from_ref(&record))
                .await?;
            Ok(())
        })
    }

    fn close<'a>(
        &'a self,
        sessions: &'a [ClosedSession],
    ) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(async move {
            self.connections.remove(self.core.node, sessions).await?;
            Ok(())
        })
    }

    fn get(
        &self,
        session: SessionId,
    ) -> BoxFuture<'_, Result<Option<SessionRecord>, BackendError>> {
        Box::pin(async move {
            let key = self.core.keys.session(session);
            let hash = self.connections.call(Keyed::new("HGETALL", &key)).await?;
            Ok(records::read(session, hash))
        })
    }

    fn list<'a>(
        &'a self,
        filter: &'a SessionFilter,
    ) -> BoxFuture<'a, Result<SessionPage, BackendError>> {
        Box::pin(async move {
            let page = match &filter.user {
                Some(user) => self.list_of_user(filter, user).await?,
                None => self.list_all(filter).await?,
            };
            Ok(page)
        })
    }

    fn disconnect(&self, session: SessionId) -> BoxFuture<'_, Result<bool, BackendError>> {
        Box::pin(async move {
            // If the session is on this node, no message to other nodes is needed.
            if self
                .core
                .events
                .disconnect(session, Disconnect::DISCONNECTED)
            {
                return Ok(true);
            }
            if !self.is_recorded(session).await? {
                return Ok(false);
            }
            let patience = self.core.connector.timeout();
            let mut asked = pin!(self.end_elsewhere(session, false, patience));
            tokio::select! {
                biased;
                ended = &mut asked => match ended? {
                    true => Ok(true),
                    false => Err(Fault::NoAnswer.into()),
                },
                // The record was removed: the session has ended for another reason, or the answer
                // is still on its way.
                gone = self.until_forgotten(session) => {
                    gone?;
                    let ended = time::timeout(LOOK_AGAIN, asked).await;
                    Ok(matches!(ended, Ok(Ok(true))))
                }
            }
        })
    }

    fn make_room<'a>(
        &'a self,
        user: &'a str,
        over: OverLimit,
    ) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(async move {
            match over {
                OverLimit::Refuse => self.give_up_silent(user).await?,
                OverLimit::CloseOldest => self.close_oldest(user).await?,
            }
            Ok(())
        })
    }
}

impl Redis {
    /// True if the session has a record.
    async fn is_recorded(&self, session: SessionId) -> Result<bool, Fault> {
        let key = self.core.keys.session(session);
        self.connections.call(Keyed::new("EXISTS", &key)).await
    }

    /// Resolves once a session's record was removed. From then on, no node has the session.
    async fn until_forgotten(&self, session: SessionId) -> Result<(), Fault> {
        loop {
            time::sleep(LOOK_AGAIN).await;
            if !self.is_recorded(session).await? {
                return Ok(());
            }
        }
    }

    /// One page of a user's sessions.
    async fn list_of_user(&self, filter: &SessionFilter, user: &str) -> Result<SessionPage, Fault> {
        let key = self.core.keys.user_sessions(user);
        let command = Keyed::new("ZRANGE", &key).arg(0).arg(-1);
        let ids: Vec<String> = self.connections.call(command).await?;
        let mut ids: Vec<SessionId> = ids.iter().filter_map(|id| id.parse().ok()).collect();
        ids.retain(|id| Some(*id) > filter.after);
        ids.sort_unstable();
        let mut page = Page::new(filter.limit);
        for batch in ids.chunks(page.batch()) {
            page.add(self.records(batch).await?);
            if page.is_full() {
                break;
            }
        }
        Ok(page.finish())
    }

    /// One page of all sessions.
    async fn list_all(&self, filter: &SessionFilter) -> Result<SessionPage, Fault> {
        let key = self.core.keys.sessions();
        let mut page = Page::new(filter.limit);
        let mut after = filter.after;
        loop {
            let from = after.map_or_else(|| "-".to_owned(), |after| format!("({after}"));
            let command = Keyed::new("ZRANGE", &key)
                .arg(from)
                .arg("+")
                .arg("BYLEX")
                .arg("LIMIT")
                .arg(0)
                .arg(page.batch());
            let ids: Vec<String> = self.connections.call(command).await?;
            let last = ids.len() < page.batch();
            let ids: Vec<SessionId> = ids.iter().filter_map(|id| id.parse().ok()).collect();
            page.add(self.records(&ids).await?);
            after = ids.last().copied().or(after);
            if last || page.is_full() || ids.is_empty() {
                return Ok(page.finish());
            }
        }
    }

    /// Reads the existing records of these sessions, in the order of the ids.
    async fn records(&self, ids: &[SessionId]) -> Result<Vec<SessionRecord>, Fault> {
        let keys = &self.core.keys;
        let commands = ids
            .iter()
            .map(|id| Keyed::new("HGETALL", &keys.session(*id)))
            .collect();
        let hashes: Vec<Value> = self.connections.pipeline(commands).await?;
        let records = ids.iter().zip(hashes);
        Ok(records
            .filter_map(|(id, hash)| records::read(*id, hash))
            .collect())
    }
}

/// A page of records that is being filled.
struct Page {
    /// The size of the page.
    limit: usize,
    sessions: Vec<SessionRecord>,
}

impl Page {
    fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            sessions: Vec::new(),
        }
    }

    /// The number of ids to read for the page.
    fn batch(&self) -> usize {
        self.limit + SPARE
    }

    fn add(&mut self, records: Vec<SessionRecord>) {
        self.sessions.extend(records);
    }

    /// True if the page holds one record more than its limit, which shows that there is a next
    /// page.
    fn is_full(&self) -> bool {
        self.sessions.len() > self.limit
    }

    /// The finished page, with the cursor of the next page if there is one.
    fn finish(mut self) -> SessionPage {
        let more = self.is_full();
        self.sessions.truncate(self.limit);
        let cursor = self.sessions.last().map(|record| record.session);
        SessionPage {
            cursor: cursor.filter(|_| more),
            sessions: self.sessions,
        }
    }
}

fn unavailable(fault: Fault) -> OpenError {
    OpenError::Backend(fault.into())
}
