//! Events at the servers and on the link, and comparisons of a node's answers with the stream.

use super::rules::StreamRules;
use super::server::{Answer, Position, Push, Stream};
use super::state::{StreamBounds, StreamState};
use super::subscription::{Stage, Subscription};
use crate::node::LEASE;

impl StreamState {
    /// Executes a publication.
    pub(super) fn publish(&mut self, server: usize, bounds: &StreamBounds, rules: &StreamRules) {
        self.happened.publications += 1;
        let frame = self.servers[server].publish(bounds.size, &mut self.epochs, rules);
        self.push(server, Push::Frame(frame));
    }

    /// Deletes the history. The same script reports the deletion on the link.
    pub(super) fn delete(&mut self, rules: &StreamRules) {
        self.happened.deletions += 1;
        let at = self.servers[self.current].delete(&mut self.epochs, rules);
        self.push(self.current, Push::Deleted(at));
    }

    fn push(&mut self, server: usize, push: Push) {
        if let Some(link) = &mut self.node.link
            && link.server == server
            && !link.broken
        {
            link.queue.push(push);
        }
    }

    /// Loses the link's next publication.
    pub(super) fn lose(&mut self) -> Option<()> {
        self.happened.losses += 1;
        let node = &mut self.node;
        node.link.as_mut()?.queue.remove(0);
        if let Some(window) = &mut node.window {
            window.behind = true;
        }
        if let Some(read) = &mut node.read {
            read.behind = true;
        }
        for subscription in &mut node.subscriptions {
            subscription.behind |= subscription.stage != Stage::Absent;
        }
        Some(())
    }

    /// Deletes the primary's data.
    pub(super) fn flush_all(&mut self) {
        self.happened.wipes += 1;
        self.lines += 1;
        let server = &mut self.servers[self.current];
        let known = |stream: &Stream| stream.replid == server.replid;
        if let Some(stream) = server.stream.take().filter(known) {
            self.gone = Some(Position {
                epoch: stream.epoch,
                offset: stream.top,
                line: server.line,
            });
        }
        server.line = self.lines;
        self.node.null_push_due |= self.node.primary == self.current;
    }

    /// Promotes the replica, which keeps its own data.
    pub(super) fn fail_over(&mut self) {
        self.happened.failovers += 1;
        let [primary, replica] = &mut self.servers;
        if replica.stream != primary.stream {
            self.lines += 1;
            replica.line = self.lines;
        }
        replica.replid = 2;
        self.current = 1;
    }

    /// Lets a tick pass.
    pub(super) fn tick(&mut self) {
        self.node.lease = self.node.lease.saturating_sub(1);
        self.revoked_for = self.revoked_for.map(|age| (age + 1).min(LEASE));
    }

    /// The primary's stream; `None` if the next script will begin another stream.
    pub(super) fn truth(&self) -> Option<Stream> {
        let server = &self.servers[self.current];
        let known = |stream: &Stream| stream.replid == server.replid;
        server.stream.filter(known)
    }

    /// True if a publication after `since` is neither in `answer` nor on its way.
    pub(super) fn is_missing(
        &self,
        subscription: &Subscription,
        since: Position,
        answer: Answer,
    ) -> bool {
        let has = |offset: u8| {
            (answer.first..=answer.last).contains(&offset) && answer.hole != Some(offset)
        };
        let mut missed = since.offset + 1..=answer.top.offset;
        let beyond = since.offset > answer.top.offset;
        beyond || !missed.all(has) || self.is_passed(subscription, answer)
    }

    /// True if a publication after the answer's top is neither on the link nor in the buffer of
    /// `subscription`. False if the node cannot know this yet.
    fn is_passed(&self, subscription: &Subscription, answer: Answer) -> bool {
        let server = &self.servers[self.current];
        let Some(stream) = self
            .truth()
            .filter(|stream| (stream.epoch, server.line) == (answer.top.epoch, answer.top.line))
        else {
            return false;
        };
        let link = self.node.link.as_ref();
        let may_be_lost = subscription.behind || link.is_some_and(|link| link.broken);
        if !self.is_told() || may_be_lost {
            return false;
        }
        let comes = |offset: u8| {
            let is_it = |frame: &Position| (frame.epoch, frame.offset) == (stream.epoch, offset);
            let is_push = |push: &Push| matches!(push, Push::Frame(frame) if is_it(frame));
            let on_link = link.is_some_and(|link| link.queue.iter().any(is_push));
            on_link || subscription.buffer.iter().any(is_it)
        };
        !(answer.top.offset + 1..=stream.top).all(comes)
    }

    /// True if the data of `since` is lost, and the node was notified of the loss.
    pub(super) fn is_across_loss(&self, since: Position) -> bool {
        self.is_told() && self.servers[self.current].line != since.line
    }

    /// True if `answer` gives a client at `since` a publication whose deletion was reported to the
    /// node.
    pub(super) fn is_deleted(&self, since: Position, answer: Answer) -> bool {
        self.deleted.is_some_and(|deleted| {
            let first = answer.first.max(since.offset + 1);
            let same = (deleted.epoch, deleted.line) == (answer.top.epoch, answer.top.line);
            same && first <= deleted.offset.min(answer.last)
        })
    }

    /// True if the stream still has all publications after `since`, and the node was notified of
    /// every loss of data.
    pub(super) fn is_recoverable(&self, since: Position) -> bool {
        let line = self.servers[self.current].line;
        self.is_told()
            && line == since.line
            && self.truth().is_some_and(|stream| {
                let kept = stream.first <= since.offset + 1 && since.offset <= stream.top;
                stream.epoch == since.epoch && kept
            })
    }

    /// True if a subscription is open and behind the stream, although nothing is in flight to it. A
    /// loss that the node cannot notice is excused if the node will compare the channel with Redis
    /// (SR20).
    pub(super) fn is_left_behind(&self, subscription: &Subscription, rules: &StreamRules) -> bool {
        let link = self.node.link.as_ref();
        let drained = link.is_some_and(super::server::Link::is_drained);
        let excused = subscription.behind && rules.compare_idle;
        let counts = subscription.stage == Stage::Open && !excused;
        let position = |at: Position| (at.epoch, at.offset);
        let has = match subscription.queue.is_empty() {
            true => subscription.client.at.map(position),
            false => subscription.at.map(position),
        };
        let top = self.truth().map(|stream| (stream.epoch, stream.top));
        counts && drained && self.is_told() && top.is_some() && has != top
    }
}
