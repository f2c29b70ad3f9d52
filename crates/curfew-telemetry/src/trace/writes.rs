//! The span of the writes by which a traced publication reaches the sockets of a node.

use std::sync::Arc;
use std::time::SystemTime;

use curfew_model::TraceContext;
use parking_lot::Mutex;

use super::span::{self, Span, SpanKind};
use super::{Recorder, Tracer};

/// The name of the span that [`Writes`] records.
const SPAN: &str = "write";

/// The writes of one publication on one node. Each session that may write the publication holds a
/// reference. When the last reference is dropped, a span is recorded that lasts from the first
/// write to the last.
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
    /// The times of the first and the last write.
    at: Option<(SystemTime, SystemTime)>,
}

impl Tracer {
    /// Returns the value in which sessions note their writes of a publication. `parent` is the span
    /// of the publication on this node. The result is `None` if `parent` is not recorded.
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
    /// Returns the trace context of the publication's span.
    pub fn context(&self) -> &TraceContext {
        &self.parent
    }

    /// Sets the number of sessions for which the publication is queued.
    pub fn queued(&self, sessions: usize) {
        self.state.lock().queued = sessions;
    }

    /// Records that a session's socket has accepted the publication now.
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
        // No session has queued the publication, so there is no write to record.
        if state.queued == 0 {
            return;
        }
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let parent = Some((self.parent.clone(), false));
        let mut span = Span::begin(&self.recorder, SPAN.into(), SpanKind::Internal, parent);
        // If no session has written the publication, the span has no duration: it begins and ends
        // now.
        if let Some((first, last)) = state.at {
            span.began(first);
            span.ended(last);
        }
        span.set("curfew.write.queued", count(state.queued));
        span.set("curfew.write.sessions", count(state.written));
    }
}
