//! The comparison of every session with Redis while the lease is held. A change of settings starts
//! the comparison, because the change may give the sessions other keys.

use curfew_model::SessionId;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::reconcile::CHUNK;
use super::{Control, Generation, read};
use crate::fault::Fault;

/// The state of the comparison. It survives a lost connection: the next setup compares every
/// session, and then answers the waiting tasks.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// The sessions yet to be compared.
    left: Vec<SessionId>,
    /// The tasks that wait for the end of the comparison.
    waiting: Vec<oneshot::Sender<()>>,
    /// True if the last step was a chunk of the comparison.
    had_its_turn: bool,
}

impl Comparison {
    /// Adds a task that waits until every session registered now has been compared.
    pub(super) fn wait(&mut self, reply: oneshot::Sender<()>) {
        self.waiting.retain(|waiting| !waiting.is_closed());
        self.waiting.push(reply);
    }

    /// True if the next step is to compare a chunk: sessions are left, and the last step was of
    /// another kind.
    pub(super) fn is_its_turn(&mut self) -> bool {
        self.had_its_turn = !self.left.is_empty() && !self.had_its_turn;
        self.had_its_turn
    }

    /// True if sessions are yet to be compared.
    pub(super) fn is_under_way(&self) -> bool {
        !self.left.is_empty()
    }

    /// Ends the comparison, and answers the tasks that wait for it.
    pub(super) fn is_done(&mut self) {
        self.left = Vec::new();
        for waiting in self.waiting.drain(..) {
            // The send fails if a later reload has dropped the receiver.
            waiting.send(()).ok();
        }
    }
}

impl Control {
    /// Begins to compare every session, including opening sessions. The new comparison replaces an
    /// unfinished comparison. The tasks that wait for the unfinished comparison then wait for the
    /// new comparison.
    pub(super) fn start_comparison(
        &mut self,
        generation: &mut Generation,
        reply: oneshot::Sender<()>,
    ) {
        self.step("index").log();
        self.comparison.wait(reply);
        self.comparison.left = self.core.local.sessions();
        // The sweep under way is dropped, because the comparison reads the same sessions.
        generation.sweep = Vec::new();
        if self.comparison.left.is_empty() {
            self.end_comparison();
        }
    }

    fn end_comparison(&mut self) {
        self.step("compare").log();
        self.comparison.is_done();
    }

    /// Compares one chunk. A session that is ended here is not counted in
    /// `curfew_revocation_missed_push_total`, because no push could find the session by the keys
    /// that it had before the settings changed.
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
        // The chunk is logged as a sweep, because the model has no separate step for a chunk of the
        // comparison.
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
