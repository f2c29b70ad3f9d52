//! Frames of a client, with the time at which each was read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use curfew_testkit::{Incoming, PATIENCE, WsClient, json, opcode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Time for which a recording waits for a frame before it sends queued commands.
const TURN: Duration = Duration::from_millis(5);

/// Default of `backend.lease`: this long after a revocation, nothing is delivered.
pub const LEASE: Duration = Duration::from_secs(3);

/// Time that a busy machine may add between the node's write and the client's read.
const SLACK: Duration = Duration::from_millis(300);

/// Limit on commands in the queue for sending.
const QUEUE: usize = 1024;

/// Limit on pings with the answer `unavailable` before a test fails: ten seconds' worth at least.
const MOST_PINGS: u32 = 200;

/// A received frame with its time.
#[derive(Debug, Clone)]
pub struct TapedFrame {
    /// Time at which it was read.
    pub at: Instant,
    /// The text frame. A close frame is `{"close":code}`, the end of the stream `{"end":true}`.
    pub frame: Value,
}

/// A client whose frames are recorded as they arrive, while the test does something else.
#[derive(Debug)]
pub struct Tape {
    seen: Arc<Mutex<Vec<TapedFrame>>>,
    outgoing: mpsc::Sender<String>,
    // Dropping this ends the recording.
    _recording: JoinSet<()>,
}

impl Tape {
    /// Starts to record the frames that `client` receives. Answers pings.
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
        // If the recording has ended, the test sees the end of the stream, which says more than a
        // panic here. If the client cannot send, the message is lost.
        drop(self.outgoing.try_send(value.to_string()));
    }

    /// Every frame so far.
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

    /// Waits for the close of a revoked session, after which no frame may come. Returns the time of
    /// its announcement.
    pub async fn revoked(&self) -> Instant {
        self.closed_with(4403, "revoked").await
    }

    /// Waits for an announced close. Returns the time of the announcement.
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

    /// Fails if a publication came later than a lease after a revocation that was written at
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

    /// Sends a command and waits for its answer, which may be an error.
    pub async fn ask(&self, id: &str, mut command: Value) -> Value {
        command["id"] = id.into();
        self.send(command);
        self.until(json!({ "id": id })).await.frame
    }

    /// Fails unless the session is open and answers as soon as its node holds its lease.
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

    /// True if the connection has ended, or a frame has announced its end.
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
