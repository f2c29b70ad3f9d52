//! Publications and subscriptions.
//!
//! Owns: the subscribers of each channel, pattern and shard channel.
//! Knows nothing of: keys.

use std::collections::BTreeMap;

use super::call::{Call, Done};
use super::client::Client;
use super::wire::Writer;
use super::{ConnectionId, Effect, Server, glob};

/// The subscribers of all channels, patterns and shard channels.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    channels: ByName,
    patterns: ByName,
    shard_channels: ByName,
}

/// For each name, the subscribers in the order in which they subscribed.
type ByName = BTreeMap<Vec<u8>, Vec<ConnectionId>>;

/// The three kinds of channels.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Channel,
    Pattern,
    ShardChannel,
}

impl Kind {
    fn of(command: &str) -> Self {
        match command.as_bytes()[0] {
            b'p' => Self::Pattern,
            // `subscribe` itself also begins with an s.
            b's' if !command.starts_with("sub") => Self::ShardChannel,
            _ => Self::Channel,
        }
    }

    fn listeners(self, all: &mut Listeners) -> &mut ByName {
        match self {
            Self::Channel => &mut all.channels,
            Self::Pattern => &mut all.patterns,
            Self::ShardChannel => &mut all.shard_channels,
        }
    }

    fn names(self, client: &mut Client) -> &mut std::collections::BTreeSet<Vec<u8>> {
        match self {
            Self::Channel => &mut client.channels,
            Self::Pattern => &mut client.patterns,
            Self::ShardChannel => &mut client.shard_channels,
        }
    }

    fn count(self, client: &Client) -> usize {
        match self {
            Self::Channel | Self::Pattern => client.subscriptions(),
            Self::ShardChannel => client.shard_channels.len(),
        }
    }
}

/// `SUBSCRIBE`, `PSUBSCRIBE` and `SSUBSCRIBE`.
pub(super) fn subscribe(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    let kind = Kind::of(call.name);
    if call.is_queued && matches!(kind, Kind::ShardChannel) {
        return Err("ERR SSUBSCRIBE isn't allowed for a DENY BLOCKING client".into());
    }
    for name in &args[1..] {
        let id = call.id;
        if kind.names(call.client()).insert(name.to_vec()) {
            let listeners = kind.listeners(&mut call.server.listeners);
            listeners.entry(name.to_vec()).or_default().push(id);
        }
        let count = kind.count(call.client());
        confirm(&mut call.out, call.name, Some(name), count);
    }
    Ok(())
}

/// `UNSUBSCRIBE`, `PUNSUBSCRIBE` and `SUNSUBSCRIBE`.
pub(super) fn unsubscribe(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    let kind = Kind::of(call.name.trim_start_matches("un"));
    let names: Vec<Vec<u8>> = match args {
        [_] => kind.names(call.client()).iter().cloned().collect(),
        _ => args[1..].iter().map(|name| name.to_vec()).collect(),
    };
    if names.is_empty() {
        let count = kind.count(call.client());
        confirm(&mut call.out, call.name, None, count);
    }
    for name in &names {
        if kind.names(call.client()).remove(name) {
            let id = call.id;
            forget(kind.listeners(&mut call.server.listeners), name, id);
        }
        let count = kind.count(call.client());
        confirm(&mut call.out, call.name, Some(name), count);
    }
    Ok(())
}

fn confirm(out: &mut Writer, command: &str, name: Option<&[u8]>, count: usize) {
    out.push(3);
    out.bulk(command.as_bytes());
    out.optional(name);
    out.count(count);
}

fn forget(listeners: &mut ByName, name: &[u8], id: ConnectionId) {
    if let Some(ids) = listeners.get_mut(name) {
        ids.retain(|other| *other != id);
        if ids.is_empty() {
            listeners.remove(name);
        }
    }
}

impl Server {
    /// Removes all subscriptions of a connection.
    pub(super) fn stop_listening(&mut self, id: ConnectionId, client: &mut Client) {
        for kind in [Kind::Channel, Kind::Pattern, Kind::ShardChannel] {
            for name in std::mem::take(kind.names(client)) {
                forget(kind.listeners(&mut self.listeners), &name, id);
            }
        }
    }
}

/// `PUBLISH` and `SPUBLISH`.
pub(super) fn publish(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    let sharded = call.name == "spublish";
    let receivers = call.publish(args[1], args[2], sharded);
    call.out.count(receivers);
    Ok(())
}

impl Call<'_> {
    /// Sends a message to the subscribers, and returns the number of messages sent. If the
    /// publishing connection is itself a subscriber, it gets the message before its reply.
    pub(super) fn publish(&mut self, channel: &[u8], payload: &[u8], sharded: bool) -> usize {
        let listeners = &self.server.listeners;
        let (of_channel, word) = match sharded {
            true => (&listeners.shard_channels, "smessage"),
            false => (&listeners.channels, "message"),
        };
        let ids = of_channel.get(channel).cloned().unwrap_or_default();
        let mut receivers = ids.len();
        for id in ids {
            self.tell(id, |out| {
                out.push(3);
                out.bulk(word.as_bytes());
                out.bulk(channel);
                out.bulk(payload);
            });
        }
        if !sharded && !self.server.listeners.patterns.is_empty() {
            receivers += self.publish_to_patterns(channel, payload);
        }
        self.note(Effect::Published {
            channel: channel.to_vec(),
            payload: payload.to_vec(),
            receivers,
        });
        receivers
    }

    fn publish_to_patterns(&mut self, channel: &[u8], payload: &[u8]) -> usize {
        let patterns = self.server.listeners.patterns.iter();
        let matching: Vec<(Vec<u8>, ConnectionId)> = patterns
            .filter(|(pattern, _)| glob::matches(pattern, channel))
            .flat_map(|(pattern, ids)| ids.iter().map(|id| (pattern.clone(), *id)))
            .collect();
        for (pattern, id) in &matching {
            self.tell(*id, |out| {
                out.push(4);
                out.bulk(b"pmessage");
                out.bulk(pattern);
                out.bulk(channel);
                out.bulk(payload);
            });
        }
        matching.len()
    }

    fn tell(&mut self, id: ConnectionId, write: impl FnOnce(&mut Writer)) {
        if id == self.id {
            write(&mut self.out);
        } else {
            self.server.push_to(id, write);
        }
    }
}

/// `PUBSUB CHANNELS [pattern]` and `PUBSUB SHARDCHANNELS [pattern]`.
pub(super) fn pubsub_channels(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    let listeners = &call.server.listeners;
    let all = match call.name {
        "pubsub|shardchannels" => &listeners.shard_channels,
        _ => &listeners.channels,
    };
    let pattern = args.get(2).copied().unwrap_or(b"*");
    let found: Vec<_> = all
        .keys()
        .filter(|name| glob::matches(pattern, name))
        .collect();
    call.out.array(found.len());
    for name in found {
        call.out.bulk(name);
    }
    Ok(())
}

/// `PUBSUB NUMSUB [channel …]` and `PUBSUB SHARDNUMSUB [channel …]`.
pub(super) fn pubsub_numsub(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    let listeners = &call.server.listeners;
    let all = match call.name {
        "pubsub|shardnumsub" => &listeners.shard_channels,
        _ => &listeners.channels,
    };
    call.out.array((args.len() - 2) * 2);
    for name in &args[2..] {
        call.out.bulk(name);
        call.out.count(all.get(*name).map_or(0, Vec::len));
    }
    Ok(())
}

pub(super) fn pubsub_numpat(call: &mut Call<'_>, _: &[&[u8]]) -> Done {
    call.out.count(call.server.listeners.patterns.len());
    Ok(())
}
