//! Random walks through the model. Each walk has the log that its node would write.

use stateright::Model;

use super::super::{Summary, Violation, check};
use crate::actions::Action;
use crate::message::{Message, Reply, Request};
use crate::model::Protocol;
use crate::node::{Next, Node, Phase};
use crate::rules::Rules;
use crate::runs::{self, Searched};
use crate::session::{Session, Stage};
use crate::state::{Bounds, Events, Extras, Start, State};

/// Number of steps of a walk.
const LENGTH: usize = 700;

/// Average number of steps between two steps in which an event may happen to the node.
const EVENTS: usize = 10;

/// Number of walks under each allowed set of rules.
const ALLOWED_WALKS: usize = 20;

/// Number of walks with changing settings under each allowed set of rules.
const ALLOWED_RELOADS: usize = 8;

/// Maximum number of walks among which the checker must refuse one if a rule is missing.
const WALKS: usize = 3000;

/// A fixed sequence of pseudo-random numbers (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).expect("a remainder below `end` fits into a usize")
    }
}

/// A walk: its protocol, the state that it has reached, and its log.
struct Walk {
    protocol: Protocol,
    state: State,
    log: Vec<String>,
}

impl Walk {
    fn new(rules: Rules, reload: bool) -> Self {
        let quiet = Events {
            revocations: 3,
            lifts: 2,
            cuts: 1,
            ..Events::default()
        };
        // A set-up compares sessions too. If there were many set-ups, a reload would never have to
        // compare the sessions itself.
        let events = if reload {
            quiet
        } else {
            Events {
                failovers: 1,
                wipes: 2,
                restarts: 2,
                stale_restarts: 1,
                cuts: 4,
                ..quiet
            }
        };
        let protocol = Protocol {
            rules,
            bounds: Bounds {
                nodes: 1,
                events,
                generations: 100,
                start: Start::New,
                extras: Extras {
                    reload,
                    ..Extras::default()
                },
            },
            asked: None,
        };
        let state = protocol.init_states().remove(0);
        Self {
            protocol,
            state,
            log: Vec::new(),
        }
    }

    fn node(&self) -> &Node {
        &self.state.nodes[0].node
    }

    fn write(&mut self, step: &str, fields: &str) {
        let generation = self.node().generation;
        self.log.push(format!(
            r#"{{"message":"protocol","step":"{step}","generation":{generation}{fields}}}"#
        ));
    }

    /// Takes a random step, or no step. Returns `false` if the walk ends.
    fn step(&mut self, dice: &mut Dice) -> bool {
        let mut actions = Vec::new();
        self.protocol.actions(&self.state, &mut actions);
        // Ticks are left out, because they add nothing to a log. Events that happen to the node are
        // rare.
        let is_event = |action: &Action| {
            use Action::{
                Cut, Failover, FlushAll, Lift, Reload, RestartEmpty, RestartStale, Revoke,
            };
            matches!(
                action,
                Cut(_)
                    | FlushAll
                    | Failover
                    | Lift
                    | Reload(_)
                    | RestartEmpty
                    | RestartStale
                    | Revoke
            )
        };
        let eventful = dice.below(EVENTS) == 0;
        actions.retain(|action| *action != Action::Tick && (eventful || !is_event(action)));
        if actions.is_empty() {
            return true;
        }
        let action = actions[dice.below(actions.len())];
        let Some(next) = self.protocol.next_state(&self.state, action) else {
            return true;
        };
        let before = std::mem::replace(&mut self.state, next);
        let (was, is) = (&before.nodes[0], &mut self.state.nodes[0]);
        let mut forgot_push = false;
        if is.node.session.stage == Stage::Closed {
            // A real node has more sessions, for which it would send the request that is due. The
            // walk has no other session, so it ends.
            forgot_push = was.node.get_due && action != Action::Ask(0);
            is.node.session = Session::absent();
        }
        let went_down = was.connection.is_some() && is.connection.is_none();
        match (action, &was.connection) {
            (Action::Connect(0), _) => self.write("connect", ""),
            (Action::Index(0), _) => self.write("index", ""),
            (Action::Receive(0), Some(connection)) => {
                let (message, primary) = (connection.unread[0], connection.primary);
                let was = was.node.clone();
                self.received(&was, message);
                let mut knowing = Node {
                    seen: true,
                    ..was.clone()
                };
                let next = knowing.receive(message, primary, &[], &self.protocol.rules);
                let due = next == Next::Send(Request::Reassert) && !was.restarting;
                if due && !was.seen {
                    self.write("reassert", "");
                }
            }
            _ => {}
        }
        if went_down {
            self.write("down", "");
        }
        went_down || !forgot_push
    }

    fn received(&mut self, was: &Node, message: Message) {
        match message {
            Message::Push => {
                let keys = u8::from(self.node().get_due);
                self.write("push", &format!(r#","keys":{keys}"#));
            }
            Message::NullPush => self.write("null_push", ""),
            // The node closes the connection, so only `down` can follow in the log.
            Message::Refused(_) => {}
            Message::Reply(_) if was.restarting => {}
            Message::Reply(reply) => {
                self.replied(was, reply);
                if was.phase != Phase::Synced && self.node().phase == Phase::Synced {
                    self.write("synced", "");
                }
            }
        }
    }

    fn replied(&mut self, was: &Node, reply: Reply) {
        match reply {
            Reply::Tracking => self.write("track", ""),
            Reply::Epoch(found) => {
                let outcome = match (was.epoch, found) {
                    (None, None) => "first",
                    (None, Some(_)) => "same",
                    (remembered, found) if remembered == found => "same",
                    _ => "lost",
                };
                self.write("epoch", &format!(r#","outcome":"{outcome}""#));
            }
            Reply::FloorRaised(_) => self.write("floor", ""),
            Reply::EpochRenewed(_) => self.write("new_epoch", ""),
            Reply::Reasserted => self.write("reassert", ""),
            Reply::Reconciled { .. } => self.write("reconcile", ""),
            Reply::Written => self.write("heartbeat", ""),
            Reply::Passed => self.write("barrier", ""),
            Reply::Value { .. } => self.write("get", ""),
            Reply::Compared { .. } => self.write("compare", ""),
            Reply::Found { .. } => {
                let has_confirmed =
                    |node: &Node| node.reload.is_some_and(|reload| reload.confirmed);
                if has_confirmed(self.node()) && !has_confirmed(was) {
                    self.write("confirm", "");
                }
            }
        }
    }
}

/// Runs walks under these rules, and returns the checker's result for each log.
fn walks(rules: &Rules, reload: bool) -> impl Iterator<Item = Result<Summary, Violation>> {
    (1..).map(move |seed: u64| {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut walk = Walk::new(rules.clone(), reload);
        for _ in 0..LENGTH {
            if !walk.step(&mut dice) {
                break;
            }
        }
        check(walk.log.iter().map(String::as_str))
    })
}

#[test]
fn what_the_model_does_under_allowed_rules_is_allowed() {
    let mut total = Summary::default();
    for rules in Rules::allowed() {
        for result in walks(&rules, false)
            .take(ALLOWED_WALKS)
            .chain(walks(&rules, true).take(ALLOWED_RELOADS))
        {
            let summary = result.unwrap_or_else(|violation| panic!("{rules:?}\n{violation}"));
            total.steps += summary.steps;
            total.synced += summary.synced;
            total.pushes += summary.pushes;
            total.null_pushes += summary.null_pushes;
            total.losses += summary.losses;
            total.reassertions += summary.reassertions;
            total.comparisons += summary.comparisons;
            total.confirmations += summary.confirmations;
        }
    }
    let rarest = [
        total.synced,
        total.pushes,
        total.null_pushes,
        total.losses,
        total.reassertions,
        total.comparisons,
        total.confirmations,
    ];
    assert!(rarest.iter().all(|count| *count > 100), "{total:?}");
}

#[test]
fn what_it_does_without_a_rule_is_not() {
    let runs = runs::all();
    for id in [
        "M2", "M5", "M9", "M11", "M13", "M13a", "M14", "M17", "M18", "M31", "M32", "M35", "V1",
    ] {
        let run = runs.iter().find(|run| run.id == id).expect(id);
        let Searched::Protocol(protocol) = &run.searched else {
            panic!("{id} is not a search of the revocation protocol");
        };
        let reload = protocol.bounds.extras.reload;
        let mut walks = walks(&protocol.rules, reload).take(WALKS);
        let refused = walks.any(|result| result.is_err());
        assert!(refused, "the checker refuses no walk of {id}");
    }
}
