//! Serves HTTP/1.1 on one connection of either listener. Heads of requests are bounded, bytes that
//! are not a request get an answer, and a connection is closed in a way that lets the peer read its
//! answer.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use curfew_ws::{DeferSwitch, DeferredResponse};
use http::Request;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1::{Builder, Parts};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::head::{Bounds, HeadEnd};
use super::{Problem, Response};

/// The time that a peer has to read its answer. After the answer it has the same time again to
/// close the connection.
const LINGER: Duration = Duration::from_secs(1);

/// Maximum number of bytes that [`part`] reads from the peer and discards while it closes a
/// connection.
const LINGER_BYTES: usize = 1024 * 1024;

/// The time that a turned-away peer has for its TLS handshake, and again for the head of its
/// request.
const TURN_AWAY: Duration = Duration::from_secs(2);

/// Maximum number of peers without TLS that are turned away at a time after their request was read.
/// A further peer is answered at once, and its request is not read.
const TURNED_AWAY: usize = 1024;

/// Maximum number of peers that are turned away over TLS at a time. The number is small, because an
/// answer over TLS costs a handshake. A further peer is disconnected without an answer.
const TURNED_AWAY_OVER_TLS: usize = 64;

/// The future of an answer to a request.
pub(crate) type Answering = Pin<Box<dyn Future<Output = Response> + Send>>;

/// A connection that hyper no longer serves.
pub(crate) struct Ended<S> {
    pub(crate) stream: DeferredResponse<S>,
    /// Bytes that hyper read but did not use.
    pub(crate) read: Bytes,
    pub(crate) result: hyper::Result<()>,
}

/// Answers one request after another, until an answer or the peer ends the connection. `may_stop`
/// is called when `stop` is cancelled. If it returns true, the connection ends after the current
/// request. Bytes that are not a request are answered by hyper itself. [`Ended::stream`] holds this
/// answer back, so that the caller can send another answer instead.
pub(crate) async fn serve<S>(
    stream: S,
    ahead: Bytes,
    switch: DeferSwitch,
    bounds: Bounds,
    head_timeout: Duration,
    answer: impl Fn(Request<Incoming>) -> Answering + Unpin,
    (stop, may_stop): (CancellationToken, impl Fn() -> bool),
) -> Ended<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    switch.defer();
    let stream = DeferredResponse::new(stream, ahead, switch.clone());
    let service = service_fn(move |request| {
        switch.pass();
        let answering = answer(request);
        let switch = switch.clone();
        // The future is boxed, because hyper gives a connection back only if the future is `Unpin`.
        Box::pin(async move {
            let response = answering.await;
            Ok::<_, Infallible>(response.map(|body| Whole { body, switch }))
        })
    });
    let mut connection = Builder::new()
        // Without a timer, hyper silently ignores the timeout of the head.
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_headers(bounds.headers)
        .max_header_size(bounds.bytes)
        // With one byte more than the limit, hyper can detect that a head exceeds the limit.
        .max_buf_size(bounds.bytes + 1)
        .serve_connection(TokioIo::new(stream), service);
    let result = tokio::select! {
        result = poll_fn(|cx| connection.poll_without_shutdown(cx)) => result,
        () = stop.cancelled() => {
            if may_stop() {
                Pin::new(&mut connection).graceful_shutdown();
            }
            poll_fn(|cx| connection.poll_without_shutdown(cx)).await
        }
    };
    let Parts { io, read_buf, .. } = connection.into_parts();
    Ended {
        stream: io.into_inner(),
        read: read_buf,
        result,
    }
}

/// The body of an answer. hyper drops this value when it has taken the whole answer. After the next
/// flush, the connection then holds writes back again.
struct Whole {
    body: Full<Bytes>,
    switch: DeferSwitch,
}

impl Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        self.switch.defer_once_flushed();
    }
}

/// Sends `problem` as the answer to bytes that are not a request, and ends the connection.
pub(crate) async fn answer_and_part(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    problem: &Problem,
) {
    let answered = async {
        stream.write_all(&problem.to_bytes()).await?;
        stream.flush().await
    };
    match time::timeout(LINGER, answered).await {
        Ok(Ok(())) => part(stream).await,
        Ok(Err(error)) => debug!(error = %error, "connection lost before its answer"),
        Err(_) => debug!("peer did not read its answer in time"),
    }
}

/// Ends a connection after its last answer. Bytes that the peer still sends are read and discarded,
/// up to [`LINGER_BYTES`] and for [`LINGER`]. If the socket were closed with unread bytes, the
/// connection would be reset, and the peer could lose the answer.
pub(crate) async fn part(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let parting = async {
        stream.shutdown().await?;
        let mut passed_over = 0;
        let mut buffer = [0; 1024];
        while passed_over < LINGER_BYTES {
            match stream.read(&mut buffer).await? {
                0 => break,
                read => passed_over += read,
            }
        }
        io::Result::Ok(())
    };
    if let Ok(Err(error)) = time::timeout(LINGER, parting).await {
        debug!(error = %error, "connection lost while it was closed");
    }
}

/// Answers and ends connections that are turned away, such as connections that exceed a limit.
#[derive(Debug)]
pub(crate) struct Porter {
    plain: Arc<Semaphore>,
    tls: Arc<Semaphore>,
}

impl Porter {
    pub(crate) fn new() -> Self {
        Self {
            plain: Arc::new(Semaphore::new(TURNED_AWAY)),
            tls: Arc::new(Semaphore::new(TURNED_AWAY_OVER_TLS)),
        }
    }

    /// Answers a connection with `problem` and ends it, after the TLS handshake if `tls` is given.
    /// The head of the request is read first and discarded, because many clients read an answer
    /// only after they have sent their request.
    pub(crate) fn turn_away(
        &self,
        mut stream: TcpStream,
        tls: Option<TlsAcceptor>,
        problem: Problem,
        bounds: Bounds,
    ) -> impl Future<Output = ()> + Send + 'static {
        let places = if tls.is_some() {
            &self.tls
        } else {
            &self.plain
        };
        let place = Arc::clone(places).try_acquire_owned();
        async move {
            match (place, tls) {
                (Ok(_place), None) => hear_out_and_answer(&mut stream, &problem, bounds).await,
                (Ok(_place), Some(tls)) => match time::timeout(TURN_AWAY, tls.accept(stream)).await
                {
                    Ok(Ok(mut stream)) => hear_out_and_answer(&mut stream, &problem, bounds).await,
                    Ok(Err(error)) => {
                        debug!(error = %error, "TLS handshake of a turned-away connection failed");
                    }
                    Err(_) => debug!("TLS handshake of a turned-away connection took too long"),
                },
                (Err(_), None) => {
                    if let Err(error) = stream.try_write(&problem.to_bytes()) {
                        debug!(error = %error, "turned-away connection lost before its answer");
                    }
                }
                (Err(_), Some(_)) => {
                    debug!("turned-away connection closed before its TLS handshake")
                }
            }
        }
    }
}

/// Reads the head of a request for at most [`TURN_AWAY`], answers with `problem`, and ends the
/// connection.
async fn hear_out_and_answer(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    problem: &Problem,
    bounds: Bounds,
) {
    match time::timeout(TURN_AWAY, pass_over_head(stream, bounds)).await {
        Ok(Ok(())) | Err(_) => answer_and_part(stream, problem).await,
        Ok(Err(error)) => debug!(error = %error, "turned-away connection lost"),
    }
}

/// Reads until the head of a request has ended or exceeds `bounds`, or until the peer sends nothing
/// more.
async fn pass_over_head(stream: &mut (impl AsyncRead + Unpin), bounds: Bounds) -> io::Result<()> {
    let mut end = HeadEnd::default();
    loop {
        let (read, ended) = poll_fn(|context| {
            curfew_ws::with_read_buffer(|buffer| {
                let mut buffer = ReadBuf::new(buffer);
                ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer))?;
                let read = buffer.filled();
                Poll::Ready(io::Result::Ok((read.len(), end.find(read).is_some())))
            })
        })
        .await?;
        if read == 0 || ended || end.seen() > bounds.bytes {
            return Ok(());
        }
    }
}

/// A stream with a deadline for writes. The deadline begins at the first write that has to wait,
/// and ends when all written bytes are flushed.
#[derive(Debug)]
pub(crate) struct Timely<S> {
    stream: S,
    within: Duration,
    deadline: Option<Pin<Box<time::Sleep>>>,
}

impl<S> Timely<S> {
    pub(crate) fn new(stream: S, within: Duration) -> Self {
        Self {
            stream,
            within,
            deadline: None,
        }
    }

    fn in_time<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            return polled;
        }
        let within = self.within;
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::pin(time::sleep(within)));
        match deadline.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timely<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timely<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.in_time(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.in_time(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        let polled = self.in_time(cx, polled);
        if polled.is_ready() {
            // hyper flushes only after it has written all its bytes, so no write is waiting now.
            self.deadline = None;
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
