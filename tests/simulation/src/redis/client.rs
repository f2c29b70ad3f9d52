//! One connection, as the server knows it.

use std::collections::BTreeSet;

use super::transactions::{Transaction, Watched};

/// One connection.
#[derive(Debug, Default)]
pub(super) struct Client {
    pub(super) resp3: bool,
    pub(super) name: Vec<u8>,
    /// The head of a command whose end is yet to come.
    pub(super) input: Vec<u8>,
    pub(super) output: Vec<u8>,
    /// It is among those that have output.
    pub(super) is_noted: bool,
    /// It is closed once its output is taken.
    pub(super) is_closing: bool,
    pub(super) transaction: Option<Transaction>,
    pub(super) watched: Vec<Watched>,
    /// A key that it watches has changed.
    pub(super) is_dirty: bool,
    pub(super) channels: BTreeSet<Vec<u8>>,
    pub(super) patterns: BTreeSet<Vec<u8>>,
    pub(super) shard_channels: BTreeSet<Vec<u8>>,
    pub(super) tracking: Option<Tracking>,
    pub(super) is_kept_in_memory: bool,
}

/// It is told of keys that change.
#[derive(Debug, Clone, Default)]
pub(super) struct Tracking {
    /// Every key with one of these prefixes; without them, keys that it has read.
    pub(super) prefixes: Option<BTreeSet<Vec<u8>>>,
    /// Not of what it has changed itself.
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
