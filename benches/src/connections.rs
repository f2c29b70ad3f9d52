//! Many WebSockets that one thread drives. They share one `epoll` and one read buffer. No
//! connection has a task or a timer of its own.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::dialect::Dialect;
use crate::target::Target;
use crate::wire::{self, opcode};

/// Maximum number of connections from one source address. It is a third of the ports that a system
/// assigns by default. If more than half of these ports are used, finding a free port is slow.
const PER_SOURCE: usize = 10_000;

/// Size of one read, in bytes. It is large enough for the publications that wait for one subscriber
/// under full load.
const READ_BYTES: usize = 256 * 1024;

/// Maximum number of readiness events in one system call.
const EVENTS: usize = 1024;

/// Maximum size of a gateway's answer to an upgrade request, in bytes.
const MAX_ANSWER_BYTES: usize = 16 * 1024;

/// Size of the receive buffer of a subscriber that stopped reading, in bytes.
const PAUSED_RECEIVE_BYTES: usize = 4096;

/// The error code EINPROGRESS of Linux: the connection is still being made.
const IN_PROGRESS: i32 = 115;

/// Progress of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Waiting for TCP, with the request ready.
    Connecting,
    /// Waiting for the answer to the request.
    Upgrading,
    /// Waiting for `connected`.
    Opening,
    Open,
    Closed,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    dialect: Dialect,
    stage: Stage,
    /// The received part of an incomplete frame.
    partial: Vec<u8>,
    unsent: Vec<u8>,
    paused: bool,
}

/// An event on a connection.
#[derive(Debug)]
pub(crate) enum Happened<'a> {
    /// The connection is authenticated.
    Opened,
    /// A complete publication has arrived.
    Message(&'a [u8]),
    /// Another frame has arrived: a reply, or a push about the session itself.
    Other(&'a [u8]),
    /// The gateway refused the connection with this text.
    Refused(String),
    /// The connection has ended, with the close code if there was one.
    Closed(Option<u16>),
}

impl std::fmt::Display for Happened<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Message(frame) | Self::Other(frame) => {
                out.write_str(&String::from_utf8_lossy(frame))
            }
            other => write!(out, "{other:?}"),
        }
    }
}

/// The connections of a run. Indexes are assigned in the order in which connections are begun.
#[derive(Debug)]
pub(crate) struct Connections {
    /// The targets. Connection `slot` uses the target `slot % targets.len()`.
    targets: Vec<Target>,
    dialect: Dialect,
    poll: Poll,
    events: Events,
    all: Vec<Connection>,
    buffer: Vec<u8>,
}

impl Connections {
    pub(crate) fn new(
        targets: Vec<Target>,
        dialect: Dialect,
        capacity: usize,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            targets,
            dialect,
            poll: Poll::new().context("open epoll")?,
            events: Events::with_capacity(EVENTS),
            all: Vec::with_capacity(capacity),
            buffer: vec![0; READ_BYTES],
        })
    }

    pub(crate) fn dialect(&self) -> Dialect {
        self.dialect
    }

    pub(crate) fn count(&self) -> usize {
        self.all.len()
    }

    /// True if a connection is authenticated and has not ended.
    pub(crate) fn is_open(&self, slot: usize) -> bool {
        self.all[slot].stage == Stage::Open
    }

    /// Begins another connection, and returns its index. [`Happened::Opened`] or
    /// [`Happened::Refused`] reports the outcome.
    pub(crate) fn start(&mut self, token: &str) -> anyhow::Result<usize> {
        let slot = self.all.len();
        let connection = self.connect(slot, token)?;
        self.all.push(connection);
        Ok(slot)
    }

    /// Cuts a connection and begins another under the same index.
    pub(crate) fn restart(&mut self, slot: usize, token: &str) -> anyhow::Result<()> {
        self.all[slot] = self.connect(slot, token)?;
        Ok(())
    }

    /// Opens one connection for each token, at most `at_once` at a time.
    pub(crate) fn open_all(
        &mut self,
        tokens: &[String],
        at_once: usize,
        patience: Duration,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        let (mut started, mut opened) = (0, 0);
        while opened < tokens.len() {
            while started < tokens.len() && started - opened < at_once {
                self.start(&tokens[started])?;
                started += 1;
            }
            opened += self.opened(deadline)?;
        }
        Ok(())
    }

    /// Waits for events once, for at most 100 ms. Returns the number of connections that have
    /// opened.
    ///
    /// # Errors
    ///
    /// A connection was refused or closed, or the deadline has passed.
    pub(crate) fn opened(&mut self, deadline: Instant) -> anyhow::Result<usize> {
        let (mut opened, mut failed) = (0, None);
        self.turn(
            Duration::from_millis(100),
            |slot, happened| match happened {
                Happened::Opened => opened += 1,
                Happened::Refused(why) => {
                    failed = Some(format!("connection {slot} is refused: {why}"))
                }
                Happened::Closed(code) => {
                    failed = Some(format!("connection {slot} closes with code {code:?}"));
                }
                Happened::Message(_) | Happened::Other(_) => {}
            },
        )?;
        if let Some(why) = failed {
            bail!("{why}");
        }
        if Instant::now() > deadline {
            bail!("the gateway takes too long to open connections");
        }
        Ok(opened)
    }

    /// Sends a frame. If the socket accepts only a part, later calls of [`Connections::turn`] send
    /// the remaining bytes.
    pub(crate) fn send(&mut self, slot: usize, frame: &[u8]) {
        self.queue(slot, frame);
        self.flush(slot);
    }

    /// Queues a frame for the next [`Connections::flush`].
    pub(crate) fn queue(&mut self, slot: usize, frame: &[u8]) {
        self.all[slot].unsent.extend_from_slice(frame);
    }

    /// Sends the queued bytes. If the socket accepts only a part, later calls of
    /// [`Connections::turn`] send the remaining bytes.
    pub(crate) fn flush(&mut self, slot: usize) {
        self.all[slot].flush();
    }

    /// Number of queued bytes of a connection that the system has not accepted yet.
    pub(crate) fn unsent(&self, slot: usize) -> usize {
        self.all[slot].unsent.len()
    }

    /// Stops reading from a connection.
    pub(crate) fn pause(&mut self, slot: usize) -> anyhow::Result<()> {
        let connection = &mut self.all[slot];
        connection.paused = true;
        SockRef::from(&connection.stream)
            .set_recv_buffer_size(PAUSED_RECEIVE_BYTES)
            .context("shrink a receive buffer")
    }

    /// Waits for events, at most for `timeout` (rounded up to milliseconds), and reports the
    /// events.
    pub(crate) fn turn(
        &mut self,
        timeout: Duration,
        mut tell: impl FnMut(usize, Happened<'_>),
    ) -> anyhow::Result<()> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error).context("wait for epoll"),
        }
        for event in &self.events {
            let slot = event.token().0;
            let connection = &mut self.all[slot];
            connection.ready(event, &mut self.buffer, &mut |happened| {
                tell(slot, happened)
            });
        }
        Ok(())
    }

    fn connect(&self, slot: usize, token: &str) -> anyhow::Result<Connection> {
        let target = &self.targets[slot % self.targets.len()];
        let mut stream = dial(target.address, slot / PER_SOURCE).context("open a socket")?;
        self.poll
            .registry()
            .register(
                &mut stream,
                Token(slot),
                Interest::READABLE | Interest::WRITABLE,
            )
            .context("register a socket")?;
        Ok(Connection {
            stream,
            dialect: self.dialect,
            stage: Stage::Connecting,
            partial: Vec::new(),
            unsent: wire::upgrade_request(target, token),
            paused: false,
        })
    }
}

/// Begins to connect. On the loopback network each `source` is a different address with its own
/// ports.
fn dial(address: SocketAddr, source: usize) -> io::Result<TcpStream> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    // A closed connection is reset. Otherwise ports in TIME_WAIT could use up all ports during a
    // run.
    socket.set_linger(Some(Duration::ZERO))?;
    if let (IpAddr::V4(Ipv4Addr::LOCALHOST), last @ 1..) = (address.ip(), source) {
        let source = Ipv4Addr::new(127, 0, 0, u8::try_from(last + 1).map_err(io::Error::other)?);
        socket.bind(&SocketAddr::from((source, 0)).into())?;
    }
    match socket.connect(&address.into()) {
        Ok(()) => {}
        // The connection is still being made. The error has no stable name in the standard library.
        Err(error) if error.raw_os_error() == Some(IN_PROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}

impl Connection {
    fn ready(&mut self, event: &Event, buffer: &mut [u8], tell: &mut dyn FnMut(Happened<'_>)) {
        if self.stage == Stage::Closed {
            return;
        }
        if self.stage == Stage::Connecting && !self.is_connected(tell) {
            return;
        }
        if event.is_writable() {
            self.flush();
        }
        if (event.is_readable() || event.is_read_closed()) && !self.paused {
            self.read(event.is_read_closed(), buffer, tell);
        } else if self.paused && (event.is_error() || event.is_write_closed()) {
            self.close(None, tell);
        }
    }

    fn is_connected(&mut self, tell: &mut dyn FnMut(Happened<'_>)) -> bool {
        if let Ok(Some(error)) | Err(error) = self.stream.take_error() {
            self.stage = Stage::Closed;
            tell(Happened::Refused(error.to_string()));
            return false;
        }
        if self.stream.peer_addr().is_err() {
            return false;
        }
        self.stage = Stage::Upgrading;
        self.flush();
        true
    }

    /// Sends the remaining bytes. An error is ignored here, because the next read reports it.
    fn flush(&mut self) {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    /// Reads until the socket is empty. `to_end` is true if the end of the stream follows.
    fn read(&mut self, to_end: bool, buffer: &mut [u8], tell: &mut dyn FnMut(Happened<'_>)) {
        while self.stage != Stage::Closed {
            let kept = self.partial.len();
            if kept * 2 > buffer.len() {
                tell(Happened::Other(b"a frame too long to be read here"));
                return self.close(None, tell);
            }
            buffer[..kept].copy_from_slice(&self.partial);
            match self.stream.read(&mut buffer[kept..]) {
                Ok(0) => return self.close(None, tell),
                Ok(read) => {
                    self.partial.clear();
                    let bytes = &buffer[..kept + read];
                    let taken = self.take(bytes, tell);
                    self.partial.extend_from_slice(&bytes[taken..]);
                    // A short read has emptied the socket, so another read would return nothing.
                    if !to_end && read < buffer.len() - kept {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.close(None, tell),
            }
        }
    }

    /// Handles the complete frames in `bytes`. Returns the number of handled bytes.
    fn take(&mut self, bytes: &[u8], tell: &mut dyn FnMut(Happened<'_>)) -> usize {
        let mut at = 0;
        if self.stage == Stage::Upgrading {
            let Some(end) = wire::head_end(bytes) else {
                if bytes.len() > MAX_ANSWER_BYTES {
                    self.refuse(bytes, tell);
                }
                return 0;
            };
            if !bytes.starts_with(b"HTTP/1.1 101") {
                self.refuse(bytes, tell);
                return bytes.len();
            }
            self.stage = Stage::Opening;
            at = end;
            if let Some(hello) = self.dialect.hello() {
                self.unsent.extend(wire::text(hello));
                self.flush();
            }
        }
        while let Some((frame, taken)) = wire::next_frame(&bytes[at..]) {
            at += taken;
            match frame.opcode {
                opcode::TEXT => self.text(frame.payload, tell),
                opcode::PING => {
                    wire::put_frame(opcode::PONG, frame.payload, &mut self.unsent);
                    self.flush();
                }
                opcode::CLOSE => {
                    let code = frame
                        .payload
                        .first_chunk()
                        .map(|code| u16::from_be_bytes(*code));
                    self.close(code, tell);
                }
                _ => {}
            }
            if self.stage == Stage::Closed {
                return bytes.len();
            }
        }
        at
    }

    fn text(&mut self, payload: &[u8], tell: &mut dyn FnMut(Happened<'_>)) {
        let dialect = self.dialect;
        if payload.starts_with(dialect.message()) {
            return tell(Happened::Message(payload));
        }
        if dialect
            .ignored()
            .is_some_and(|begins| payload.starts_with(begins))
        {
            return;
        }
        let mut answered = dialect.answered().iter();
        if let Some((_, answer)) = answered.find(|(begins, _)| payload.starts_with(begins)) {
            self.unsent.extend(wire::text(answer));
            return self.flush();
        }
        if self.stage == Stage::Open {
            return tell(Happened::Other(payload));
        }
        if payload.starts_with(dialect.connected()) {
            self.stage = Stage::Open;
            return tell(Happened::Opened);
        }
        self.refuse(payload, tell);
    }

    fn refuse(&mut self, answer: &[u8], tell: &mut dyn FnMut(Happened<'_>)) {
        self.stage = Stage::Closed;
        tell(Happened::Refused(
            String::from_utf8_lossy(answer).trim().to_owned(),
        ));
    }

    fn close(&mut self, code: Option<u16>, tell: &mut dyn FnMut(Happened<'_>)) {
        let stage = std::mem::replace(&mut self.stage, Stage::Closed);
        if stage == Stage::Open {
            tell(Happened::Closed(code));
        } else {
            tell(Happened::Refused(format!(
                "closed before it opened, code {code:?}"
            )));
        }
    }
}
