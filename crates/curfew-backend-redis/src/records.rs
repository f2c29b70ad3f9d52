//! A session's record, which is a hash in Redis, and the index entries that are written and removed
//! with it (CONTRACT §7).

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use curfew_backend::{ClosedSession, SessionRecord};
use curfew_model::{Claims, NodeId, Principal, PrincipalParts, SessionId};
use redis::{Value, from_redis_value};

use crate::Connections;
use crate::connections::Keyed;
use crate::fault::Fault;
use crate::keys::Keys;

/// The time at which a session's record expires, in Unix milliseconds. The session loses access at
/// this time, which is the token's `exp` plus the leeway.
fn ends_at_ms(principal: &Principal) -> u64 {
    u64::try_from(principal.ends_at().as_millis()).unwrap_or(u64::MAX)
}

/// The second in which the session ends, rounded up. It is the session's score among its user's
/// sessions.
fn score(principal: &Principal) -> u64 {
    ends_at_ms(principal).div_ceil(1000)
}

/// The command that adds a session to its node's set. This entry of the set is the note of the
/// session's record: after a crash of the node, other nodes find the record by its note. The
/// command comes before every other write, so that a record never exists without its note.
pub(crate) fn note(keys: &Keys, record: &SessionRecord) -> Keyed {
    Keyed::new("SADD", &keys.node_sessions(record.node)).arg(record.session.to_string())
}

/// The commands that replace a record. The old record is deleted first, because the new record may
/// lack fields of the old one.
fn replace(keys: &Keys, record: &SessionRecord) -> Vec<Keyed> {
    let mut commands = vec![Keyed::new("DEL", &keys.session(record.session))];
    commands.extend(write(keys, record));
    commands
}

/// The fields of a session's record.
pub(crate) fn fields(record: &SessionRecord) -> Vec<(&'static str, Cow<'_, str>)> {
    let principal = &record.principal;
    let number = |number: u64| Cow::Owned(number.to_string());
    let optional = [
        ("token_id", principal.token_id().map(Cow::Borrowed)),
        ("issued_at", principal.issued_at().map(number)),
        (
            "address",
            record
                .address
                .map(|address| Cow::Owned(address.to_string())),
        ),
    ];
    let always = [
        ("user", Cow::Borrowed(principal.user())),
        ("issuer", Cow::Borrowed(principal.issuer())),
        ("protocol", Cow::Borrowed(&*record.protocol)),
        ("claims", Cow::Borrowed(principal.claims().as_json())),
        ("expires_at", number(principal.expires_at())),
        ("connected_at", number(record.connected_at)),
        ("node", Cow::Owned(record.node.to_string())),
    ];
    let optional = optional
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)));
    always.into_iter().chain(optional).collect()
}

/// The commands that write a record, except its note.
pub(crate) fn write(keys: &Keys, record: &SessionRecord) -> Vec<Keyed> {
    let principal = &record.principal;
    let (session, user) = (
        keys.session(record.session),
        keys.user_sessions(principal.user()),
    );
    let ends_at_ms = ends_at_ms(principal);
    let hash = fields(record)
        .into_iter()
        .fold(Keyed::new("HSET", &session), |hash, (name, value)| {
            hash.arg(name).arg(&*value)
        });
    vec![
        hash,
        Keyed::new("PEXPIREAT", &session).arg(ends_at_ms),
        Keyed::new("ZADD", &user)
            .arg(score(principal))
            .arg(record.session.to_string()),
        // The key expires when the user's last session ends: NX sets the first expiry, GT only
        // extends it.
        Keyed::new("PEXPIREAT", &user).arg(ends_at_ms).arg("NX"),
        Keyed::new("PEXPIREAT", &user).arg(ends_at_ms).arg("GT"),
        Keyed::new("ZADD", &keys.sessions())
            .arg(0)
            .arg(record.session.to_string()),
    ]
}

/// The commands that remove every trace of sessions of `node`, in steps. The note is removed last,
/// because other nodes find the session by the note. The record is removed just before the note,
/// because the record names the user whose index must be cleaned up.
fn remove(keys: &Keys, node: NodeId, sessions: &[(SessionId, &str)]) -> [Vec<Keyed>; 3] {
    let mut steps = [Vec::new(), Vec::new(), Vec::new()];
    for (session, user) in sessions {
        let id = session.to_string();
        steps[0].push(Keyed::new("ZREM", &keys.user_sessions(user)).arg(&id));
        steps[0].push(Keyed::new("ZREM", &keys.sessions()).arg(&id));
        steps[1].push(Keyed::new("UNLINK", &keys.session(*session)));
        steps[2].push(Keyed::new("SREM", &keys.node_sessions(node)).arg(&id));
    }
    steps
}

/// Parses a record. Returns `None` if there is no record, or if a field is missing or invalid.
pub(crate) fn read(session: SessionId, hash: Value) -> Option<SessionRecord> {
    let fields: HashMap<String, String> = from_redis_value(hash).ok()?;
    let text = |name: &str| fields.get(name).map(String::as_str);
    let number = |name: &str| text(name)?.parse::<u64>().ok();
    Some(SessionRecord {
        session,
        principal: Arc::new(Principal::new(PrincipalParts {
            user: text("user")?.into(),
            issuer: text("issuer").unwrap_or_default().into(),
            key_id: None,
            token_id: text("token_id").map(Into::into),
            issued_at: number("issued_at"),
            expires_at: number("expires_at")?,
            leeway: Duration::ZERO,
            claims: Claims::from_json(text("claims")?),
        })),
        node: text("node")?.parse().ok()?,
        connected_at: number("connected_at")?,
        protocol: text("protocol")?.to_owned().into(),
        address: text("address").and_then(|address| address.parse().ok()),
    })
}

impl Connections {
    /// Removes every trace of closed sessions of `node`.
    pub(crate) async fn remove(
        &self,
        node: NodeId,
        sessions: &[ClosedSession],
    ) -> Result<(), Fault> {
        let sessions: Vec<_> = sessions
            .iter()
            .map(|closed| (closed.session, closed.principal.user()))
            .collect();
        self.remove_traces(node, &sessions).await
    }

    /// Removes every trace of sessions of `node`. Each session is given with its user.
    pub(crate) async fn remove_traces(
        &self,
        node: NodeId,
        sessions: &[(SessionId, &str)],
    ) -> Result<(), Fault> {
        self.in_steps(remove(&self.core.keys, node, sessions)).await
    }

    /// Writes records that replace existing records or restore lost records.
    pub(crate) async fn write(&self, records: &[SessionRecord]) -> Result<(), Fault> {
        let keys = &self.core.keys;
        let notes = records.iter().map(|record| note(keys, record)).collect();
        let writes = records.iter().flat_map(|record| replace(keys, record));
        self.in_steps([notes, writes.collect()]).await
    }

    /// Executes the steps in order. In a cluster, each step is awaited before the next. Without a
    /// cluster, one connection keeps the steps in order.
    async fn in_steps<const N: usize>(&self, steps: [Vec<Keyed>; N]) -> Result<(), Fault> {
        if self.is_cluster() {
            for step in steps {
                self.pipeline(step).await?;
            }
        } else {
            self.pipeline(steps.into_iter().flatten().collect()).await?;
        }
        Ok(())
    }

    /// Writes the records of live sessions again.
    pub(crate) async fn rewrite(&self, records: &[SessionRecord]) -> Result<(), Fault> {
        let keys = &self.core.keys;
        // Without this entry in the set of nodes, no other node would clean up after a crash of
        // this node.
        let node = self.core.node.to_string();
        self.call::<i64>(Keyed::new("SADD", &keys.nodes()).arg(node))
            .await?;
        self.write(records).await?;
        // A session may have closed meanwhile. If its record was removed before this write, the
        // write has restored the record. The record is therefore removed again.
        let ids: Vec<SessionId> = records.iter().map(|record| record.session).collect();
        let live = self.core.local.records(&ids);
        let gone: Vec<ClosedSession> = records
            .iter()
            .filter(|record| live.iter().all(|live| live.session != record.session))
            .map(|record| ClosedSession {
                session: record.session,
                principal: Arc::clone(&record.principal),
            })
            .collect();
        self.remove(self.core.node, &gone).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_makes_no_sense_is_none() {
        let bulk = |text: &str| Value::BulkString(text.into());
        let hash = |fields: &[(&str, &str)]| {
            Value::Map(
                fields
                    .iter()
                    .map(|(name, value)| (bulk(name), bulk(value)))
                    .collect(),
            )
        };
        let node = NodeId::new().to_string();
        let good = [
            ("user", "alice"),
            ("claims", "{}"),
            ("expires_at", "7"),
            ("connected_at", "5"),
            ("protocol", "curfew.v1"),
            ("node", node.as_str()),
        ];
        assert!(read(SessionId::new(), hash(&good)).is_some());
        for missing in 0..good.len() {
            let mut fields = good.to_vec();
            fields.remove(missing);
            assert!(read(SessionId::new(), hash(&fields)).is_none());
        }
        assert!(read(SessionId::new(), Value::Map(Vec::new())).is_none());
        assert!(read(SessionId::new(), Value::Nil).is_none());
    }
}
