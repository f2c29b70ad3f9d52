//! Comparing every session with Redis while the lease is held: the node's settings have changed,
//! and sessions are found by other keys than those they were compared by.

use curfew_model::SessionId;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::reconcile::CHUNK;
use super::{Control, Generation, read};
use crate::fault::Fault;

/// Sessions that are being compared, and who waits for that. It outlives the connection: what brings
/// the node back in touch compares every session.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    left: Vec<SessionId>,
    waiting: Vec<oneshot::Sender<()>>,
    had_its_turn: bool,
}

impl Comparison {
    /// Told once every session that is there now has been compared.
    pub(super) fn wait(&mut self, reply: oneshot::Sender<()>) {
        self.waiting.retain(|waiting| !waiting.is_closed());
        self.waiting.push(reply);
    }

    /// Whether there is something to do, and something else was done last.
    pub(super) fn is_its_turn(&mut self) -> bool {
        self.had_its_turn = !self.left.is_empty() && !self.had_its_turn;
        self.had_its_turn
    }

    pub(super) fn is_under_way(&self) -> bool {
        !self.left.is_empty()
    }

    /// Every session was compared.
    pub(super) fn is_done(&mut self) {
        self.left = Vec::new();
        for waiting in self.waiting.drain(..) {
            // Whoever asked may have been superseded.
            waiting.send(()).ok();
        }
    }
}

impl Control {
    /// Begins to compare every session, those that are opening included; with those that were left
    /// of a comparison before.
    pub(super) fn start_comparison(
        &mut self,
        generation: &mut Generation,
        reply: oneshot::Sender<()>,
    ) {
        self.step("index").log();
        self.comparison.wait(reply);
        self.comparison.left = self.core.local.sessions();
        // Twice would find the same.
        generation.sweep = Vec::new();
        if self.comparison.left.is_empty() {
            self.end_comparison();
        }
    }

    fn end_comparison(&mut self) {
        self.step("compare").log();
        self.comparison.is_done();
    }

    /// One chunk of the comparison. What it ends no push could have ended, so it counts as no push
    /// that was missed.
    pub(super) async fn compare(&mut self, generation: &mut Generation) -> Result<(), Fault> {
        let from = self.comparison.left.len().saturating_sub(CHUNK);
        let chunk = self.comparison.left.split_off(from);
        let keys = self.core.local.keys(&chunk);
        let began = Instant::now();
        let found = read::find(&mut generation.connection, &self.core.keys, &keys).await?;
        let mut ended = 0;
        for (written, known) in &found {
            let sessions = self.apply(&written.revoked(known), began);
            ended += sessions.count();
            if let Some(id) = known.id() {
                self.count_for(id, sessions);
            }
        }
        // Beside the protocol, as a chunk of the sweep is.
        self.step("sweep")
            .sessions(chunk.len())
            .revoked(ended)
            .log();
        self.note_found(generation, &found).await?;
        if !self.comparison.is_under_way() {
            self.end_comparison();
        }
        Ok(())
    }
}
