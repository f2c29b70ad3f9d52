//! A session's subscription on a node, and what its client has been told.

use super::rules::StreamRules;
use super::server::{Answer, Position};

/// A subscription.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subscription {
    /// How far it has come.
    pub stage: Stage,
    /// The client's position; then that of what was queued last.
    pub at: Option<Position>,
    /// True until the answer to `subscribe` is queued.
    pub answer_due: bool,
    /// True when the read under way serves it.
    pub asked: bool,
    /// True when it waits because of a loss of the link or of data.
    pub lost: bool,
    /// True when something came on the link since that read was sent.
    pub heard: bool,
    /// All that came while it waited.
    pub buffer: Vec<Position>,
    /// All that is queued for the client.
    pub queue: Vec<Queued>,
    /// True when the node has found that the session is revoked.
    pub revoked: bool,
    /// Hidden from the node: a frame for it was lost on a link that stays up.
    pub behind: bool,
    /// The other end.
    pub client: Client,
}

/// How far a subscription has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// It has not been asked for.
    Absent,
    /// It waits for a read, and buffers.
    Waiting,
    /// Live frames are queued.
    Open,
    /// It is over.
    Ended,
}

/// A frame in a session's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Queued {
    /// The answer to `subscribe`.
    Answer {
        /// Its `recovered`.
        recovered: bool,
        /// Its position.
        at: Position,
    },
    /// A publication.
    Message {
        /// Its position.
        at: Position,
        /// True when it comes from a read or from the window.
        recovered: bool,
    },
    /// What came before this position could not be had again.
    Gap(Position),
}

/// A client, which believes what it is told.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Client {
    /// True when it has the answer to `subscribe`.
    pub answered: bool,
    /// The position that it has everything up to.
    pub at: Option<Position>,
    /// Its last position in the epoch before.
    pub before: Option<Position>,
}

/// What has gone wrong, each once and for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Faults {
    /// ST1: a message is not the one after the client's position.
    pub out_of_order: bool,
    /// ST1: a gap is told where there is none.
    pub false_gap: bool,
    /// ST2: `recovered:true`, and something is missing.
    pub missing: bool,
    /// ST2: `recovered:false`, and nothing is missing.
    pub given_up: bool,
    /// ST4: a publication is written although its session had lost access.
    pub without_access: bool,
    /// ST5: `recovered:true` across a loss of which the node was told.
    pub across_loss: bool,
    /// SR22: something is recovered of which the node was told that it is deleted.
    pub deleted: bool,
    /// ST7: a message before the answer.
    pub before_answer: bool,
    /// ST1: a read with nothing beside it does not open the subscription that waited for it.
    pub stuck: bool,
}

impl Subscription {
    /// One that has not been asked for.
    pub(super) fn absent() -> Self {
        Self {
            stage: Stage::Absent,
            at: None,
            answer_due: false,
            asked: false,
            lost: false,
            heard: false,
            buffer: Vec::new(),
            queue: Vec::new(),
            revoked: false,
            behind: false,
            client: Client {
                answered: false,
                at: None,
                before: None,
            },
        }
    }

    /// The client subscribes and says what it has.
    pub(super) fn begin(&mut self, since: Option<Position>, joins: bool) {
        self.stage = Stage::Waiting;
        self.at = since;
        self.client.at = since;
        self.answer_due = true;
        self.asked |= joins;
    }

    /// From here on it waits for a read that is not sent yet.
    pub(super) fn wait(&mut self) {
        if matches!(self.stage, Stage::Open | Stage::Waiting) {
            self.stage = Stage::Waiting;
            (self.asked, self.heard) = (false, false);
            self.buffer.clear();
        }
    }

    /// The read that is sent now will serve it.
    pub(super) fn ask(&mut self, rules: &StreamRules) {
        self.asked = true;
        (self.behind, self.heard) = (false, false);
        if rules.drop_covered {
            self.buffer.clear();
        }
    }

    /// Nothing more is queued for it.
    pub(super) fn end(&mut self) {
        self.stage = Stage::Ended;
        (self.asked, self.answer_due) = (false, false);
        (self.lost, self.heard) = (false, false);
        self.buffer.clear();
        self.at = None;
    }

    /// A frame comes on the link. `delivers` is false when the node has no lease; `room` is what the
    /// buffer takes.
    pub(super) fn receive(
        &mut self,
        frame: Position,
        delivers: bool,
        room: usize,
        rules: &StreamRules,
    ) {
        self.heard = self.stage == Stage::Waiting;
        match self.stage {
            Stage::Absent | Stage::Ended => {}
            Stage::Waiting if !rules.answer_first && self.answer_due => self.take(frame),
            Stage::Waiting if !rules.buffer => {}
            Stage::Waiting if self.buffer.len() < room => self.buffer.push(frame),
            Stage::Waiting if rules.overflow_waits => self.wait(),
            Stage::Waiting => {}
            Stage::Open => self.compare(frame, delivers, rules),
        }
    }

    fn compare(&mut self, frame: Position, delivers: bool, rules: &StreamRules) {
        let Some(at) = self.at else { return };
        let same = at.is_of_epoch(frame) || !rules.compare_live_epoch;
        let next = frame.offset == at.offset + 1;
        let passed = frame.offset <= at.offset;
        if same && passed && rules.dedupe {
            return;
        }
        if !same || !(next || passed || !rules.check_gap) {
            self.wait();
            self.buffer.push(frame);
        } else if delivers {
            self.take(frame);
        } else if rules.withheld_waits {
            self.wait();
        } else {
            self.at = Some(frame);
        }
    }

    fn take(&mut self, frame: Position) {
        self.queue.push(Queued::Message {
            at: frame,
            recovered: false,
        });
        self.at = Some(frame);
    }

    /// The read is answered, or the window serves it: the answer, what was missed, what was buffered
    /// and the opening, in one step. Returns what the client is told, if it is told.
    pub(super) fn open(
        &mut self,
        answer: Answer,
        (delivers, room): (bool, usize),
        rules: &StreamRules,
    ) -> Option<bool> {
        let since = self.at.filter(|since| {
            let same = since.is_of_epoch(answer.top) || !rules.compare_epoch;
            let within = since.offset <= answer.top.offset || !rules.compare_top;
            let reaches = answer.first <= since.offset + 1 || !rules.compare_first;
            same && within && reaches
        });
        let recovered = since.is_some();
        let told = self.answer_due.then_some(recovered);
        let at = answer.top;
        if self.answer_due {
            self.queue.push(Queued::Answer { recovered, at });
        } else if !recovered {
            self.queue.push(Queued::Gap(at));
        }
        if let Some(since) = since {
            let first = answer.first.max(since.offset + 1);
            let kept = (first..=answer.last).filter(|offset| answer.hole != Some(*offset));
            self.queue.extend(kept.map(|offset| Queued::Message {
                at: Position { offset, ..at },
                recovered: true,
            }));
        }
        self.at = Some(at);
        self.stage = Stage::Open;
        (self.asked, self.answer_due) = (false, false);
        (self.lost, self.heard) = (false, false);
        for frame in std::mem::take(&mut self.buffer) {
            self.receive(frame, delivers, room, rules);
        }
        told
    }

    /// The read is given up. What could not be had is a gap, where it is known what follows; where it
    /// is not, the subscription goes on waiting.
    pub(super) fn give_up(&mut self, delivers: bool, room: usize, rules: &StreamRules) {
        let Some(at) = self.at else { return };
        if self.lost && rules.give_up_holes_only {
            return self.wait();
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        if rules.give_up_compares {
            buffer.retain(|frame| !frame.is_of_epoch(at) || frame.offset > at.offset);
        }
        let foreign = |first: &Position| rules.give_up_in_epoch && !first.is_of_epoch(at);
        let Some(first) = buffer.first().copied().filter(|first| !foreign(first)) else {
            self.wait();
            return;
        };
        let follows = at.is_of_epoch(first) && first.offset == at.offset + 1;
        if !(follows && rules.give_up_compares) {
            let before = Position {
                offset: first.offset - 1,
                ..first
            };
            self.queue.push(Queued::Gap(before));
            self.at = Some(before);
        }
        self.stage = Stage::Open;
        (self.lost, self.heard) = (false, false);
        for frame in buffer {
            self.receive(frame, delivers, room, rules);
        }
    }

    /// True when the first in its queue is a publication.
    pub(super) fn is_message_next(&self) -> bool {
        matches!(self.queue.first(), Some(Queued::Message { .. }))
    }

    /// True when it is a recovered one.
    pub(super) fn is_recovered_next(&self) -> bool {
        let next = self.queue.first();
        matches!(
            next,
            Some(Queued::Message {
                recovered: true,
                ..
            })
        )
    }

    /// What is queued leaves the queue.
    pub(super) fn forget_messages(&mut self) {
        self.queue
            .retain(|queued| matches!(queued, Queued::Answer { .. }));
    }
}

impl Client {
    /// It reads a frame.
    pub(super) fn read(&mut self, frame: Queued, faults: &mut Faults) {
        match frame {
            Queued::Answer { recovered, at } => {
                self.answered = true;
                if !recovered {
                    self.at = Some(at);
                }
            }
            Queued::Message { at, .. } => {
                faults.before_answer |= !self.answered;
                let follows = self.at.is_some_and(|has| has.next() == at);
                faults.out_of_order |= self.answered && !follows;
                self.at = Some(at);
            }
            Queued::Gap(at) => {
                let has_it = |has: Position| {
                    (has.epoch, has.line) == (at.epoch, at.line) && at.offset <= has.offset
                };
                let has = [self.at, self.before];
                faults.false_gap |= has.into_iter().flatten().any(has_it);
                if self.at.is_some_and(|has| !has.is_of_epoch(at)) {
                    self.before = self.at;
                }
                self.at = Some(at);
            }
        }
    }
}
