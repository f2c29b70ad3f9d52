//! Client-side caching: notifications of changed keys, and the time at which they are sent.
//!
//! Owns: `CLIENT TRACKING`, the keys that were read, the prefixes and the pending notifications.
//! Knows nothing of: the cause of a change.
//!
//! With `BCAST`, notifications wait for the end of the event loop's turn, and are sent after every
//! reply of the turn. Without `BCAST` they are sent at once, but to the command's own connection
//! only after the reply.

use std::collections::{BTreeMap, BTreeSet};

use super::call::{Call, Done, SYNTAX};
use super::client::Tracking;
use super::commands::Command;
use super::wire::Writer;
use super::{ConnectionId, Server};

/// The keys that connections track.
#[derive(Debug, Default)]
pub(super) struct Tracked {
    /// The connections that have read each key.
    readers: BTreeMap<Vec<u8>, BTreeSet<ConnectionId>>,
    prefixes: BTreeMap<Vec<u8>, Prefix>,
    /// The number of tracking connections.
    clients: usize,
}

#[derive(Debug, Default)]
struct Prefix {
    clients: BTreeSet<ConnectionId>,
    /// Changed keys that wait for notification, each with the connection that changed it last.
    keys: BTreeMap<Vec<u8>, Option<ConnectionId>>,
}

impl Server {
    /// Handles the change of a key.
    pub(super) fn invalidate(&mut self, key: &[u8], by: Option<ConnectionId>) {
        if self.tracked.clients == 0 {
            return;
        }
        for (prefix, tracked) in &mut self.tracked.prefixes {
            if key.starts_with(prefix) {
                tracked.keys.insert(key.to_vec(), by);
            }
        }
        for id in self.tracked.readers.remove(key).into_iter().flatten() {
            let tracking = self.clients.get(&id).and_then(|c| c.tracking.as_ref());
            match tracking {
                Some(tracking) if tracking.prefixes.is_none() => {
                    if tracking.no_loop && self.executing == Some(id) {
                        continue;
                    }
                }
                _ => continue,
            }
            self.push_invalidation(id, [key].into_iter());
        }
    }

    /// Notifies every tracking connection at once that all keys were removed.
    pub(super) fn invalidate_all(&mut self) {
        let tracking: Vec<ConnectionId> = self
            .clients
            .iter()
            .filter(|(_, client)| client.tracking.is_some())
            .map(|(id, _)| *id)
            .collect();
        for id in tracking {
            if self.clients.get(&id).is_some_and(|client| client.resp3) {
                self.push_to(id, |out| {
                    head(out);
                    out.nil();
                });
            }
        }
        self.tracked.readers.clear();
    }

    /// Notifies the connections that track prefixes, at the end of the turn.
    pub(super) fn broadcast(&mut self) {
        if self.tracked.prefixes.is_empty() {
            return;
        }
        let mut prefixes = std::mem::take(&mut self.tracked.prefixes);
        for prefix in prefixes.values_mut() {
            if prefix.keys.is_empty() {
                continue;
            }
            let keys = std::mem::take(&mut prefix.keys);
            for id in &prefix.clients {
                let own = self
                    .clients
                    .get(id)
                    .and_then(|client| client.tracking.as_ref())
                    .and_then(|tracking| tracking.no_loop.then_some(*id));
                let told = keys
                    .iter()
                    .filter(|(_, by)| own.is_none() || **by != own)
                    .map(|(key, _)| &key[..]);
                if told.clone().next().is_some() {
                    self.push_invalidation(*id, told);
                }
            }
        }
        self.tracked.prefixes = prefixes;
    }

    /// Pushes an invalidation in RESP3, the only protocol with pushes.
    fn push_invalidation<'k>(
        &mut self,
        id: ConnectionId,
        keys: impl Iterator<Item = &'k [u8]> + Clone,
    ) {
        if self.clients.get(&id).is_some_and(|client| client.resp3) {
            self.push_to(id, |out| {
                head(out);
                out.array(keys.clone().count());
                for key in keys {
                    out.bulk(key);
                }
            });
        }
    }

    /// Ends the connection's tracking.
    pub(super) fn stop_tracking(&mut self, id: ConnectionId) {
        let Some(tracking) = self
            .clients
            .get_mut(&id)
            .and_then(|client| client.tracking.take())
        else {
            return;
        };
        self.tracked.clients -= 1;
        for name in tracking.prefixes.into_iter().flatten() {
            if let Some(prefix) = self.tracked.prefixes.get_mut(&name) {
                prefix.clients.remove(&id);
                if prefix.clients.is_empty() {
                    self.tracked.prefixes.remove(&name);
                }
            }
        }
    }
}

impl Call<'_> {
    /// Records the keys that a connection has read, to notify the connection when they change.
    pub(super) fn remember_keys(&mut self, command: &Command, args: &[&[u8]]) {
        let tracks = self.server.tracked.clients > 0
            && command.is_read()
            && matches!(
                &self.client().tracking,
                Some(Tracking { prefixes: None, .. })
            );
        if tracks {
            for key in command.keys_of(args) {
                let readers = &mut self.server.tracked.readers;
                readers.entry(key.to_vec()).or_default().insert(self.id);
            }
        }
    }
}

/// `CLIENT TRACKING ON|OFF [BCAST] [PREFIX prefix …] [NOLOOP]`.
pub(super) fn client_tracking(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    let mut wanted = Tracking::default();
    let (mut broadcast, mut prefixes) = (false, Vec::new());
    let mut options = args[3..].iter();
    while let Some(option) = options.next() {
        match option.to_ascii_uppercase().as_slice() {
            b"BCAST" => broadcast = true,
            b"NOLOOP" => wanted.no_loop = true,
            b"PREFIX" => match options.next() {
                Some(prefix) => prefixes.push(prefix.to_vec()),
                None => return Err(SYNTAX.into()),
            },
            b"OPTIN" | b"OPTOUT" | b"REDIRECT" => {
                return Err("ERR the simulated Redis has no such way to track".into());
            }
            _ => return Err(SYNTAX.into()),
        }
    }
    match args[2].to_ascii_lowercase().as_slice() {
        b"on" => {}
        b"off" => {
            call.server.stop_tracking(call.id);
            call.out.ok();
            return Ok(());
        }
        _ => return Err(SYNTAX.into()),
    }
    if !broadcast && !prefixes.is_empty() {
        return Err("ERR PREFIX option requires BCAST mode to be enabled".into());
    }
    let before = call.client().tracking.clone();
    if let Some(before) = &before
        && before.prefixes.is_some() != broadcast
    {
        return Err("ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then re-enabling it with a different mode.".into());
    }
    let mut all = before
        .as_ref()
        .and_then(|before| before.prefixes.clone())
        .unwrap_or_default();
    if broadcast {
        check_prefixes(&all, &prefixes)?;
        if prefixes.is_empty() {
            prefixes.push(Vec::new());
        }
    }
    for prefix in prefixes {
        let tracked = call
            .server
            .tracked
            .prefixes
            .entry(prefix.clone())
            .or_default();
        tracked.clients.insert(call.id);
        all.insert(prefix);
    }
    if before.is_none() {
        call.server.tracked.clients += 1;
    }
    wanted.prefixes = broadcast.then_some(all);
    call.client().tracking = Some(wanted);
    call.out.ok();
    Ok(())
}

/// Refuses prefixes that overlap: no key may match two prefixes of a connection.
fn check_prefixes(there: &BTreeSet<Vec<u8>>, more: &[Vec<u8>]) -> Done {
    let overlap = |one: &[u8], two: &[u8]| one.starts_with(two) || two.starts_with(one);
    let text = String::from_utf8_lossy;
    for (place, prefix) in more.iter().enumerate() {
        if let Some(other) = there.iter().find(|other| overlap(prefix, other)) {
            return Err(format!("ERR Prefix '{}' overlaps with an existing prefix '{}'. Prefixes for a single client must not overlap.", text(prefix), text(other)).into());
        }
        if let Some(other) = more[place + 1..]
            .iter()
            .find(|other| overlap(prefix, other))
        {
            return Err(format!("ERR Prefix '{}' overlaps with another provided prefix '{}'. Prefixes for a single client must not overlap.", text(prefix), text(other)).into());
        }
    }
    Ok(())
}

fn head(out: &mut Writer) {
    out.push(2);
    out.bulk(b"invalidate");
}
