//! Tools for the tests of the gateway.
//!
//! Owns: a raw WebSocket client, HTTP requests byte by byte, a mint for good and bad tokens, a
//! clock that tests set, and the runner of transcripts.
//! Knows nothing of: the gateway's own WebSocket code. The client has its own parser of frames,
//! because shared code would hide the gateway's mistakes.
//! Start at [`Connect`] and [`WsClient`]; [`mint`] makes the tokens, [`transcript`] replays files.
//!
//! A function that expects something of the gateway panics if the expectation is not met, and the
//! message shows the received value. The panic fails the test.

mod client;
mod clock;
mod connect;
mod frame;
pub mod http;
pub mod json;
pub mod mint;
mod stream;
pub mod transcript;

pub use client::{Incoming, WsClient};
pub use clock::{ManualClock, unix_now};
pub use connect::{Connect, RefusedUpgrade};
pub use frame::{Frame, OutFrame, opcode};
pub use stream::{Stream, trusting};

use std::time::Duration;

/// Longest wait of a test for an expected event. It is long, because the machine may be busy. A
/// test that passes waits only until the event arrives.
pub const PATIENCE: Duration = Duration::from_secs(10);
