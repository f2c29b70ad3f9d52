//! Properties of streams that must hold in every state or in at least one state.

use stateright::Property;

use super::model::Streams;
use super::state::{StreamEvents, StreamState};
use super::subscription::{Queued, Stage};

/// Every property that a search of `streams` has. The name of a property begins with its number in
/// the specification.
pub(super) fn all(streams: &Streams) -> Vec<Property<Streams>> {
    let mut properties = vec![
        Property::always(
            "ST1: a message directly follows the client's position, or a gap comes before it",
            |_, state: &StreamState| !state.faults.out_of_order,
        ),
        Property::always(
            "ST1g: a gap is sent only if publications are missing",
            |_, state: &StreamState| !state.faults.false_gap,
        ),
        Property::always(
            "ST1q: if nothing is on its way, an open subscription has every publication",
            |streams: &Streams, state: &StreamState| {
                let mut subscriptions = state.node.subscriptions.iter();
                !subscriptions
                    .any(|subscription| state.is_left_behind(subscription, &streams.rules))
            },
        ),
        Property::always(
            "ST1w: a read without other events opens the subscription that waited for it",
            |_, state: &StreamState| !state.faults.stuck,
        ),
        Property::always(
            "ST2: the answer has recovered:true only if no publication is missing",
            |_, state: &StreamState| !state.faults.missing,
        ),
        Property::always(
            "ST2f: the answer has recovered:false only if a publication is missing",
            |_, state: &StreamState| !state.faults.given_up,
        ),
        Property::always(
            "ST2d: no publication is recovered whose deletion was reported to the node",
            |_, state: &StreamState| !state.faults.deleted,
        ),
        Property::always(
            "ST4: no frame is written to a session that has lost access",
            |_, state: &StreamState| !state.faults.without_access,
        ),
        Property::always(
            "ST5: the answer never has recovered:true across a loss of data",
            |_, state: &StreamState| !state.faults.across_loss,
        ),
        Property::always(
            "ST7: the answer comes before the first message",
            |_, state: &StreamState| !state.faults.before_answer,
        ),
        Property::sometimes("a client is current", |_, state: &StreamState| {
            let top = state.truth().map(|stream| (stream.epoch, stream.top));
            let mut subscriptions = state.node.subscriptions.iter();
            top.is_some_and(|(_, top)| top > 1)
                && subscriptions.any(|subscription| {
                    let at = subscription.client.at.map(|at| (at.epoch, at.offset));
                    subscription.stage == Stage::Open && at == top
                })
        }),
    ];
    if streams.bounds.access_may_end() {
        properties.extend(of_access());
    }
    if streams.bounds.window > 0 {
        properties.push(Property::sometimes(
            "the window serves a position before its top",
            |streams: &Streams, state: &StreamState| {
                let mut subscriptions = state.node.subscriptions.iter();
                subscriptions.any(|subscription| {
                    let served = state.node.serves(subscription, &streams.rules);
                    let since = subscription.at.map(|at| at.offset);
                    let before = served.is_some_and(|answer| since < Some(answer.top.offset));
                    subscription.stage == Stage::Waiting && since.is_some() && before
                })
            },
        ));
    }
    properties.extend(of_events(&streams.bounds.events));
    properties
}

fn of_access() -> Vec<Property<Streams>> {
    vec![
        Property::sometimes(
            "a recovered message waits in a queue",
            |_, state: &StreamState| {
                let is_it = |queued: &Queued| {
                    matches!(
                        queued,
                        Queued::Message {
                            recovered: true,
                            ..
                        }
                    )
                };
                let mut subscriptions = state.node.subscriptions.iter();
                subscriptions.any(|subscription| subscription.queue.iter().any(is_it))
            },
        ),
        Property::sometimes(
            "a client has everything after access has ended",
            |_, state: &StreamState| {
                let mut subscriptions = state.node.subscriptions.iter();
                subscriptions.any(|subscription| {
                    let ended = subscription.revoked || state.node.denies;
                    ended && subscription.client.at.is_some_and(|at| at.offset > 1)
                })
            },
        ),
    ]
}

fn of_events(events: &StreamEvents) -> Vec<Property<Streams>> {
    let mut properties = Vec::new();
    if events.wipes + events.failovers > 0 {
        properties.push(Property::sometimes(
            "a client continues in a new epoch",
            |_, state: &StreamState| {
                let mut subscriptions = state.node.subscriptions.iter();
                subscriptions.any(|subscription| {
                    let at = subscription.client.at;
                    at.is_some_and(|at| at.epoch > 1 && at.offset > 0)
                })
            },
        ));
    }
    properties
}
