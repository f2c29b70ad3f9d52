//! `MULTI`, `EXEC`, `DISCARD`, `WATCH` and `UNWATCH`.
//!
//! Owns: the commands that wait for `EXEC`, and the watched keys of each connection.
//! Knows nothing of: the effects of the queued commands.

use std::time::Duration;

use super::Server;
use super::call::{Call, Done, milliseconds};
use super::commands::Command;

/// Commands that wait for `EXEC`.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    pub(super) queued: Vec<Queued>,
    /// True if a command was refused. `EXEC` is then refused too.
    pub(super) is_aborted: bool,
}

#[derive(Debug)]
pub(super) struct Queued {
    pub(super) command: &'static Command,
    pub(super) args: Vec<Vec<u8>>,
    /// True if `EXEC` is refused with this command in the queue while there is no memory.
    pub(super) takes_memory: bool,
    pub(super) writes: bool,
}

/// A watched key.
#[derive(Debug)]
pub(super) struct Watched {
    key: Vec<u8>,
    /// True if the key was due when it was watched. Its removal then does not count as a change.
    was_due: bool,
}

impl Server {
    /// Handles the change of a key: `EXEC` of the connections that watch the key will fail.
    pub(super) fn touch_watched(&mut self, key: &[u8], now: Duration) {
        let Some(watchers) = self.watchers.get(key) else {
            return;
        };
        let is_there = self.data.live(key, milliseconds(now)).is_some();
        let mut dirty = Vec::new();
        for id in watchers {
            let Some(client) = self.clients.get_mut(id) else {
                continue;
            };
            let watched = client.watched.iter_mut().find(|watched| watched.key == key);
            match watched {
                Some(watched) if watched.was_due && !is_there => watched.was_due = false,
                _ => {
                    client.is_dirty = true;
                    dirty.push(*id);
                }
            }
        }
        for id in dirty {
            self.unwatch(id);
        }
    }

    /// Handles the removal of every key.
    pub(super) fn touch_all_watched(&mut self, now: Duration) {
        let ms = milliseconds(now);
        let there = self
            .watchers
            .keys()
            .filter(|key| self.data.live(key, ms).is_some());
        for id in there
            .flat_map(|key| self.watchers[key].clone())
            .collect::<Vec<_>>()
        {
            if let Some(client) = self.clients.get_mut(&id) {
                client.is_dirty = true;
            }
            self.unwatch(id);
        }
    }

    /// Ends all watches of a connection.
    pub(super) fn unwatch(&mut self, id: u64) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        for watched in std::mem::take(&mut client.watched) {
            if let Some(watchers) = self.watchers.get_mut(&watched.key) {
                watchers.retain(|other| *other != id);
                if watchers.is_empty() {
                    self.watchers.remove(&watched.key);
                }
            }
        }
    }
}

pub(super) fn multi(call: &mut Call<'_>, _: &[&[u8]]) -> Done {
    let client = call.client();
    if client.transaction.is_some() {
        return Err("ERR MULTI calls can not be nested".into());
    }
    client.transaction = Some(Transaction::default());
    call.out.ok();
    Ok(())
}

pub(super) fn discard(call: &mut Call<'_>, _: &[&[u8]]) -> Done {
    if call.client().transaction.is_none() {
        return Err("ERR DISCARD without MULTI".into());
    }
    call.end_transaction();
    call.out.ok();
    Ok(())
}

pub(super) fn watch(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    let client = call.client();
    if client.transaction.is_some() {
        return Err("ERR WATCH inside MULTI is not allowed".into());
    }
    if !client.is_dirty {
        for key in &args[1..] {
            if call
                .client()
                .watched
                .iter()
                .any(|watched| watched.key == *key)
            {
                continue;
            }
            let was_due = call.server.data.is_due(key, call.ms());
            let key = key.to_vec();
            let id = call.id;
            call.server
                .watchers
                .entry(key.clone())
                .or_default()
                .push(id);
            call.client().watched.push(Watched { key, was_due });
        }
    }
    call.out.ok();
    Ok(())
}

pub(super) fn unwatch(call: &mut Call<'_>, _: &[&[u8]]) -> Done {
    let id = call.id;
    call.server.unwatch(id);
    call.client().is_dirty = false;
    call.out.ok();
    Ok(())
}

pub(super) fn exec(call: &mut Call<'_>, _: &[&[u8]]) -> Done {
    let Some(transaction) = call.client().transaction.take() else {
        return Err("ERR EXEC without MULTI".into());
    };
    let ms = call.ms();
    let watched = std::mem::take(&mut call.client().watched);
    let has_lapsed = watched
        .iter()
        .any(|w| !w.was_due && call.server.data.is_due(&w.key, ms));
    call.client().watched = watched;
    let is_dirty = call.client().is_dirty || has_lapsed;
    call.end_transaction();
    if transaction.is_aborted {
        return Err("EXECABORT Transaction discarded because of previous errors.".into());
    }
    if is_dirty {
        call.out.nil_array();
        return Ok(());
    }
    call.out.array(transaction.queued.len());
    let name = call.name;
    call.is_queued = true;
    for queued in &transaction.queued {
        let args: Vec<&[u8]> = queued.args.iter().map(Vec::as_slice).collect();
        call.run(queued.command, &args);
    }
    call.name = name;
    call.is_queued = false;
    Ok(())
}

impl Call<'_> {
    /// Drops the queued commands and the watches.
    pub(super) fn end_transaction(&mut self) {
        let id = self.id;
        self.server.unwatch(id);
        let client = self.client();
        client.transaction = None;
        client.is_dirty = false;
    }
}
