//! Dispatch of commands: a command in a connection's bytes runs, is refused, or waits for `EXEC`.
//!
//! Owns: the order of Redis' checks before a command runs.
//! Knows nothing of: what a command does.

use std::time::Duration;

use super::call::{Call, Done, Failure};
use super::client::Client;
use super::commands::{self, Command};
use super::transactions::Queued;
use super::wire::{Parsed, Writer, parse};
use super::{ConnectionId, OPERATOR, Server};

const OUT_OF_MEMORY: &str = "OOM command not allowed when used memory > 'maxmemory'.";
const READ_ONLY: &str = "READONLY You can't write against a read only replica.";

impl Server {
    pub(super) fn take_input(&mut self, id: ConnectionId, bytes: &[u8], now: Duration) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        let mut kept = std::mem::take(&mut client.input);
        let input = match kept.is_empty() {
            true => bytes,
            false => {
                kept.extend_from_slice(bytes);
                &kept[..]
            }
        };
        let mut at = 0;
        let mut args = Vec::with_capacity(16);
        while at < input.len() {
            match parse(&input[at..], &mut args) {
                Parsed::Command(length) => {
                    at += length;
                    if !args.is_empty() {
                        self.execute(id, &args, now);
                    }
                }
                Parsed::Partial => break,
                Parsed::Invalid(what) => {
                    self.push_to(id, |out| out.error(&format!("ERR {what}")));
                    self.end(id);
                }
            }
            if !self.clients.contains_key(&id) {
                return;
            }
        }
        let rest = input[at..].to_vec();
        if let Some(client) = self.clients.get_mut(&id) {
            client.input = rest;
        }
    }

    /// Executes one command of a connection.
    pub(super) fn execute(&mut self, id: ConnectionId, args: &[&[u8]], now: Duration) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        let out = Writer {
            bytes: std::mem::take(&mut client.output),
            resp3: client.resp3,
        };
        self.executing = Some(id);
        let mut call = Call {
            server: self,
            id,
            now,
            out,
            name: "",
            is_queued: false,
            end: None,
        };
        call.take(args);
        let mut output = std::mem::take(&mut call.out.bytes);
        let end = call.end;
        self.executing = None;
        output.append(&mut self.deferred);
        if let Some(end) = end {
            output.truncate(end);
        }
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        client.output = output;
        if client.is_closing && id != OPERATOR {
            self.end(id);
        } else {
            self.note_output(id);
        }
    }

    /// Closes a connection. The output that it still has is returned by the next
    /// [`Server::take_output`].
    fn end(&mut self, id: ConnectionId) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        let output = std::mem::take(&mut client.output);
        if !output.is_empty() {
            self.farewells.push((id, output));
        }
        self.disconnect(id);
        self.closed.push(id);
    }

    /// Resets a connection to the state of a new connection, which watches, tracks and subscribes
    /// to nothing.
    pub(super) fn forget(&mut self, id: ConnectionId) {
        self.unwatch(id);
        self.stop_tracking(id);
        if let Some(mut client) = self.clients.remove(&id) {
            self.stop_listening(id, &mut client);
            let fresh = Client {
                output: client.output,
                is_noted: client.is_noted,
                ..Client::default()
            };
            self.clients.insert(id, fresh);
        }
    }
}

impl Call<'_> {
    fn take(&mut self, args: &[&[u8]]) {
        let command = commands::find(args);
        let done = command.and_then(|command| match self.check(command, args) {
            Ok(()) => Ok(command),
            // A refused `EXEC` also drops the queued commands.
            Err(failure) if command.name == "exec" => Err(self.abort(&failure)),
            Err(failure) => Err(failure),
        });
        let command = match done {
            Ok(command) => command,
            Err(Failure(text)) => {
                if let Some(transaction) = &mut self.client().transaction {
                    transaction.is_aborted = true;
                }
                self.out.error(&text);
                return;
            }
        };
        let (takes_memory, writes) = self.needs(command, args);
        if !command.is_unqueued()
            && let client = self.client()
            && let Some(transaction) = &mut client.transaction
        {
            // An aborted transaction queues nothing more, because it will not run.
            if !client.is_dirty && !transaction.is_aborted {
                transaction.queued.push(Queued {
                    command,
                    args: args.iter().map(|arg| arg.to_vec()).collect(),
                    takes_memory,
                    writes,
                });
            }
            self.out.simple("QUEUED");
            return;
        }
        self.run(command, args);
    }

    /// Runs a command immediately, even if commands are queued for `EXEC`.
    pub(super) fn run(&mut self, command: &'static Command, args: &[&[u8]]) {
        self.name = command.name;
        if let Err(Failure(text)) = (command.run)(self, args) {
            self.out.error(&text);
        }
        self.remember_keys(command, args);
    }

    fn check(&mut self, command: &Command, args: &[&[u8]]) -> Done {
        let (takes_memory, writes) = self.needs(command, args);
        if self.server.out_of_memory {
            let waits = self.client().transaction.is_some()
                && !matches!(command.name, "exec" | "discard" | "quit" | "reset");
            if takes_memory || waits {
                return Err(OUT_OF_MEMORY.into());
            }
        }
        if self.server.replica && writes {
            return Err(READ_ONLY.into());
        }
        if !self.out.resp3 && !command.is_for_listeners() && self.client().is_subscribed() {
            let name = command.name;
            return Err(format!("ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context").into());
        }
        Ok(())
    }

    /// Returns two flags: if the command takes memory, and if it writes. For `EXEC` the queued
    /// commands count.
    fn needs(&mut self, command: &Command, args: &[&[u8]]) -> (bool, bool) {
        if command.name == "exec" {
            let queued = self
                .client()
                .transaction
                .iter()
                .flat_map(|waiting| &waiting.queued);
            return queued.fold((false, false), |(memory, writes), queued| {
                (memory | queued.takes_memory, writes | queued.writes)
            });
        }
        if self.server.scripts.writes(command.name, args) {
            return (true, true);
        }
        (command.takes_memory(), command.writes())
    }

    /// Refuses `EXEC` and drops its queue.
    fn abort(&mut self, failure: &Failure) -> Failure {
        self.end_transaction();
        // Redis repeats the text without the generic code.
        let why = failure.0.strip_prefix("ERR ").unwrap_or(&failure.0);
        format!("EXECABORT Transaction discarded because of: {why}").into()
    }
}
