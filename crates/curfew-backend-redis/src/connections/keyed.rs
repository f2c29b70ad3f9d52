//! A command and the server that it goes to.

use redis::{Cmd, cmd};

use crate::slots::{Slot, slot_of};

/// A command with its key, which decides the server it goes to.
#[derive(Debug, Clone)]
pub(crate) struct Keyed {
    pub(super) name: &'static str,
    pub(crate) slot: Slot,
    pub(super) cmd: Cmd,
}

impl Keyed {
    /// The name of a call of a script.
    pub(super) const SCRIPT: &str = "EVAL";

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
