//! Events that can happen to a stream and its readers, and their effects.

use super::rules::StreamRules;
use super::server::{Position, Push};
use super::state::{StreamBounds, StreamState};
use super::subscription::{Faults, Stage};

/// One step of the model. The number in a variant is the index of the session that the step
/// concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamAction {
    /// A server executes another node's publication.
    Publish,
    /// The old primary executes a publication after a failover.
    PublishAtOld,
    /// A publication is lost on a link that stays up.
    Lose,
    /// The link breaks, and everything on it is lost.
    Cut,
    /// `FLUSHALL` on the primary.
    FlushAll,
    /// The channel's history is deleted.
    Delete,
    /// The replica copies the primary's stream.
    Replicate,
    /// The replica is promoted.
    Failover,
    /// A tick of time passes.
    Tick,
    /// The first session is revoked.
    Revoke,
    /// The node reads the null push.
    NullPush,
    /// The node's control connection reaches the new primary.
    Regenerate,
    /// The node notices that the link is broken.
    Notice,
    /// The node begins to listen to the channel.
    Listen,
    /// The node reads the link's next message.
    Receive,
    /// A heartbeat renews the node's lease. The node has read all pushes that were sent before.
    Beat,
    /// The node reads the push that revokes the first session.
    Push,
    /// The node's new policy is in force.
    Reload,
    /// The node sends a read for all waiting subscriptions.
    Send,
    /// The server executes the read.
    Execute,
    /// The server executes the second half of the read, which reads the top; only without SR3.
    ExecuteTop,
    /// A replica executes the read; only without SR17.
    ExecuteAtReplica,
    /// The node reads the answer.
    Answer,
    /// The node gives up the read, because its answer takes too long.
    GiveUp,
    /// The node drops its window for lack of memory.
    Evict,
    /// A client subscribes with a position up to which it has every publication, or without a
    /// position.
    Subscribe(usize, Option<Position>),
    /// The client unsubscribes.
    Unsubscribe(usize),
    /// The window serves the subscription.
    Serve(usize),
    /// The channel has received nothing for a while, so the node compares its position with Redis.
    CompareIdle(usize),
    /// The first frame in the session's queue is written.
    Write(usize),
}

/// Adds every action that is possible in `state`.
pub(super) fn enabled(
    state: &StreamState,
    bounds: &StreamBounds,
    rules: &StreamRules,
    actions: &mut Vec<StreamAction>,
) {
    if state.faults != Faults::default() {
        // A fault has been found, so later states add nothing.
        return;
    }
    let (happened, most) = (&state.happened, &bounds.events);
    let [primary, replica] = &state.servers;
    let node = &state.node;
    let link = node.link.as_ref();
    let failed_over = state.current == 1;
    let frame_comes = link.is_some_and(|link| matches!(link.queue.first(), Some(Push::Frame(_))));
    let may_publish = happened.publications < most.publications;
    let timed = most.revocations > 0;
    let shared = [
        (may_publish, StreamAction::Publish),
        (
            // The old primary publishes only if its history differs, because otherwise both servers
            // would continue the same history.
            may_publish && failed_over && primary.line != replica.line,
            StreamAction::PublishAtOld,
        ),
        (
            happened.losses < most.losses && frame_comes,
            StreamAction::Lose,
        ),
        (
            happened.cuts < most.cuts && link.is_some_and(|link| !link.broken),
            StreamAction::Cut,
        ),
        (happened.wipes < most.wipes, StreamAction::FlushAll),
        (happened.deletions < most.deletions, StreamAction::Delete),
        (
            most.failovers > 0 && !failed_over && primary.stream != replica.stream,
            StreamAction::Replicate,
        ),
        (happened.failovers < most.failovers, StreamAction::Failover),
        (timed, StreamAction::Tick),
        (
            happened.revocations < most.revocations,
            StreamAction::Revoke,
        ),
        (node.null_push_due, StreamAction::NullPush),
        (node.primary != state.current, StreamAction::Regenerate),
        (link.is_some_and(|link| link.broken), StreamAction::Notice),
        (link.is_none() && node.is_wanted(), StreamAction::Listen),
        (
            link.is_some_and(|link| !link.queue.is_empty()),
            StreamAction::Receive,
        ),
        (timed && node.primary == state.current, StreamAction::Beat),
        (node.may_find_revoked(state), StreamAction::Push),
        (happened.reloads < most.reloads, StreamAction::Reload),
        (node.may_read(rules), StreamAction::Send),
        (
            happened.evictions < most.evictions && node.window.is_some(),
            StreamAction::Evict,
        ),
    ];
    let on = shared.iter().filter(|(on, _)| *on);
    actions.extend(on.map(|(_, action)| *action));
    if let Some(read) = &node.read {
        let executed = read.answer.is_some();
        let of_read = [
            (!executed && read.entries.is_none(), StreamAction::Execute),
            (read.entries.is_some(), StreamAction::ExecuteTop),
            (
                !executed && !rules.read_primary && !failed_over && replica.stream.is_some(),
                StreamAction::ExecuteAtReplica,
            ),
            (executed, StreamAction::Answer),
            (happened.timeouts < most.timeouts, StreamAction::GiveUp),
        ];
        let on = of_read.iter().filter(|(on, _)| *on);
        actions.extend(on.map(|(_, action)| *action));
    }
    for session in 0..node.subscriptions.len() {
        enabled_for(session, state, bounds, rules, actions);
    }
}

fn enabled_for(
    session: usize,
    state: &StreamState,
    bounds: &StreamBounds,
    rules: &StreamRules,
    actions: &mut Vec<StreamAction>,
) {
    let node = &state.node;
    let subscription = &node.subscriptions[session];
    match subscription.stage {
        Stage::Absent if !node.denies && !subscription.revoked => {
            actions.push(StreamAction::Subscribe(session, None));
            let known = state.positions().into_iter();
            actions.extend(known.map(|at| StreamAction::Subscribe(session, Some(at))));
        }
        Stage::Waiting if node.serves(subscription, rules).is_some() => {
            actions.push(StreamAction::Serve(session));
        }
        Stage::Open if subscription.behind && node.listens() && rules.compare_idle => {
            actions.push(StreamAction::CompareIdle(session));
        }
        _ => {}
    }
    if matches!(subscription.stage, Stage::Waiting | Stage::Open)
        && state.happened.returns < bounds.events.returns
    {
        actions.push(StreamAction::Unsubscribe(session));
    }
    if node.may_write(subscription, rules) {
        actions.push(StreamAction::Write(session));
    }
}

/// The state after `action`; `None` if it changes nothing.
pub(super) fn apply(
    before: &StreamState,
    action: StreamAction,
    bounds: &StreamBounds,
    rules: &StreamRules,
) -> Option<StreamState> {
    let mut state = before.clone();
    match action {
        StreamAction::Publish => state.publish(state.current, bounds, rules),
        StreamAction::PublishAtOld => state.publish(0, bounds, rules),
        StreamAction::Lose => state.lose()?,
        StreamAction::Cut => {
            state.happened.cuts += 1;
            let link = state.node.link.as_mut()?;
            link.broken = true;
            link.queue.clear();
        }
        StreamAction::FlushAll => state.flush_all(),
        StreamAction::Delete => state.delete(rules),
        StreamAction::Replicate => state.servers[1].stream = state.servers[0].stream,
        StreamAction::Failover => state.fail_over(),
        StreamAction::Tick => state.tick(),
        StreamAction::Revoke => {
            state.happened.revocations += 1;
            state.revoked_for = Some(0);
        }
        StreamAction::NullPush => {
            state.node.null_push_due = false;
            state.node.null_push(rules);
        }
        StreamAction::Regenerate => state.regenerate(rules),
        StreamAction::Notice => state.node.lose_link(rules),
        StreamAction::Listen => state.node.listen(),
        StreamAction::Receive => state.receive(bounds, rules)?,
        StreamAction::Beat => {
            state.node.lease = crate::node::LEASE;
            if state.revoked_for.is_some() {
                state.node.find_revoked(rules);
            }
        }
        StreamAction::Push => state.node.find_revoked(rules),
        StreamAction::Reload => {
            state.happened.reloads += 1;
            state.node.reload(rules);
        }
        StreamAction::Send => state.node.send_read(rules),
        StreamAction::Execute => state.execute(rules)?,
        StreamAction::ExecuteTop => state.execute_top(rules)?,
        StreamAction::ExecuteAtReplica => {
            let answer = state.servers[1].answer();
            state.node.read.as_mut()?.answer = Some(answer);
        }
        StreamAction::Answer => state.answer(bounds, rules)?,
        StreamAction::GiveUp => state.give_up(bounds, rules),
        StreamAction::Evict => {
            state.happened.evictions += 1;
            state.node.evict(rules);
        }
        StreamAction::Subscribe(session, since) => {
            let joins = state.node.read.is_some() && !rules.share_only_earlier;
            state.node.subscriptions[session].begin(since, joins);
        }
        StreamAction::Unsubscribe(session) => state.unsubscribe(session, rules),
        StreamAction::Serve(session) => {
            let subscription = &state.node.subscriptions[session];
            let answer = state.node.serves(subscription, rules)?;
            let behind = state.node.window.is_some_and(|window| window.behind);
            state.node.subscriptions[session].behind |= behind;
            state.open(session, answer, bounds, rules);
        }
        StreamAction::CompareIdle(session) => state.node.subscriptions[session].wait(),
        StreamAction::Write(session) => state.write(session, rules)?,
    }
    if !bounds.access_may_end() {
        for session in 0..bounds.sessions {
            while !state.node.subscriptions[session].queue.is_empty() {
                state.write(session, rules)?;
            }
        }
    }
    Some(state)
}
