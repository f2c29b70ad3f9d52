//! A client that reconnects with its last position.

use std::time::{Duration, Instant};

use curfew_tests::{Attempt, Gateway, Tape};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::book::{Book, Place, place};
use super::{RECOVERY, Trial};

#[derive(Debug)]
pub(super) struct Client {
    trial: Trial,
    user: String,
    place: Option<Place>,
    tape: Option<Tape>,
    /// Number of subscriptions that were answered with `recovered`.
    pub(super) recoveries: usize,
}

impl Client {
    pub(super) fn new(trial: Trial, number: usize) -> Self {
        Self {
            trial,
            user: format!("user-{number}"),
            place: None,
            tape: None,
            recoveries: 0,
        }
    }

    /// Subscribes at a node from the last position. If the node refuses because of a fault, the
    /// client stays disconnected.
    pub(super) async fn join(&mut self, node: &Gateway) {
        let Attempt::Open(client) = node.attempt(&self.user).await else {
            return;
        };
        let tape = Tape::of(*client);
        let mut command = json!({"type":"subscribe","id":"join","channel":self.trial.channel});
        if let Some((epoch, offset)) = &self.place {
            command["since"] = json!({"epoch":epoch,"offset":offset});
        }
        tape.send(command);
        self.tape = Some(tape);
    }

    /// Disconnects, and checks all frames that the client received since it joined.
    pub(super) fn leave(&mut self, book: &mut Book) {
        let Some(tape) = self.tape.take() else { return };
        let since = self.place.clone();
        let mut at: Option<Place> = None;
        let seen = tape.seen();
        for frame in seen.iter().map(|seen| &seen.frame) {
            let before = || {
                at.clone()
                    .unwrap_or_else(|| panic!("a frame came before the answer: {seen:?}"))
            };
            match frame["type"].as_str() {
                Some("ok") => {
                    assert!(
                        at.is_none(),
                        "the subscription was answered twice: {seen:?}"
                    );
                    at = Some(self.answered(frame, since.clone()));
                }
                Some("message") => {
                    let (epoch, reached) = before();
                    let next = reached + 1;
                    let offset = frame["offset"].as_i64();
                    let user = &self.user;
                    assert_eq!(
                        offset,
                        Some(next),
                        "{user} missed a publication or received one twice: {seen:?}"
                    );
                    book.note((epoch.clone(), next), &frame["data"]);
                    at = Some((epoch, next));
                }
                Some("gap") => {
                    assert!(
                        self.trial.has_faults(),
                        "a gap came without a fault: {seen:?}"
                    );
                    let (epoch, reached) = before();
                    let told = place(frame);
                    let is_one = epoch != told.0 || reached < told.1;
                    assert!(is_one, "a gap came, although nothing was missed: {seen:?}");
                    at = Some(told);
                }
                _ => {}
            }
        }
        // If no answer came, the position has not changed.
        self.place = at.or(since);
    }

    /// The position before the first frame that follows the answer to the subscription.
    fn answered(&mut self, answer: &Value, since: Option<Place>) -> Place {
        let told = place(answer);
        let (Some(since), Some(recovered)) = (&since, answer["recovered"].as_bool()) else {
            assert!(since.is_none(), "{answer}");
            assert!(answer.get("recovered").is_none(), "{answer}");
            return told;
        };
        let missed = told.1 - since.1;
        if recovered {
            // The missed publications follow the answer.
            assert_eq!(since.0, told.0, "the answer recovers from another epoch");
            assert!(missed >= 0, "{since:?} {told:?}");
            self.recoveries += 1;
            return since.clone();
        }
        let is_needless = since.0 == told.0 && missed <= self.trial.size.into();
        assert!(
            self.trial.has_faults() || !is_needless,
            "the position {since:?} could be recovered: {answer}"
        );
        told
    }

    /// Waits until the client has received the last publication or its position. A client that was
    /// refused or disconnected subscribes again.
    pub(super) async fn until_current(&mut self, node: &Gateway, end: &Value, book: &Mutex<Book>) {
        let by = Instant::now() + RECOVERY;
        loop {
            let has = |expect: Value| {
                let tape = self.tape.as_ref();
                tape.is_some_and(|tape| !tape.matching(&expect).is_empty())
            };
            let is_at =
                |kind: &str| has(json!({"type":kind,"epoch":end["epoch"],"offset":end["offset"]}));
            // If the answer has `recovered`, the last publication follows it.
            if has(json!({"data":"the end"})) || is_at("gap") || is_at("ok") {
                return;
            }
            let is_lost = self.tape.as_ref().is_none_or(Tape::is_closed);
            if is_lost || has(json!({"type":"error"})) {
                self.leave(&mut book.lock());
                self.join(node).await;
            }
            assert!(
                Instant::now() < by,
                "{} is not current: {:?}",
                self.user,
                self.tape.as_ref().map(Tape::seen)
            );
            sleep(Duration::from_millis(20)).await;
        }
    }
}
