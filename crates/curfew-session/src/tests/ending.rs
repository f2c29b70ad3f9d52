//! The end of a session whose client does not read.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as TaskContext, Poll};

use curfew_model::RevocationKey;
use curfew_ws::Pipe;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::time::Instant;

use super::*;

/// A pipe that revokes alice's tokens during the next write for which the pipe has no room.
#[derive(Debug)]
struct RevokingPipe {
    inner: DuplexStream,
    rig: Arc<Rig>,
    is_armed: Arc<AtomicBool>,
}

impl Pipe for RevokingPipe {}

impl AsyncRead for RevokingPipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl AsyncWrite for RevokingPipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        if written.is_pending() && self.is_armed.swap(false, Ordering::Relaxed) {
            self.rig.revoke(RevocationKey::user("alice"));
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Regression: a session that was revoked during its last write noticed the revocation only when
/// the close timed out.
#[tokio::test(start_paused = true)]
async fn a_session_revoked_during_its_last_write_leaves_at_once() {
    let harness = Harness::new();
    let is_armed = Arc::new(AtomicBool::new(false));
    let (ours, theirs) = tokio::io::duplex(256);
    let pipe = RevokingPipe {
        inner: ours,
        rig: Arc::clone(&harness.rig),
        is_armed: Arc::clone(&is_armed),
    };
    let opening = Opening::Admitted(harness.admit(json!({})).await);
    harness.serve(Transport::Memory(Box::new(pipe)), opening, &[]);
    let mut peer = Peer::new(theirs);
    peer.expect("connected").await;
    let _peer = fill(&harness, peer).await;
    is_armed.store(true, Ordering::Relaxed);
    let began = Instant::now();
    for member in harness.hub().members() {
        let ending = curfew_hub::Ending::new(Disconnect::DRAINING);
        harness.hub().end(&member, ending);
    }
    while harness.hub().count() > 0 {
        time::sleep(Duration::from_millis(1)).await;
    }
    assert!(
        !is_armed.load(Ordering::Relaxed),
        "the last write never found the pipe full"
    );
    let timeout = SessionConfig::default().close_timeout;
    assert!(began.elapsed() < timeout / 2, "{:?}", began.elapsed());
}
