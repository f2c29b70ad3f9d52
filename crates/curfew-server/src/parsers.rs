//! The parsers of untrusted bytes. They are public so that they can be fuzzed.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use curfew_ws::{DeferSwitch, Handshake, HandshakeError, handshake};
use http::{Request, StatusCode};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;

use crate::http::exchange::{self, Ended};
use crate::http::head::{Bounds, HeadFault};
use crate::http::{Problem, close};

pub use crate::listeners::proxies::forwarded::{addresses, nodes};
pub use crate::listeners::proxies::protocol::{Header, Unparsed, parse};

/// The timeout for a head. It is never reached, because all bytes are available at once.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// The result of [`head`].
#[derive(Debug, Default)]
pub struct Heard {
    /// The first request, without its body.
    pub request: Option<Request<()>>,
    /// The result of checking `request` as an upgrade.
    pub handshake: Option<Result<Handshake, HandshakeError>>,
    /// The bytes after the head of `request`, if it is an upgrade.
    pub early: Bytes,
    /// The status and the code of the answer to bytes that are not a request.
    pub refused: Option<(StatusCode, &'static str)>,
}

/// Reads the head of a request from `sent`, as both listeners do. Each read yields at most
/// `at_once` bytes, which must not be 0. `bytes` is the value of `limits.head_bytes` and must be at
/// least 8 KiB. `headers` is the value of `limits.headers`. Must be called within a tokio runtime
/// whose timer is enabled.
pub async fn head(sent: Bytes, at_once: usize, (bytes, headers): (usize, usize)) -> Heard {
    let bounds = Bounds { bytes, headers };
    let heard = Arc::new(Mutex::new(Heard::default()));
    let switch = DeferSwitch::default();
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
                switch.defer();
                response.map(|_| Default::default())
            }
            _ => close(Problem::bad_request("the request is not an upgrade").into_response()),
        };
        Box::pin(std::future::ready(response)) as _
    };
    let Ended {
        stream,
        read,
        result,
    } = exchange::serve(
        Given { sent, at_once },
        Bytes::new(),
        switch.clone(),
        bounds,
        HEAD_TIMEOUT,
        answer,
        (CancellationToken::new(), || false),
    )
    .await;
    let mut heard = std::mem::take(&mut *heard.lock());
    match &result {
        Ok(()) if matches!(heard.handshake, Some(Ok(_))) => {
            heard.early = [read, stream.into_inner().sent].concat().into();
        }
        Ok(()) => {}
        Err(error) => {
            let problem = HeadFault::of(error, &read, bounds).map(|fault| fault.problem(bounds));
            heard.refused = problem.map(|problem| (problem.status(), problem.code));
        }
    }
    heard
}

/// A connection whose peer has sent all its bytes. Answers to the peer are discarded.
#[derive(Debug)]
struct Given {
    sent: Bytes,
    at_once: usize,
}

impl AsyncRead for Given {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let most = self.at_once.min(buffer.remaining());
        let length = self.sent.len().min(most);
        buffer.put_slice(&self.sent.split_to(length));
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
