//! Streams in Redis. Each channel has a Redis stream with an entry for each publication. The
//! entry's id is the publication's offset. A hash beside the stream holds the epoch and the top
//! offset.
//!
//! Every access is a call of a script that uses the keys of one slot. The script first compares the
//! replication id of the server with the id in the hash. After a failover the two ids differ and
//! publications may be missing, so the stream begins a new epoch. Redis treats the scripts as
//! writes, so a replica refuses them.

use std::time::Duration;

use curfew_backend::{
    BackendError, BoxFuture, POSITION_LIFETIME, PUBLICATION_KEY_LIFETIME, StreamBounds, StreamPage,
    StreamRange, Streams,
};
use curfew_model::{Channel, Epoch, MAX_OFFSET, Position, Publication, PublicationKey};
use redis::{Cmd, Value, cmd, from_redis_value};
use tracing::warn;

use crate::connect::Connection;
use crate::connections::Keyed;
use crate::fault::Fault;
use crate::keys::{Keys, StreamKeys};
use crate::metrics::BackendDropReason;
use crate::slots::slot_of;
use crate::subscriber::Verbs;
use crate::{Redis, envelope};

/// The script that appends publications of one channel.
pub(crate) const APPEND: &str = concat!(
    include_str!("streams/stream.lua"),
    include_str!("streams/append.lua")
);

/// The script that reads a part of a stream.
const READ: &str = concat!(
    include_str!("streams/stream.lua"),
    include_str!("streams/read.lua")
);

/// The script that deletes the publications of a stream, and notifies every node that listens to
/// the channel.
const CLEAR: &str = include_str!("streams/clear.lua");

/// The script that checks the rights to the commands of the stream scripts and of the presence
/// scripts.
const RIGHTS: &str = include_str!("streams/rights.lua");

/// Returns the commands of streams and presence that the Redis user of the connection may not send.
/// An ACL can restrict commands by key and channel, so the check uses names of the same form as the
/// real names.
pub(crate) async fn missing_rights(
    keys: &Keys,
    connection: &mut Connection,
    cluster: bool,
) -> Result<Vec<String>, Fault> {
    let channel = Channel::parse("rights").expect("the channel's name is valid");
    let StreamKeys { stream, meta } = keys.stream(&channel);
    let key = format!("{stream}:key:");
    let load = cmd("SCRIPT").arg("LOAD").arg(RIGHTS).to_owned();
    let digest: String = load.query_async(connection).await?;
    let mut ask = cmd("EVALSHA");
    let presence = keys.presence(&channel).sessions;
    ask.arg(digest)
        .arg(0)
        .arg(&[&stream, &meta, &key, &presence]);
    ask.arg(keys.channel(&channel))
        .arg(Verbs::new(cluster).publish);
    Ok(ask.query_async(connection).await?)
}

/// The entry that a publication is to become.
#[derive(Debug)]
pub(crate) struct NewEntry {
    pub(crate) keys: StreamKeys,
    pub(crate) bounds: StreamBounds,
    /// The position up to which this node has received the stream.
    pub(crate) seen: Option<Position>,
    /// The idempotency key's name at Redis.
    pub(crate) key: Option<String>,
}

impl NewEntry {
    /// True if one call of the script can append this entry and `other`.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.keys == other.keys && self.bounds == other.bounds
    }
}

/// The answer to one call of the append script.
pub(crate) struct Appended {
    /// The replication id of the server.
    pub(crate) server: String,
    /// The position of each publication.
    pub(crate) positions: Vec<Position>,
}

impl Appended {
    /// Parses the answer of the append script; `None` if it is malformed.
    pub(crate) fn read(reply: Vec<Value>) -> Option<Self> {
        let mut reply = reply.into_iter();
        let server = from_redis_value(reply.next()?).ok()?;
        let epoch = read_epoch(reply.next()?)?;
        let positions = reply.map(|value| match value {
            Value::Int(offset) => {
                let offset = u64::try_from(offset).ok()?;
                Some(Position { epoch, offset })
            }
            earlier => {
                let earlier: String = from_redis_value(earlier).ok()?;
                let (epoch, offset) = earlier.split_once(':')?;
                Some(Position {
                    epoch: epoch.parse().ok()?,
                    offset: offset.parse().ok()?,
                })
            }
        });
        Some(Self {
            server,
            positions: positions.collect::<Option<_>>()?,
        })
    }
}

fn read_epoch(value: Value) -> Option<Epoch> {
    let text: String = from_redis_value(value).ok()?;
    text.parse().ok()
}

/// The form in which scripts take a position; empty for `None`.
fn seen(position: Option<Position>) -> String {
    position.map_or_else(String::new, |Position { epoch, offset }| {
        format!("{}:{offset}", epoch.as_str())
    })
}

/// A new random epoch.
pub(crate) fn fresh_epoch() -> Epoch {
    Epoch::from_random(fastrand::u64(..))
}

/// A time in milliseconds, the unit of Redis' commands.
pub(crate) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Streams for Redis {
    fn append(
        &self,
        publication: Publication,
        until: Duration,
        bounds: StreamBounds,
        key: Option<PublicationKey>,
    ) -> BoxFuture<'_, Result<Position, BackendError>> {
        Box::pin(async move {
            let keys = self.core.keys.stream(&publication.channel);
            let key = key.map(|key| keys.publication(&key));
            let seen = self.core.local.reached(&publication.channel);
            let entry = Box::new(NewEntry {
                keys,
                bounds,
                seen,
                key,
            });
            let appended = self.hand_over(publication, until, Some(entry)).await?;
            appended.ok_or_else(|| self.failed(Fault::Unexpected("EVALSHA")))
        })
    }

    fn read<'a>(
        &'a self,
        channel: &'a Channel,
        range: StreamRange,
    ) -> BoxFuture<'a, Result<StreamPage, BackendError>> {
        Box::pin(async move {
            let command = self.read_command(channel, range);
            let reply = self.connections.call(command).await;
            let page = reply.and_then(|reply| self.read_page(channel, reply));
            page.map_err(|fault| self.failed(fault))
        })
    }

    fn positions<'a>(
        &'a self,
        channels: &'a [Channel],
    ) -> BoxFuture<'a, Result<Vec<Position>, BackendError>> {
        Box::pin(async move {
            let commands = channels
                .iter()
                .map(|channel| self.read_command(channel, StreamRange::Top));
            let replies = self.connections.pipeline(commands.collect()).await;
            let replies = replies.map_err(|fault| self.failed(fault))?;
            let positions = channels.iter().zip(replies).map(|(channel, reply)| {
                let reply = from_redis_value(reply).map_err(|_| Fault::Unexpected("EVAL"))?;
                Ok(self.read_page(channel, reply)?.position)
            });
            positions
                .collect::<Result<_, _>>()
                .map_err(|fault| self.failed(fault))
        })
    }

    fn clear<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(async move {
            let keys = self.core.keys.stream(channel);
            let name = self.core.keys.channel(channel);
            let command = Keyed::script(CLEAR, &[&keys.stream, &name])
                .arg(envelope::CLEARED)
                .arg(Verbs::new(self.connections.is_cluster()).publish);
            let cleared = self.connections.call(command).await;
            let _: u64 = cleared.map_err(|fault| self.failed(fault))?;
            // The event is reported at once, because the published notice may arrive later or be
            // lost.
            self.core.events.cleared(channel);
            Ok(())
        })
    }
}

impl Redis {
    /// Parses the answer of the read script, and counts unreadable entries. An entry that Curfew
    /// did not write is skipped. The reader of the page notices the missing offset.
    fn read_page(&self, channel: &Channel, reply: Vec<Value>) -> Result<StreamPage, Fault> {
        let page = parse_page(channel, reply);
        let (page, unreadable) = page.ok_or(Fault::Unexpected("EVAL"))?;
        if unreadable > 0 {
            let more = u64::try_from(unreadable).unwrap_or(u64::MAX);
            let dropped = &self.core.metrics.broker_messages_dropped;
            dropped.inc_by(BackendDropReason::Malformed, more);
            if self.core.unreadable.note().is_some() {
                warn!(
                    %channel,
                    entries = unreadable,
                    "a stream has entries that cannot be read; further such entries within a minute are not logged"
                );
            }
        }
        Ok(page)
    }

    fn read_command(&self, channel: &Channel, range: StreamRange) -> Keyed {
        let keys = self.core.keys.stream(channel);
        let known = self.connections.server_id(slot_of(keys.stream.as_bytes()));
        let command = Keyed::script(READ, &[&keys.stream, &keys.meta])
            .arg(known)
            .arg(fresh_epoch().as_str())
            .arg(milliseconds(POSITION_LIFETIME))
            .arg(seen(self.core.local.reached(channel)));
        match range {
            // Redis refuses an empty range, so only the position of the stream's top is read.
            StreamRange::Before { offset: 0, .. }
            | StreamRange::After { limit: 0, .. }
            | StreamRange::Before { limit: 0, .. }
            | StreamRange::Top => command.arg("top"),
            StreamRange::After { offset, limit } => command.arg("after").arg(offset).arg(limit),
            StreamRange::Before { offset, limit } => command.arg("before").arg(offset).arg(limit),
        }
    }
}

/// A call that appends publications to one stream.
pub(crate) struct AppendCall<'a> {
    /// One of the entries; all entries of the call are [alike](NewEntry::is_like).
    pub(crate) entry: &'a NewEntry,
    /// The name of the pub/sub channel.
    pub(crate) channel: &'a str,
    /// The replication id of the server; empty if it is not known.
    pub(crate) server_id: &'a str,
    /// The end of the lease by Redis' clock, in microseconds since 1970.
    pub(crate) deadline: i64,
    pub(crate) cluster: bool,
}

impl AppendCall<'_> {
    /// Adds the keys and arguments for these entries, each with its envelope, to the call of the
    /// script.
    pub(crate) fn write<'a>(
        self,
        entries: impl Iterator<Item = (&'a NewEntry, &'a [u8])> + Clone,
        command: &mut Cmd,
    ) {
        let keys = entries
            .clone()
            .filter_map(|(entry, _)| entry.key.as_deref());
        let fixed = [
            &*self.entry.keys.stream,
            &*self.entry.keys.meta,
            self.channel,
        ];
        command.arg(fixed.len() + keys.clone().count());
        command.arg(&fixed);
        for key in keys {
            command.arg(key);
        }
        command
            .arg(self.deadline)
            .arg(self.server_id)
            .arg(fresh_epoch().as_str())
            .arg(milliseconds(POSITION_LIFETIME))
            .arg(milliseconds(self.entry.bounds.ttl))
            .arg(milliseconds(PUBLICATION_KEY_LIFETIME))
            .arg(self.entry.bounds.size)
            .arg(Verbs::new(self.cluster).publish)
            .arg(seen(self.entry.seen));
        // The index of the last key so far, among the keys of the call. Lua counts from 1.
        let mut place = fixed.len();
        for (entry, envelope) in entries {
            let key = entry.key.as_ref().map_or(0, |_| {
                place += 1;
                place
            });
            command.arg(key).arg(envelope);
        }
    }
}

/// Parses the answer of the read script. Also returns the number of entries that Curfew did not
/// write.
fn parse_page(channel: &Channel, reply: Vec<Value>) -> Option<(StreamPage, usize)> {
    let [_, epoch, top, Value::Array(entries)] = <[Value; 4]>::try_from(reply).ok()? else {
        return None;
    };
    let top: String = from_redis_value(top).ok()?;
    let position = Position {
        epoch: read_epoch(epoch)?,
        offset: top.parse().ok().filter(|top| *top <= MAX_OFFSET)?,
    };
    let count = entries.len();
    let publications: Vec<_> = entries
        .into_iter()
        .filter_map(|entry| parse_entry(channel, entry, position))
        .collect();
    let unreadable = count - publications.len();
    let page = StreamPage {
        position,
        publications,
    };
    Some((page, unreadable))
}

fn parse_entry(channel: &Channel, entry: Value, position: Position) -> Option<Publication> {
    let (id, mut fields): (String, Vec<Vec<u8>>) = from_redis_value(entry).ok()?;
    let publication = envelope::decode(channel.clone(), &fields.pop()?.into())?;
    let found = publication.entry?.position;
    let is_ours = found.epoch == position.epoch && id == format!("{}-0", found.offset);
    is_ours.then_some(Publication {
        trace: None,
        ..publication
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression: after a top beyond the largest offset, the next offset overflowed.
    #[test]
    fn a_top_beyond_every_offset_is_no_page() {
        let channel = Channel::parse("room").unwrap();
        let text = |text: &str| Value::BulkString(text.into());
        let is_page = |top: &str| {
            let reply = [
                text("id"),
                text("abcdefgh"),
                text(top),
                Value::Array(Vec::new()),
            ];
            parse_page(&channel, reply.into()).is_some()
        };
        assert!(is_page("0") && is_page("9007199254740991"));
        for top in ["9007199254740992", "18446744073709551615"] {
            assert!(!is_page(top), "{top}");
        }
    }
}
