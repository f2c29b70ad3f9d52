//! Frames of a client, with the time each frame came.

use std::sync::Arc;
use std::time::{Duration, Instant};

use curfew_testkit::{Incoming, PATIENCE, WsClient, json, opcode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Time a recording waits for a frame before it looks for something to send.
const TURN: Duration = Duration::from_millis(5);

/// `backend.lease`, as it is by default: nothing is delivered this long after a revocation.
pub const LEASE: Duration = Duration::from_secs(3);

/// Time that a busy machine may add between the node's write and the client's read.
const SLACK: Duration = Duration::from_millis(300);

/// Commands that may wait to be sent.
const QUEUE: usize = 1024;

/// Pings that may be answered `unavailable` before one must not be: ten seconds' worth at least.
const MOST_PINGS: u32 = 200;

/// A frame that came, and when.
#[derive(Debug, Clone)]
pub struct TapedFrame {
    /// Time at which it was read.
    pub at: Instant,
    /// The text frame; for a close frame `{"close":code}`, for the end of the stream `{"end":true}`.
    pub frame: Value,
}

/// A client whose frames are recorded as they come, while the test does something else.
#[derive(Debug)]
pub struct Tape {
    seen: Arc<Mutex<Vec<TapedFrame>>>,
    outgoing: mpsc::Sender<String>,
    // Ends the recording when it is dropped.
    _recording: JoinSet<()>,
}

impl Tape {
    /// Records what `client` receives from now on. Pings are answered.
    pub fn of(client: WsClient) -> Self {
        let seen = Arc::default();
        let (outgoing, wanted) = mpsc::channel(QUEUE);
        let mut recording = JoinSet::new();
        recording.spawn(record(client, Arc::clone(&seen), wanted));
        Self {
            seen,
            outgoing,
            _recording: recording,
        }
    }

    /// Sends a JSON text.
    pub fn send(&self, value: Value) {
        // A recording that has ended shows the end of the stream, which tells more than a panic
        // here; a client that cannot send loses what it would have said.
        drop(self.outgoing.try_send(value.to_string()));
    }

    /// Everything so far.
    pub fn seen(&self) -> Vec<TapedFrame> {
        self.seen.lock().clone()
    }

    /// The frames so far that have at least the members of `expect`.
    pub fn matching(&self, expect: &Value) -> Vec<TapedFrame> {
        let seen = self.seen.lock();
        seen.iter()
            .filter(|seen| json::contains(expect, &seen.frame))
            .cloned()
            .collect()
    }

    /// The publications so far.
    pub fn messages(&self) -> Vec<TapedFrame> {
        self.matching(&json!({"type":"message"}))
    }

    /// Time of the last publication.
    pub fn last_message(&self) -> Option<Instant> {
        self.messages().last().map(|seen| seen.at)
    }

    /// Waits for a frame with at least the members of `expect`.
    pub async fn until(&self, expect: Value) -> TapedFrame {
        self.until_within(PATIENCE, expect).await
    }

    /// Waits at most so long for a frame with at least the members of `expect`.
    pub async fn until_within(&self, patience: Duration, expect: Value) -> TapedFrame {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(found) = self.matching(&expect).into_iter().next() {
                return found;
            }
            assert!(
                Instant::now() < deadline,
                "no {expect} in {patience:?}; the last frames: {:?}",
                self.seen().iter().rev().take(5).collect::<Vec<_>>()
            );
            sleep(TURN).await;
        }
    }

    /// Waits for a publication that is read after `since`.
    pub async fn message_after(&self, patience: Duration, since: Instant) -> TapedFrame {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(found) = self.messages().into_iter().find(|seen| seen.at > since) {
                return found;
            }
            assert!(
                Instant::now() < deadline,
                "no publication in {patience:?}; the last frames: {:?}",
                self.seen().iter().rev().take(5).collect::<Vec<_>>()
            );
            sleep(TURN).await;
        }
    }

    /// Waits for the close of a revoked session, after which nothing may come; when it was announced.
    pub async fn revoked(&self) -> Instant {
        self.closed_with(4403, "revoked").await
    }

    /// Waits for a close with its announcement; when that came.
    pub async fn closed_with(&self, code: u16, reason: &str) -> Instant {
        let closing = self
            .until_within(PATIENCE * 3, json!({"type":"closing"}))
            .await;
        assert_eq!(closing.frame["code"], code, "{}", closing.frame);
        assert_eq!(closing.frame["reason"], reason, "{}", closing.frame);
        self.until(json!({ "close": code })).await;
        let seen = self.seen();
        let behind = seen
            .iter()
            .skip_while(|seen| seen.frame["type"] != "closing")
            .skip(1)
            .any(|seen| !seen.frame["type"].is_null());
        assert!(!behind, "a frame after the announcement: {seen:?}");
        closing.at
    }

    /// Fails if a publication came later than the lease after a revocation that was written at
    /// `written`.
    pub fn assert_revoked_within_the_lease(&self, written: Instant, what: &str) {
        let Some(last) = self.last_message() else {
            return;
        };
        let late = last.saturating_duration_since(written);
        assert!(
            late <= LEASE + SLACK,
            "{what}: a message {late:?} after the revocation"
        );
    }

    /// Sends a command and waits for its answer, an error included.
    pub async fn ask(&self, id: &str, mut command: Value) -> Value {
        command["id"] = id.into();
        self.send(command);
        self.until(json!({ "id": id })).await.frame
    }

    /// Fails unless the session is open, and answers as soon as its node holds its lease.
    pub async fn assert_open(&self, id: &str) {
        for attempt in 0.. {
            let answer = self
                .ask(&format!("{id}-{attempt}"), json!({"type":"ping"}))
                .await;
            if answer["type"] == "pong" {
                return;
            }
            assert_eq!(answer["code"], "unavailable", "{answer}");
            assert!(attempt < MOST_PINGS, "still unavailable");
            sleep(TURN * 10).await;
        }
    }

    /// True if the connection has ended, or its end has been announced.
    pub fn is_closed(&self) -> bool {
        let seen = self.seen.lock();
        seen.iter().any(|seen| {
            let frame = &seen.frame;
            frame["type"] == "closing" || !frame["close"].is_null() || !frame["end"].is_null()
        })
    }
}

async fn record(
    mut client: WsClient,
    seen: Arc<Mutex<Vec<TapedFrame>>>,
    mut wanted: mpsc::Receiver<String>,
) {
    let note = |frame: Value| {
        seen.lock().push(TapedFrame {
            at: Instant::now(),
            frame,
        });
    };
    loop {
        while let Ok(text) = wanted.try_recv() {
            client.send_text(&text).await;
        }
        match client.incoming(TURN).await {
            Incoming::Frame(frame) => match frame.opcode {
                opcode::TEXT => note(serde_json::from_str(frame.text()).expect("frames are JSON")),
                opcode::CLOSE => note(json!({"close":frame.close().0})),
                _ => {}
            },
            Incoming::Silence => {}
            Incoming::End | Incoming::Cut(_) => return note(json!({"end":true})),
        }
    }
}
