//! The node's work with its link, its window, its reads and its subscriptions.

use super::rules::StreamRules;
use super::server::{Answer, Link, Push};
use super::state::{ChannelNode, Read, StreamBounds, StreamState};
use super::subscription::{Stage, Subscription};
use super::window::Window;

impl ChannelNode {
    /// True if a session subscribes to the channel.
    pub(super) fn is_wanted(&self) -> bool {
        let mut subscriptions = self.subscriptions.iter();
        subscriptions.any(|subscription| matches!(subscription.stage, Stage::Waiting | Stage::Open))
    }

    /// True if the node has a link, and has read the confirmation that it listens. The node does
    /// not know of a break of this link.
    pub(super) fn listens(&self) -> bool {
        self.link.as_ref().is_some_and(Link::is_confirmed)
    }

    /// True if the node may send a read, because a subscription waits for one.
    pub(super) fn may_read(&self, rules: &StreamRules) -> bool {
        let waits = |subscription: &Subscription| {
            subscription.stage == Stage::Waiting && !subscription.asked
        };
        let listens = self.listens() || !rules.listen_first;
        self.read.is_none() && listens && self.subscriptions.iter().any(waits)
    }

    /// The window's answer for a subscription; `None` if only Redis can answer.
    pub(super) fn serves(
        &self,
        subscription: &Subscription,
        rules: &StreamRules,
    ) -> Option<Answer> {
        let window = self.window.as_ref()?;
        window.serve(subscription.at, rules)
    }

    /// True if the node can now read the push that revokes the first session.
    pub(super) fn may_find_revoked(&self, state: &StreamState) -> bool {
        let found = self.subscriptions.iter().any(|first| first.revoked);
        state.revoked_for.is_some() && self.primary == state.current && !found
    }

    /// True if the first frame in a subscription's queue may be written.
    pub(super) fn may_write(&self, subscription: &Subscription, rules: &StreamRules) -> bool {
        let recovered = subscription.is_recovered_next();
        let leased = self.lease > 0 || recovered && !rules.lease_at_write;
        let access = leased && !subscription.revoked;
        let asked = subscription.is_message_next() && (rules.gate_at_write || !recovered);
        !subscription.queue.is_empty() && (access || !asked)
    }

    /// Begins to listen to the channel at the server of the node's generation.
    pub(super) fn listen(&mut self) {
        self.link = Some(Link::new(self.primary));
    }

    /// Handles the loss of the link.
    pub(super) fn lose_link(&mut self, rules: &StreamRules) {
        self.link = None;
        if rules.empty_on_link_loss {
            self.window = None;
        }
        self.start_over(rules.wait_after_link_loss, rules);
    }

    /// Reads a null push.
    pub(super) fn null_push(&mut self, rules: &StreamRules) {
        if rules.empty_on_generation {
            self.window = None;
        }
        if rules.heed_null_push {
            self.start_over(true, rules);
        }
    }

    /// Drops the window for lack of memory.
    pub(super) fn evict(&mut self, rules: &StreamRules) {
        self.window = None;
        if rules.fill_after_eviction
            && let Some(read) = &mut self.read
        {
            read.valid = false;
        }
    }

    /// Handles the report that the history was deleted. Open subscriptions keep their queued
    /// publications.
    fn forget(&mut self, rules: &StreamRules) {
        if rules.empty_on_deletion {
            self.window = None;
        }
        if rules.void_on_deletion {
            if let Some(read) = &mut self.read {
                read.valid = false;
            }
            let waiting = |subscription: &&mut Subscription| subscription.stage == Stage::Waiting;
            let subscriptions = self.subscriptions.iter_mut().filter(waiting);
            subscriptions.for_each(Subscription::wait);
        }
    }

    /// Voids the read under way. Waiting subscriptions wait for a new read (SR10). If `open_wait`
    /// is true, open subscriptions wait for it too.
    fn start_over(&mut self, open_wait: bool, rules: &StreamRules) {
        if let Some(read) = &mut self.read {
            read.valid = false;
        }
        for subscription in &mut self.subscriptions {
            let waits = match subscription.stage {
                Stage::Waiting => rules.void_reads,
                _ => open_wait,
            };
            if waits {
                subscription.wait();
                subscription.lost = subscription.stage == Stage::Waiting;
            }
        }
    }

    /// Handles the revocation of the first session: ends its subscription.
    pub(super) fn find_revoked(&mut self, rules: &StreamRules) {
        let Some(first) = self.subscriptions.first_mut() else {
            return;
        };
        first.revoked = true;
        first.end();
        if rules.gate_at_write {
            first.queue.clear();
        }
    }

    /// Puts a policy in force that allows no session to subscribe.
    pub(super) fn reload(&mut self, rules: &StreamRules) {
        self.denies = true;
        for subscription in &mut self.subscriptions {
            let passed_by = subscription.answer_due && !rules.reconsider_waiting;
            if passed_by || subscription.stage == Stage::Absent {
                continue;
            }
            subscription.end();
            if rules.reconsider_queued {
                subscription.forget_messages();
            }
        }
    }

    /// Sends a read for all waiting subscriptions.
    pub(super) fn send_read(&mut self, rules: &StreamRules) {
        self.read = Some(Read {
            server: self.primary,
            replid: self.replid,
            behind: false,
            valid: self.listens(),
            entries: None,
            answer: None,
        });
        for subscription in &mut self.subscriptions {
            if subscription.stage == Stage::Waiting {
                subscription.ask(rules);
            }
        }
    }
}

impl StreamState {
    /// Handles a new generation: the control connection has reached the new primary.
    pub(super) fn regenerate(&mut self, rules: &StreamRules) {
        let node = &mut self.node;
        node.primary = self.current;
        node.null_push_due = false;
        if rules.replid_of_primary {
            node.replid = self.servers[self.current].replid;
        }
        if rules.empty_on_generation {
            node.window = None;
        }
        if rules.relink {
            node.link = None;
        }
        node.start_over(true, rules);
    }

    /// Reads the link's next message.
    pub(super) fn receive(&mut self, bounds: &StreamBounds, rules: &StreamRules) -> Option<()> {
        let node = &mut self.node;
        let link = node.link.as_mut()?;
        match link.queue.remove(0) {
            Push::Confirmed => link.confirmed = true,
            Push::Deleted(at) => {
                self.deleted = Some(at);
                node.forget(rules);
            }
            Push::Frame(frame) => {
                Window::receive(&mut node.window, frame, bounds.window, rules);
                let delivers = node.lease > 0;
                for subscription in &mut node.subscriptions {
                    subscription.receive(frame, delivers, bounds.buffer, rules);
                }
            }
        }
        Some(())
    }

    /// Lets the server execute the read or, without SR3, the first half of the read.
    pub(super) fn execute(&mut self, rules: &StreamRules) -> Option<()> {
        let read = self.node.read.as_mut()?;
        let server = &mut self.servers[read.server];
        let answer = server.read(read.replid, &mut self.epochs, rules);
        if rules.read_at_once {
            read.answer = Some(answer);
        } else {
            read.entries = Some(answer);
        }
        Some(())
    }

    /// Lets the server execute the second half of the read.
    pub(super) fn execute_top(&mut self, rules: &StreamRules) -> Option<()> {
        let read = self.node.read.as_mut()?;
        let entries = read.entries.take()?;
        let server = &mut self.servers[read.server];
        let answer = server.read(read.replid, &mut self.epochs, rules);
        read.answer = Some(Answer {
            top: answer.top,
            ..entries
        });
        Some(())
    }

    /// Handles the answer to the read under way.
    pub(super) fn answer(&mut self, bounds: &StreamBounds, rules: &StreamRules) -> Option<()> {
        let read = self.node.read.take()?;
        let answer = read.answer?;
        if read.valid || !rules.fill_by_valid_reads {
            let read = (answer, read.behind);
            Window::fill(&mut self.node.window, read, bounds.window, rules);
        }
        for session in 0..bounds.sessions {
            let subscription = &mut self.node.subscriptions[session];
            if std::mem::take(&mut subscription.asked) && subscription.stage == Stage::Waiting {
                self.open(session, answer, bounds, rules);
            }
        }
        Some(())
    }

    /// Gives up the read under way, because its answer takes too long.
    pub(super) fn give_up(&mut self, bounds: &StreamBounds, rules: &StreamRules) {
        self.happened.timeouts += 1;
        self.node.read = None;
        let delivers = self.node.lease > 0;
        for subscription in &mut self.node.subscriptions {
            if !std::mem::take(&mut subscription.asked) || subscription.stage != Stage::Waiting {
                continue;
            }
            if !subscription.answer_due {
                subscription.give_up(delivers, bounds.buffer, rules);
            }
        }
    }

    /// Opens the subscription of a session with an answer from a read or from the window. Records
    /// the faults in this step.
    pub(super) fn open(
        &mut self,
        session: usize,
        answer: Answer,
        bounds: &StreamBounds,
        rules: &StreamRules,
    ) {
        let mut faults = self.faults;
        let before = self.node.subscriptions[session].clone();
        let receives = (self.node.lease > 0, bounds.buffer);
        let subscription = &mut self.node.subscriptions[session];
        let told = subscription.open(answer, receives, rules);
        faults.stuck |= !before.heard && subscription.stage == Stage::Waiting;
        if let (Some(recovered), Some(since)) = (told, before.at) {
            faults.missing |= recovered && self.is_missing(&before, since, answer);
            faults.across_loss |= recovered && self.is_across_loss(since);
            faults.deleted |= recovered && self.is_deleted(since, answer);
            faults.given_up |= !recovered && self.is_recoverable(since);
        }
        self.faults = faults;
    }

    /// Unsubscribes a session. It may subscribe again.
    pub(super) fn unsubscribe(&mut self, session: usize, rules: &StreamRules) {
        self.happened.returns += 1;
        let subscription = &mut self.node.subscriptions[session];
        *subscription = Subscription {
            asked: subscription.asked && !rules.read_of_incarnation,
            revoked: subscription.revoked,
            ..Subscription::absent()
        };
    }

    /// Writes the first frame in a session's queue.
    pub(super) fn write(&mut self, session: usize, rules: &StreamRules) -> Option<()> {
        let node = &self.node;
        let subscription = &node.subscriptions[session];
        node.may_write(subscription, rules).then_some(())?;
        let is_late = self
            .revoked_for
            .is_some_and(|age| age >= crate::node::LEASE);
        let has_lost = node.denies || subscription.revoked || session == 0 && is_late;
        self.faults.without_access |= subscription.is_message_next() && has_lost;
        let subscription = &mut self.node.subscriptions[session];
        let frame = subscription.queue.remove(0);
        subscription.client.read(frame, &mut self.faults);
        Some(())
    }
}
