//! A command, and the slot that decides to which server it is sent.

use redis::{Cmd, cmd};

use super::Connections;
use crate::slots::{Slot, slot_of};

/// A command with the slot of its key. The primary of the slot executes the command.
#[derive(Debug, Clone)]
pub(crate) struct Keyed {
    pub(super) name: &'static str,
    pub(crate) slot: Slot,
    pub(super) cmd: Cmd,
}

impl Keyed {
    /// The name of the command that calls a script.
    pub(super) const SCRIPT: &str = "EVAL";

    /// The commands that streams and presence alone need.
    const OPTIONAL: [&str; 3] = [Self::SCRIPT, "SCAN", "HSCAN"];

    /// True if a Redis user may lack the right to this command and still have the right to every
    /// other command that a node needs.
    pub(super) fn is_optional(&self) -> bool {
        Self::OPTIONAL.contains(&self.name)
    }

    /// Creates the command `name key`. More arguments may be added.
    pub(crate) fn new(name: &'static str, key: &str) -> Self {
        let mut command = cmd(name);
        command.arg(key);
        Self {
            name,
            slot: slot_of(key.as_bytes()),
            cmd: command,
        }
    }

    /// Creates a command without a key, for the primary of this slot.
    pub(crate) fn at(slot: Slot, name: &'static str) -> Self {
        Self {
            name,
            slot,
            cmd: cmd(name),
        }
    }

    /// Creates a call of a script with these keys, which share a slot. More arguments may be added.
    pub(crate) fn script(script: &'static str, keys: &[&str]) -> Self {
        let mut command = cmd(Self::SCRIPT);
        command.arg(script).arg(keys.len()).arg(keys);
        Self {
            name: Self::SCRIPT,
            slot: slot_of(keys.first().copied().unwrap_or_default().as_bytes()),
            cmd: command,
        }
    }

    pub(crate) fn arg(mut self, argument: impl redis::ToRedisArgs) -> Self {
        self.cmd.arg(argument);
        self
    }
}

impl Connections {
    /// A command without a key, for each primary.
    pub(crate) fn at_each(&self, name: &'static str) -> Vec<Keyed> {
        let current = self.current.load();
        let shards = current.servers.iter().map(|server| server.shard.load());
        let slots = shards.filter_map(|shard| shard.slots.first().map(|(first, _)| *first));
        slots.map(|slot| Keyed::at(slot, name)).collect()
    }
}
