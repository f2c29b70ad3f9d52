//! The times when a traced publication is written to the sockets of a node.

use std::sync::Arc;
use std::time::SystemTime;

use curfew_model::TraceContext;
use parking_lot::Mutex;

use super::span::{self, Span, SpanKind};
use super::{Recorder, Tracer};

/// The name of the span.
const SPAN: &str = "write";

/// The writes of one publication on one node. All who may write it hold it; when the last lets go of
/// it, a span says when the first and the last of them wrote.
#[derive(Debug)]
pub struct Writes {
    recorder: Arc<Recorder>,
    parent: TraceContext,
    state: Mutex<WriteState>,
}

#[derive(Debug, Default)]
struct WriteState {
    queued: usize,
    written: usize,
    /// The first and the last.
    at: Option<(SystemTime, SystemTime)>,
}

impl Tracer {
    /// Follows the writes of a publication whose span on this node is `parent`, if that is recorded.
    pub fn writes(&self, parent: &Span) -> Option<Arc<Writes>> {
        let recorder = Arc::clone(self.0.as_ref()?);
        Some(Arc::new(Writes {
            recorder,
            parent: *parent.context()?,
            state: Mutex::default(),
        }))
    }
}

impl Writes {
    /// The span that they are a part of.
    pub fn context(&self) -> &TraceContext {
        &self.parent
    }

    /// It is queued for so many sessions.
    pub fn queued(&self, sessions: usize) {
        self.state.lock().queued = sessions;
    }

    /// A session's socket has it, as of now.
    pub fn note(&self) {
        let now = span::now();
        let mut state = self.state.lock();
        state.written += 1;
        let first = state.at.map_or(now, |(first, _)| first);
        state.at = Some((first, now));
    }
}

impl Drop for Writes {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        if state.queued == 0 {
            return;
        }
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let parent = Some((self.parent.clone(), false));
        let mut span = Span::begin(&self.recorder, SPAN.into(), SpanKind::Internal, parent);
        // If no socket took it, the span is of the moment when that was clear.
        if let Some((first, last)) = state.at {
            span.began(first);
            span.ended(last);
        }
        span.set("curfew.write.queued", count(state.queued));
        span.set("curfew.write.sessions", count(state.written));
    }
}
