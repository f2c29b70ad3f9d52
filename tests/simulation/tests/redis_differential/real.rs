//! A real `redis-server` for one test, and blocking connections to it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use curfew_simulation::redis::Reply;
use tempfile::TempDir;

/// Deadline for the server's start.
const PATIENCE: Duration = Duration::from_secs(20);

/// Deadline for an answer.
const ANSWER: Duration = Duration::from_secs(5);

/// A running server, which is killed when this value is dropped.
#[derive(Debug)]
pub(crate) struct Real {
    process: Child,
    address: SocketAddr,
    _directory: TempDir,
}

/// A connection to the server.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    pub(crate) is_closed: bool,
}

impl Real {
    /// Starts a server that saves nothing, and allows `DEBUG`.
    pub(crate) fn start() -> Self {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(
                Instant::now() < deadline,
                "redis-server has not started in time"
            );
            if let Some(real) = Self::try_start(deadline) {
                return real;
            }
        }
    }

    /// Returns `None` if another process took the port.
    fn try_start(deadline: Instant) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a temporary directory can be created");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let address = listener
            .local_addr()
            .expect("a bound listener has an address");
        drop(listener);
        let process = Command::new("redis-server")
            .args(["--port", &address.port().to_string()])
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--enable-debug-command", "local", "--dir"])
            .arg(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let mut real = Self {
            process,
            address,
            _directory: directory,
        };
        while Instant::now() < deadline {
            let ended = real.process.try_wait().expect("a child can be waited for");
            if ended.is_some() {
                return None;
            }
            if let Ok(stream) = TcpStream::connect(address) {
                let mut connection = Connection::new(stream);
                connection.send(&encode(&[b"INFO", b"server"]));
                let info = connection.frames(1);
                let ours = format!("process_id:{}\r\n", real.process.id());
                if String::from_utf8_lossy(&info.concat()).contains(&ours) {
                    return Some(real);
                }
            }
            thread::sleep(Duration::from_millis(5));
        }
        None
    }

    pub(crate) fn connect(&self) -> Connection {
        Connection::new(TcpStream::connect(self.address).expect("redis-server accepts connections"))
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        // The calls fail only if the process has already ended.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("TCP_NODELAY can be set");
        stream
            .set_read_timeout(Some(ANSWER))
            .expect("a read timeout can be set");
        Self {
            stream,
            received: Vec::new(),
            is_closed: false,
        }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        // The write fails on a closed connection. The next read notices that.
        drop(self.stream.write_all(bytes));
    }

    /// Sends one command. Returns its answer.
    pub(crate) fn call(&mut self, command: &[&[u8]]) -> Reply {
        self.send(&encode(command));
        let frames = self.frames(1);
        let reply = frames.first().and_then(|frame| Reply::parse(frame));
        reply.expect("the server answers").0
    }

    /// Reads `count` replies or pushes, or fewer if no more arrive.
    pub(crate) fn frames(&mut self, count: usize) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while frames.len() < count {
            if let Some((_, length)) = Reply::parse(&self.received) {
                frames.push(self.received.drain(..length).collect());
                continue;
            }
            if !self.read() {
                break;
            }
        }
        frames
    }

    /// Waits until the server closes the connection. Returns the output before that.
    pub(crate) fn until_closed(&mut self) -> Vec<Vec<u8>> {
        while self.read() {}
        self.frames(usize::MAX)
    }

    fn read(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => {
                self.is_closed = true;
                false
            }
            Ok(length) => {
                self.received.extend_from_slice(&buffer[..length]);
                true
            }
            Err(error) => {
                self.is_closed |= error.kind() == ErrorKind::ConnectionReset;
                false
            }
        }
    }
}

/// A command as a client sends it.
pub(crate) fn encode(command: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
    for argument in command {
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
