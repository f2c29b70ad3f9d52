//! Comparison of a real node's log with the model.
//!
//! In tests a node logs the steps of its control connection. Each line is a JSON object with
//! `"message":"protocol"`, the `step`, its `generation`, and for some steps more fields. A step
//! that sends Redis a request is logged when the answer has been processed. Other steps are logged
//! when they happen, or when the node handles them. Lines that are not about the protocol are
//! skipped.
//!
//! | step | fields | |
//! | --- | --- | --- |
//! | `connect` | | a connection of a higher `generation` |
//! | `track` | | tracking is on |
//! | `epoch` | `outcome` | `same`; `lost`: not the stored one; `first`: node and Redis have none |
//! | `floor` | | with `reauth`: after a loss the floor is raised and the epoch renewed |
//! | `new_epoch` | | an epoch is written, because Redis had none |
//! | `reassert` | | the node's revocations are written back; logged even if there are none |
//! | `reconcile` | | every session has been compared |
//! | `heartbeat`, `barrier` | | the two requests that renew the lease |
//! | `synced` | | the node is synced, after the first barrier of a set-up |
//! | `push` | `keys` or `count` | number of pushed keys for which the node will send a request |
//! | `null_push` | | any key may have changed |
//! | `get` | | the values of all keys that were pushed before the GET was sent |
//! | `sweep`, `op` | | a request outside the protocol, sent while the node is synced |
//! | `index` | | settings have changed, and every session is indexed by the new ones; at any time |
//! | `compare` | | every session was compared by the new settings; `reconcile` replaces it |
//! | `confirm` | | for a receipt: no revoked session is left; not from `index` to a comparison |
//! | `down` | | the connection has ended, or could not be made |
//!
//! A log is incomplete: it lacks the primary of a connection, and the time at which an answered
//! request was sent. The checker therefore follows every node of the model that could have written
//! the lines so far, under any of [`Rules::allowed`]. A line that none of these nodes can write is
//! a violation. The model's only session stands for a session that stays open. In every answer that
//! the checker assumes, the session is therefore not revoked.
//!
//! The checker assumes one thing: if the set-up with a new primary is interrupted, the node does
//! not return to the previous primary. The checker cannot check rules that leave no trace in the
//! order of steps: M1, M3, M4, M6, M12, M15, M16, M19 to M30, M33, M34 and M36 to M38.

use std::collections::HashSet;

use crate::message::{Epoch, Message, Primary, Reply, Request};
use crate::node::{Next, Node, Phase};
use crate::rules::Rules;
use crate::session::Session;
use step::{Outcome, Step};

mod step;
#[cfg(test)]
mod tests;

/// Maximum number of log lines that a [`Violation`] shows before its own line.
const TOLD: usize = 8;

/// Summary of a log that the model allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Number of lines about the protocol.
    pub steps: usize,
    /// Number of control connections.
    pub connections: usize,
    /// Number of times the node became synced.
    pub synced: usize,
    /// Number of pushes, without null pushes.
    pub pushes: usize,
    /// Number of null pushes.
    pub null_pushes: usize,
    /// Number of times that the node found the epoch lost.
    pub losses: usize,
    /// Number of re-assertions.
    pub reassertions: usize,
    /// Number of comparisons after a reload. Comparisons in a set-up do not count.
    pub comparisons: usize,
    /// Number of confirmed revocations.
    pub confirmations: usize,
}

/// A line that the model does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {number} of the log: {problem}: {line}\nafter:\n{}", .before.join("\n"))]
pub struct Violation {
    /// Number of the line in the log, counted from 1.
    pub number: usize,
    /// The text of the line.
    pub line: String,
    /// A description of the violation.
    pub problem: String,
    /// The last lines about the protocol before the line.
    pub before: Vec<String>,
}

/// Compares a node's log with the model. The log begins with the start of the node.
pub fn check<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Summary, Violation> {
    let mut candidates: HashSet<Candidate> =
        Rules::allowed().into_iter().map(Candidate::new).collect();
    let mut summary = Summary::default();
    let mut before: Vec<&str> = Vec::new();
    for (index, line) in lines.into_iter().enumerate() {
        let violation = |problem, before: &[&str]| Violation {
            number: index + 1,
            line: line.to_owned(),
            problem,
            before: before[before.len().saturating_sub(TOLD)..]
                .iter()
                .map(|line| (*line).to_owned())
                .collect(),
        };
        let Some(entry) = step::parse(line) else {
            continue;
        };
        let (step, generation) = entry.map_err(|problem| violation(problem, &before))?;
        candidates =
            follow(&candidates, step, generation).map_err(|problem| violation(problem, &before))?;
        summary.count(step);
        before.push(line);
    }
    Ok(summary)
}

/// The candidates after a line that logs `step` in `generation`. The error says why no candidate
/// can log this line.
fn follow(
    candidates: &HashSet<Candidate>,
    step: Step,
    generation: u64,
) -> Result<HashSet<Candidate>, String> {
    let mut generations = candidates.iter().map(|candidate| candidate.node.generation);
    let current = generations.next().unwrap_or_default();
    match step {
        Step::Connect if generation <= current => {
            return Err(format!(
                "generation {generation} does not follow {current}: each `connect` has a greater one"
            ));
        }
        Step::Connect => {}
        _ if generation != current => {
            return Err(format!(
                "the step has generation {generation}, but the node's generation is {current}"
            ));
        }
        _ => {}
    }
    let next: HashSet<Candidate> = candidates
        .iter()
        .flat_map(|candidate| candidate.after(step, generation))
        .flat_map(Candidate::unlogged)
        .collect();
    if next.is_empty() {
        let mut possible: Vec<&str> = candidates.iter().flat_map(Candidate::possible).collect();
        possible.sort_unstable();
        possible.dedup();
        return Err(format!("possible here: {}", possible.join(", ")));
    }
    Ok(next)
}

impl Summary {
    fn count(&mut self, step: Step) {
        self.steps += 1;
        match step {
            Step::Connect => self.connections += 1,
            Step::Synced => self.synced += 1,
            Step::Push { .. } => self.pushes += 1,
            Step::NullPush => self.null_pushes += 1,
            Step::Epoch(Outcome::Lost) => self.losses += 1,
            Step::Reassert => self.reassertions += 1,
            Step::Compare => self.comparisons += 1,
            Step::Confirm => self.confirmations += 1,
            _ => {}
        }
    }
}

/// A node of the model that could have written the log so far, with its connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Candidate {
    rules: Rules,
    node: Node,
    /// True if Redis has turned tracking on.
    tracking: bool,
    /// Unanswered requests, oldest first.
    awaited: Vec<Request>,
    /// True if the node has become synced and has not logged `synced` yet.
    unannounced: bool,
}

/// The primary of every candidate's connection. A candidate whose `known_primary` is `None` stands
/// for a node that was last synced with any other primary, or with none.
const PRIMARY: Primary = Primary {
    server: 0,
    incarnation: 0,
};

impl Candidate {
    fn new(rules: Rules) -> Self {
        Self {
            rules,
            node: Node {
                seen: true,
                session: Session::active(0),
                ..Node::new()
            },
            tracking: false,
            awaited: Vec::new(),
            unannounced: false,
        }
    }

    /// The candidates after a step; empty if this candidate cannot take the step.
    fn after(&self, step: Step, generation: u64) -> Vec<Self> {
        if self.unannounced && !step.may_come_unasked() && step != Step::Synced {
            return Vec::new();
        }
        match step {
            Step::Connect => self.connected(generation),
            Step::Track => self.replied(Reply::Tracking),
            Step::Epoch(outcome) => self.epoch_read(outcome),
            Step::Floor => self.replied(Reply::FloorRaised(Some(self.other_epoch()))),
            Step::NewEpoch => self.replied(Reply::EpochRenewed(Some(self.other_epoch()))),
            Step::Reassert => self.replied(Reply::Reasserted),
            Step::Reconcile => self.replied(Reply::Reconciled { revoked: false }),
            Step::Heartbeat => self.replied(Reply::Written),
            Step::Barrier => self.replied(Reply::Passed),
            Step::Get => self.replied(Reply::Value { revoked: false }),
            Step::Synced => self.announced(),
            Step::Push { keys } => self.pushed((keys > 0).then_some(Message::Push)),
            Step::NullPush => self.pushed(Some(Message::NullPush)),
            Step::Sweep | Step::Op => self.unchanged(),
            Step::Index => self.indexed(),
            Step::Compare => self.compared(),
            Step::Confirm if self.node.confirms(&self.rules) => self.unchanged(),
            Step::Confirm => Vec::new(),
            Step::Down => self.down(),
        }
    }

    /// The names of the steps that the candidate can take.
    fn possible(&self) -> Vec<&'static str> {
        let takes = |step: &Step| {
            let generation = self.node.generation + u64::from(*step == Step::Connect);
            !self.after(*step, generation).is_empty()
        };
        Step::EACH
            .into_iter()
            .filter(takes)
            .map(Step::name)
            .collect()
    }

    /// This candidate, and every candidate that it can become without a line in the log: by sending
    /// a request, or by dropping an answer.
    fn unlogged(self) -> Vec<Self> {
        let mut all = vec![self];
        let mut at = 0;
        while at < all.len() {
            for request in [Request::Get, Request::Heartbeat] {
                let candidate = &all[at];
                if candidate
                    .node
                    .may_send(request, &candidate.awaited, &candidate.rules)
                {
                    let mut sent = candidate.clone();
                    let request = sent.node.send(request, &sent.rules);
                    sent.awaited.push(request);
                    all.push(sent);
                }
            }
            // The node may drop an answer without a line in the log.
            if all[at].node.restarting {
                let mut dropped = all[at].clone();
                dropped.awaited.remove(0);
                dropped.receive(Message::Reply(Reply::Passed));
                all.push(dropped);
            }
            at += 1;
        }
        all
    }

    fn connected(&self, generation: u64) -> Vec<Self> {
        if self.node.phase != Phase::Down {
            return Vec::new();
        }
        let mut connected = self.clone();
        let first = connected.node.connect(generation, &self.rules);
        connected.awaited.push(first);
        let mut elsewhere = connected.clone();
        elsewhere.node.known_primary = None;
        vec![connected, elsewhere]
    }

    /// The candidates after the end of the connection. If there is no connection, an attempt to
    /// connect has failed.
    fn down(&self) -> Vec<Self> {
        let mut down = self.clone();
        down.node.disconnect();
        down.awaited.clear();
        down.tracking = false;
        down.unannounced = false;
        vec![down]
    }

    fn epoch_read(&self, outcome: Outcome) -> Vec<Self> {
        let remembered = self.node.epoch;
        let found = match (outcome, remembered) {
            (Outcome::Same, Some(_)) => vec![remembered],
            // A node that has just started accepts the epoch that it finds.
            (Outcome::Same, None) => vec![Some(self.other_epoch())],
            (Outcome::First, None) | (Outcome::Lost, Some(_)) => {
                vec![None, Some(self.other_epoch())]
            }
            (Outcome::First, Some(_)) | (Outcome::Lost, None) => return Vec::new(),
        };
        let read = |epoch| self.replied(Reply::Epoch(epoch));
        found.into_iter().flat_map(read).collect()
    }

    fn announced(&self) -> Vec<Self> {
        let mut announced = self.clone();
        announced.unannounced = false;
        self.unannounced.then_some(announced).into_iter().collect()
    }

    /// The candidates after a push. `message` is `None` if no pushed key concerns the node.
    fn pushed(&self, message: Option<Message>) -> Vec<Self> {
        if !self.tracking {
            return Vec::new();
        }
        let mut pushed = self.clone();
        if let Some(message) = message {
            pushed.receive(message);
        }
        let pushed = pushed.settled();
        if self.unannounced && message == Some(Message::NullPush) {
            // If the null push came before the barrier's answer, the node was never synced with
            // this primary.
            let mut unknown = pushed.clone();
            unknown.node.known_primary = None;
            return vec![pushed, unknown];
        }
        vec![pushed]
    }

    /// The candidates after a step outside the protocol. A node takes such a step while it is
    /// synced. The answer to the step's request may arrive after a null push.
    fn unchanged(&self) -> Vec<Self> {
        let answered = self.node.phase == Phase::Synced || self.node.restarting;
        answered.then(|| self.clone()).into_iter().collect()
    }

    /// The candidates after a change of settings, which may come at any time.
    fn indexed(&self) -> Vec<Self> {
        let mut indexed = self.clone();
        indexed.node.reload();
        indexed.node.index(&self.rules);
        vec![indexed]
    }

    /// The candidates after the comparison that follows a reload. The node may have sent any number
    /// of requests for it.
    fn compared(&self) -> Vec<Self> {
        if !self.node.is_comparison_due(&self.rules) {
            return Vec::new();
        }
        let mut compared = self.clone();
        compared.node.asks_by_index(Request::Compare, &self.rules);
        compared.node.compared(false, &self.rules);
        compared.unchanged()
    }

    fn replied(&self, reply: Reply) -> Vec<Self> {
        if self.awaited.first() != Some(&reply.request()) {
            return Vec::new();
        }
        let mut replied = self.clone();
        replied.awaited.remove(0);
        replied.tracking |= reply == Reply::Tracking;
        replied.receive(Message::Reply(reply));
        vec![replied.settled()]
    }

    fn receive(&mut self, message: Message) {
        let was_synced = self.node.phase == Phase::Synced;
        match self
            .node
            .receive(message, PRIMARY, &self.awaited, &self.rules)
        {
            Next::Send(request) => self.awaited.push(request),
            Next::Wait => {}
            // The node closes the connection, so only `down` can follow.
            Next::Disconnect => self.awaited.clear(),
        }
        let is_synced = self.node.phase == Phase::Synced;
        self.unannounced = is_synced && (self.unannounced || !was_synced);
    }

    /// This candidate without state that has no effect on its steps, so that equal candidates are
    /// merged.
    fn settled(mut self) -> Self {
        self.node.session.suspended = false;
        self
    }

    /// An epoch other than the stored one.
    fn other_epoch(&self) -> Epoch {
        match self.node.epoch {
            Some(Epoch::First) => Epoch::Second,
            Some(Epoch::Second) | None => Epoch::First,
        }
    }
}
