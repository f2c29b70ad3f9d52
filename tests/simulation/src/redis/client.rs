//! The server's state of one connection.

use std::collections::BTreeSet;

use super::transactions::{Transaction, Watched};

/// One connection.
#[derive(Debug, Default)]
pub(super) struct Client {
    pub(super) resp3: bool,
    pub(super) name: Vec<u8>,
    /// The received part of an incomplete command.
    pub(super) input: Vec<u8>,
    pub(super) output: Vec<u8>,
    /// True if the connection is in the list of connections with output.
    pub(super) is_noted: bool,
    /// True if the connection closes once its output is taken.
    pub(super) is_closing: bool,
    pub(super) transaction: Option<Transaction>,
    pub(super) watched: Vec<Watched>,
    /// True if a watched key has changed.
    pub(super) is_dirty: bool,
    pub(super) channels: BTreeSet<Vec<u8>>,
    pub(super) patterns: BTreeSet<Vec<u8>>,
    pub(super) shard_channels: BTreeSet<Vec<u8>>,
    pub(super) tracking: Option<Tracking>,
    pub(super) is_kept_in_memory: bool,
}

/// Settings of `CLIENT TRACKING`.
#[derive(Debug, Clone, Default)]
pub(super) struct Tracking {
    /// The prefixes of tracked keys; `None` if the keys that the connection has read are tracked.
    pub(super) prefixes: Option<BTreeSet<Vec<u8>>>,
    /// True if the connection is not notified of changes by its own commands.
    pub(super) no_loop: bool,
}

impl Client {
    pub(super) fn subscriptions(&self) -> usize {
        self.channels.len() + self.patterns.len()
    }

    pub(super) fn is_subscribed(&self) -> bool {
        self.subscriptions() + self.shard_channels.len() > 0
    }
}
