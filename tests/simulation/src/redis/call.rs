//! One running command: its connection, its time, and its notifications.
//!
//! Owns: the steps that commands share. A due key is removed before a command reads it, and
//! connections that watch or track a key are notified when it changes.
//! Knows nothing of: what any command does.

use std::borrow::Cow;
use std::time::Duration;

use super::client::Client;
use super::wire::Writer;
use super::{ConnectionId, Effect, Executed, OPERATOR, Server};

/// An error reply, without the minus sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure(pub(super) Cow<'static, str>);

/// Result of a command that has written its reply or was refused.
pub(super) type Done = Result<(), Failure>;

/// A running command.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) server: &'a mut Server,
    pub(super) id: ConnectionId,
    pub(super) now: Duration,
    pub(super) out: Writer,
    /// The command's full name, in lower case.
    pub(super) name: &'static str,
    /// True if `EXEC` runs the command.
    pub(super) is_queued: bool,
    /// The length of the output after which the connection is closed; `None` if the connection
    /// stays open.
    pub(super) end: Option<usize>,
}

pub(super) const SYNTAX: &str = "ERR syntax error";
pub(super) const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";
pub(super) const NOT_A_FLOAT: &str = "ERR value is not a valid float";
pub(super) const NO_SUCH_KEY: &str = "ERR no such key";

impl From<&'static str> for Failure {
    fn from(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self(Cow::Owned(text))
    }
}

impl Call<'_> {
    /// Milliseconds since 1970.
    pub(super) fn ms(&self) -> i64 {
        milliseconds(self.now)
    }

    /// The connection whose command runs.
    pub(super) fn client(&mut self) -> &mut Client {
        self.server.clients.entry(self.id).or_default()
    }

    /// Closes the connection after the output so far.
    pub(super) fn close(&mut self) {
        self.client().is_closing = true;
        self.end.get_or_insert(self.out.bytes.len());
    }

    /// Removes a due key, as Redis does before each access.
    pub(super) fn lapse(&mut self, key: &[u8]) {
        if self.server.data.is_due(key, self.ms()) {
            self.server.lapse(key, self.now);
        }
    }

    /// Reports that a key has changed.
    pub(super) fn touched(&mut self, key: &[u8]) {
        self.server.touched(key, Some(self.id), self.now);
    }

    /// Logs that a string has a new value.
    pub(super) fn note_set(&mut self, key: &[u8], value: &[u8]) {
        self.note(Effect::Set {
            key: key.to_vec(),
            value: value.to_vec(),
        });
    }

    pub(super) fn note_removed(&mut self, key: &[u8]) {
        self.note(Effect::Removed { key: key.to_vec() });
    }

    /// Logs that a key has changed in another way.
    pub(super) fn note_other(&mut self, key: &[u8]) {
        let command = self.name.to_ascii_uppercase();
        self.note(Effect::Other {
            command,
            key: key.to_vec(),
        });
    }

    pub(super) fn note(&mut self, what: Effect) {
        let by = (self.id != OPERATOR).then_some(self.id);
        let at = self.now;
        self.server.log.push(Executed { at, by, what });
    }

    /// Removes a key. Returns true if it existed.
    pub(super) fn remove(&mut self, key: &[u8]) -> bool {
        self.lapse(key);
        if self.server.data.remove(key).is_none() {
            return false;
        }
        self.touched(key);
        self.note_removed(key);
        true
    }
}

impl Server {
    /// Removes a due key. A replica does not, because it waits for its primary to remove the key.
    pub(super) fn lapse(&mut self, key: &[u8], now: Duration) {
        if self.replica {
            return;
        }
        self.data.remove(key);
        self.touched(key, None, now);
        self.log.push(Executed {
            at: now,
            by: None,
            what: Effect::Removed { key: key.to_vec() },
        });
    }

    /// Notifies the connections that watch or track a key of its change.
    pub(super) fn touched(&mut self, key: &[u8], by: Option<ConnectionId>, now: Duration) {
        self.touch_watched(key, now);
        self.invalidate(key, by);
    }

    /// Adds a push to the output of a connection. A push that a command causes to its own
    /// connection comes after the command's reply.
    pub(super) fn push_to(&mut self, id: ConnectionId, write: impl FnOnce(&mut Writer)) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        let bytes = match self.executing == Some(id) {
            true => std::mem::take(&mut self.deferred),
            false => std::mem::take(&mut client.output),
        };
        let mut writer = Writer {
            bytes,
            resp3: client.resp3,
        };
        write(&mut writer);
        if self.executing == Some(id) {
            self.deferred = writer.bytes;
        } else {
            client.output = writer.bytes;
            self.note_output(id);
        }
    }

    /// Records that a connection has output.
    pub(super) fn note_output(&mut self, id: ConnectionId) {
        if let Some(client) = self.clients.get_mut(&id)
            && !client.is_noted
            && !client.output.is_empty()
        {
            client.is_noted = true;
            self.noted.push(id);
        }
    }
}

/// Milliseconds since 1970.
pub(super) fn milliseconds(now: Duration) -> i64 {
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}
