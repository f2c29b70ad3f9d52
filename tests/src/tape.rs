//! Frames of a client, with the time at which each frame was read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use curfew_testkit::{Incoming, PATIENCE, WsClient, json, opcode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Time for which the recording task waits for a frame before it sends queued commands.
const TURN: Duration = Duration::from_millis(5);

/// The default of `backend.lease`. Once this time has passed after a revocation, nothing is
/// delivered.
pub const LEASE: Duration = Duration::from_secs(3);

/// Time that a busy machine may add between the node's write and the client's read.
const SLACK: Duration = Duration::from_millis(300);

/// Maximum number of commands that wait to be sent.
const QUEUE: usize = 1024;

/// Maximum number of pings that may be answered by `unavailable` before a test fails. This number
/// of pings takes at least ten seconds.
const MOST_PINGS: u32 = 200;

/// A received frame with its time.
#[derive(Debug, Clone)]
pub struct TapedFrame {
    /// Time at which the frame was read.
    pub at: Instant,
    /// The text frame. A close frame is recorded as `{"close":code}`, the end of the stream as
    /// `{"end":true}`.
    pub frame: Value,
}

/// A client whose frames are recorded as they arrive, while the test does something else.
#[derive(Debug)]
pub struct Tape {
    seen: Arc<Mutex<Vec<TapedFrame>>>,
    outgoing: mpsc::Sender<String>,
    // Dropping this set ends the recording.
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
        // If the recording has ended, the message is lost. The test then finds the recorded end of
        // the stream, which is a better report than a panic here.
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

    /// Waits at most `patience` for a frame with at least the members of `expect`.
    pub async fn until_within(&self, patience: Duration, expect: Value) -> TapedFrame {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(found) = self.matching(&expect).into_iter().next() {
                return found;
            }
            assert!(
                Instant::now() < deadline,
                "no frame with {expect} arrived in {patience:?}; the last frames: {:?}",
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
                "no publication arrived in {patience:?}; the last frames: {:?}",
                self.seen().iter().rev().take(5).collect::<Vec<_>>()
            );
            sleep(TURN).await;
        }
    }

    /// Waits for the `closing` message and the close of a revoked session. No other text frame may
    /// follow the `closing` message. Returns the time of that message.
    pub async fn revoked(&self) -> Instant {
        self.closed_with(4403, "revoked").await
    }

    /// Waits for a `closing` message with this code and reason, and for the close that follows it.
    /// Returns the time of the `closing` message.
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
        assert!(
            !behind,
            "a frame follows the announcement of the close: {seen:?}"
        );
        closing.at
    }

    /// Fails if a publication arrived later than one lease after `written`, the time at which a
    /// revocation was written.
    pub fn assert_revoked_within_the_lease(&self, written: Instant, what: &str) {
        let Some(last) = self.last_message() else {
            return;
        };
        let late = last.saturating_duration_since(written);
        assert!(
            late <= LEASE + SLACK,
            "{what}: a message arrived {late:?} after the revocation"
        );
    }

    /// Sends a command and waits for its answer, which may be an error.
    pub async fn ask(&self, id: &str, mut command: Value) -> Value {
        command["id"] = id.into();
        self.send(command);
        self.until(json!({ "id": id })).await.frame
    }

    /// Fails unless the session is open and answers a ping. Repeats the ping while the node lacks
    /// its lease.
    pub async fn assert_open(&self, id: &str) {
        for attempt in 0.. {
            let answer = self
                .ask(&format!("{id}-{attempt}"), json!({"type":"ping"}))
                .await;
            if answer["type"] == "pong" {
                return;
            }
            assert_eq!(answer["code"], "unavailable", "{answer}");
            assert!(attempt < MOST_PINGS, "the node is still unavailable");
            sleep(TURN * 10).await;
        }
    }

    /// True if the connection has ended, or a frame has announced the end.
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
