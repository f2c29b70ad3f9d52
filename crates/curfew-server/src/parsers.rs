//! What reads bytes of strangers, public so that it can be fuzzed.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use curfew_ws::{Handshake, HandshakeError, Hold, handshake};
use http::{Request, StatusCode};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;

use crate::exchange::{self, Ended};
use crate::head::{Bounds, HeadFault};
use crate::respond::Problem;
use crate::routes::close;

pub use crate::proxies::forwarded::{addresses, nodes};
pub use crate::proxies::protocol::{Header, Unparsed, parse};

/// Longer than any head takes that is all there.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// What a listener makes of the first bytes of a connection.
#[derive(Debug, Default)]
pub struct Heard {
    /// The first request, without its body.
    pub request: Option<Request<()>>,
    /// What that request is as an upgrade.
    pub handshake: Option<Result<Handshake, HandshakeError>>,
    /// Behind the head of a request that is an upgrade.
    pub early: Bytes,
    /// The answer to what is no request: its status, and its code.
    pub refused: Option<(StatusCode, &'static str)>,
}

/// Reads the head of a request as both listeners do, from bytes that come in `pieces` and then end.
/// The bounds are `limits.head_bytes`, 8 KiB at least, and `limits.headers`. Must be called within a
/// runtime with time.
pub async fn head(pieces: Vec<Bytes>, bytes: usize, headers: usize) -> Heard {
    let bounds = Bounds { bytes, headers };
    let heard = Arc::new(Mutex::new(Heard::default()));
    let hold = Hold::default();
    let answer = |mut request: Request<hyper::body::Incoming>| {
        let mut heard = heard.lock();
        let checked = handshake::check(&request);
        let upgrades = checked
            .is_ok()
            .then(|| curfew_ws::accept(&mut request, None));
        let (parts, _) = request.into_parts();
        heard.request = Some(Request::from_parts(parts, ()));
        heard.handshake = Some(checked);
        let response = match upgrades {
            Some(Ok(response)) => {
                hold.hold();
                response.map(|_| Default::default())
            }
            _ => close(Problem::bad_request("it is no upgrade").into_response()),
        };
        Box::pin(std::future::ready(response)) as _
    };
    let Ended {
        stream,
        read,
        result,
    } = exchange::serve(
        Given(pieces.into()),
        Bytes::new(),
        hold.clone(),
        bounds,
        HEAD_TIMEOUT,
        answer,
        (CancellationToken::new(), || false),
    )
    .await;
    let mut heard = std::mem::take(&mut *heard.lock());
    match &result {
        Ok(()) if matches!(heard.handshake, Some(Ok(_))) => {
            let mut early = BytesMut::from(&read[..]);
            for piece in stream.into_inner().0 {
                early.extend_from_slice(&piece);
            }
            heard.early = early.freeze();
        }
        Ok(()) => {}
        Err(error) => {
            let problem = HeadFault::of(error, &read, bounds).map(|fault| fault.problem(bounds));
            heard.refused = problem.map(|problem| (problem.status(), problem.code));
        }
    }
    heard
}

/// A connection of which all bytes are known, and whose answers nobody reads.
#[derive(Debug)]
struct Given(VecDeque<Bytes>);

impl AsyncRead for Given {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(mut piece) = self.0.pop_front() {
            let fits = piece.len().min(buffer.remaining());
            buffer.put_slice(&piece.split_to(fits));
            if !piece.is_empty() {
                self.0.push_front(piece);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Given {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
