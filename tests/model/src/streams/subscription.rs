//! A session's subscription on a node, and the frames that its client has received.

use super::rules::StreamRules;
use super::server::{Answer, Position};

/// A subscription.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subscription {
    /// Stage of the subscription.
    pub stage: Stage,
    /// The client's position at first; later, the position of the last queued frame.
    pub at: Option<Position>,
    /// True until the answer to `subscribe` is queued.
    pub answer_due: bool,
    /// True if the read under way serves the subscription.
    pub asked: bool,
    /// True if the subscription waits because of a loss of the link or of data.
    pub lost: bool,
    /// True if a frame arrived on the link after the read under way was sent.
    pub heard: bool,
    /// The frames that arrived while the subscription waited.
    pub buffer: Vec<Position>,
    /// The frames queued for the client.
    pub queue: Vec<Queued>,
    /// True if the node has found that the session is revoked.
    pub revoked: bool,
    /// True if a frame for the subscription was lost on a link that stays up. The node does not
    /// know this.
    pub behind: bool,
    /// The client at the other end.
    pub client: Client,
}

/// The stage of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// The client has not subscribed.
    Absent,
    /// The subscription waits for a read, and buffers live frames.
    Waiting,
    /// Live frames are queued.
    Open,
    /// The subscription has ended.
    Ended,
}

/// A frame in a session's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Queued {
    /// The answer to `subscribe`.
    Answer {
        /// The answer's `recovered`.
        recovered: bool,
        /// The answer's position.
        at: Position,
    },
    /// A publication.
    Message {
        /// The publication's position.
        at: Position,
        /// True if the publication comes from a read or from the window.
        recovered: bool,
    },
    /// The publications before this position could not be recovered.
    Gap(Position),
}

/// A client that relies on the frames that it receives.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Client {
    /// True if the client has received the answer to `subscribe`.
    pub answered: bool,
    /// The position up to which the client has every publication.
    pub at: Option<Position>,
    /// The client's last position in the previous epoch.
    pub before: Option<Position>,
}

/// The faults so far. A fault is never reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Faults {
    /// ST1: a publication did not directly follow the client's position.
    pub out_of_order: bool,
    /// ST1: a gap was sent for publications that the client had.
    pub false_gap: bool,
    /// ST2: an answer had `recovered:true` although a publication is missing.
    pub missing: bool,
    /// ST2: an answer had `recovered:false` although the stream has every publication.
    pub given_up: bool,
    /// ST4: a publication was written although its session had lost access.
    pub without_access: bool,
    /// ST5: an answer had `recovered:true` although the node had been notified of a loss of data in
    /// between.
    pub across_loss: bool,
    /// SR22: a publication was recovered although the node was notified of its deletion.
    pub deleted: bool,
    /// ST7: a publication was written before the answer to `subscribe`.
    pub before_answer: bool,
    /// ST1: a read that no other event disturbed did not open the subscription that waited for it.
    pub stuck: bool,
}

impl Subscription {
    /// A subscription that the client has not asked for.
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

    /// Handles the `subscribe` of the client with the position `since`. If `joins` is true, the
    /// read under way serves the subscription too.
    pub(super) fn begin(&mut self, since: Option<Position>, joins: bool) {
        self.stage = Stage::Waiting;
        self.at = since;
        self.client.at = since;
        self.answer_due = true;
        self.asked |= joins;
    }

    /// Lets the subscription wait for a read that is not sent yet.
    pub(super) fn wait(&mut self) {
        if matches!(self.stage, Stage::Open | Stage::Waiting) {
            self.stage = Stage::Waiting;
            (self.asked, self.heard) = (false, false);
            self.buffer.clear();
        }
    }

    /// Records that the read that is sent now will serve the subscription.
    pub(super) fn ask(&mut self, rules: &StreamRules) {
        self.asked = true;
        (self.behind, self.heard) = (false, false);
        if rules.drop_covered {
            self.buffer.clear();
        }
    }

    /// Ends the subscription: nothing more is queued for it.
    pub(super) fn end(&mut self) {
        self.stage = Stage::Ended;
        (self.asked, self.answer_due) = (false, false);
        (self.lost, self.heard) = (false, false);
        self.buffer.clear();
        self.at = None;
    }

    /// Handles a frame on the link. `delivers` is false if the node has no lease; `room` is the
    /// capacity of the buffer.
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

    /// Opens the subscription with the answer of a read or of the window. One step queues the
    /// answer, the missed frames and the buffered frames, and opens the subscription. Returns the
    /// `recovered` of the answer to `subscribe` if that answer was due.
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

    /// Gives up the read. Missing frames become a gap if the frame after them is known; otherwise
    /// the subscription continues to wait.
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

    /// True if the first frame in the queue is a publication.
    pub(super) fn is_message_next(&self) -> bool {
        matches!(self.queue.first(), Some(Queued::Message { .. }))
    }

    /// True if the first frame in the queue is a recovered publication.
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

    /// Removes the queued messages.
    pub(super) fn forget_messages(&mut self) {
        self.queue
            .retain(|queued| matches!(queued, Queued::Answer { .. }));
    }
}

impl Client {
    /// Lets the client read a frame. Records the faults that the client can notice.
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
