//! The step of the protocol that a line of a node's log reports.

use serde_json::{Map, Value};

/// A step of the protocol in a node's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Connect,
    Track,
    Epoch(Outcome),
    Floor,
    NewEpoch,
    Reassert,
    Reconcile,
    Heartbeat,
    Barrier,
    Synced,
    Push { keys: u64 },
    NullPush,
    Get,
    Sweep,
    Op,
    Index,
    Compare,
    Confirm,
    Down,
}

/// Outcome of reading the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The epoch exists, and the node has stored it or has stored no epoch.
    Same,
    /// Neither the node nor Redis has an epoch.
    First,
    /// The node has stored an epoch, and Redis has none or another one.
    Lost,
}

impl Step {
    /// One step of each kind.
    pub(super) const EACH: [Self; 21] = [
        Self::Connect,
        Self::Track,
        Self::Epoch(Outcome::Same),
        Self::Epoch(Outcome::First),
        Self::Epoch(Outcome::Lost),
        Self::Floor,
        Self::NewEpoch,
        Self::Reassert,
        Self::Reconcile,
        Self::Heartbeat,
        Self::Barrier,
        Self::Synced,
        Self::Push { keys: 1 },
        Self::NullPush,
        Self::Get,
        Self::Sweep,
        Self::Op,
        Self::Index,
        Self::Compare,
        Self::Confirm,
        Self::Down,
    ];

    /// The step's name in a log.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Track => "track",
            Self::Epoch(Outcome::Same) => "epoch (same)",
            Self::Epoch(Outcome::First) => "epoch (first)",
            Self::Epoch(Outcome::Lost) => "epoch (lost)",
            Self::Floor => "floor",
            Self::NewEpoch => "new_epoch",
            Self::Reassert => "reassert",
            Self::Reconcile => "reconcile",
            Self::Heartbeat => "heartbeat",
            Self::Barrier => "barrier",
            Self::Synced => "synced",
            Self::Push { .. } => "push",
            Self::NullPush => "null_push",
            Self::Get => "get",
            Self::Sweep => "sweep",
            Self::Op => "op",
            Self::Index => "index",
            Self::Compare => "compare",
            Self::Confirm => "confirm",
            Self::Down => "down",
        }
    }

    /// True if the step may happen without an action of the node: a push, a change of settings or
    /// the end of the connection.
    pub(super) fn may_come_unasked(self) -> bool {
        matches!(
            self,
            Self::Push { .. } | Self::NullPush | Self::Index | Self::Down
        )
    }
}

/// The step of a line and its generation; `None` if the line is not about the protocol. An error
/// says that a line about the protocol is malformed.
pub(super) fn parse(line: &str) -> Option<Result<(Step, u64), String>> {
    let entry: Map<String, Value> = serde_json::from_str(line).ok()?;
    let is_protocol = entry.get("message").and_then(Value::as_str) == Some("protocol");
    is_protocol.then(|| {
        let fields = Fields(&entry);
        Ok((fields.step()?, fields.number("generation")?))
    })
}

struct Fields<'a>(&'a Map<String, Value>);

impl Fields<'_> {
    fn step(&self) -> Result<Step, String> {
        Ok(match self.text("step")? {
            "connect" => Step::Connect,
            "track" => Step::Track,
            "epoch" => Step::Epoch(match self.text("outcome")? {
                "same" => Outcome::Same,
                "first" => Outcome::First,
                "lost" => Outcome::Lost,
                other => return Err(format!("no outcome is called {other:?}")),
            }),
            "floor" => Step::Floor,
            "new_epoch" => Step::NewEpoch,
            "reassert" => Step::Reassert,
            "reconcile" => Step::Reconcile,
            "heartbeat" => Step::Heartbeat,
            "barrier" => Step::Barrier,
            "synced" => Step::Synced,
            "push" => Step::Push {
                keys: self.number("keys").or_else(|_| self.number("count"))?,
            },
            "null_push" => Step::NullPush,
            "get" => Step::Get,
            "sweep" => Step::Sweep,
            "op" => Step::Op,
            "index" => Step::Index,
            "compare" => Step::Compare,
            "confirm" => Step::Confirm,
            "down" => Step::Down,
            other => return Err(format!("no step is called {other:?}")),
        })
    }

    fn text(&self, name: &str) -> Result<&str, String> {
        let value = self.0.get(name).and_then(Value::as_str);
        value.ok_or_else(|| format!("the field {name} is missing, or is not a text"))
    }

    fn number(&self, name: &str) -> Result<u64, String> {
        let value = self.0.get(name).and_then(Value::as_u64);
        value.ok_or_else(|| format!("the field {name} is missing, or is not a whole number"))
    }
}
