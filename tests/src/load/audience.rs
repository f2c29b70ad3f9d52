//! Many clients whose connections one thread reads.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use curfew_testkit::{OutFrame, WsClient, json, opcode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{Moment, Queues};

/// Maximum size of one read, in bytes.
const READ_BYTES: usize = 256 * 1024;

/// Maximum number of reads of one client before the next client is read.
const READS: usize = 4;

/// Pause of the reading thread if no client had data.
const TURN: Duration = Duration::from_millis(1);

/// Start of a publication's frame.
const MESSAGE: &[u8] = br#"{"type":"message""#;

/// The node's progress in writing to each client, at one moment.
#[derive(Debug, Clone)]
pub struct Mark {
    at: Moment,
    /// The number of bytes that the node had written to each client.
    written: Vec<u64>,
}

impl Mark {
    /// The moment of the mark. Bytes behind the mark were written after this moment.
    pub fn at(&self) -> Moment {
        self.at
    }
}

/// The frames that were written behind a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Late {
    /// Number of publications.
    pub frames: usize,
    /// Number of bytes of these frames and of an incomplete frame after them.
    pub bytes: usize,
    /// Times at which the first and the last of these frames were read. The frames may have been
    /// written long before.
    pub read: Option<[Moment; 2]>,
}

impl Late {
    fn note(&mut self, read: Moment) {
        let [first, last] = self.read.unwrap_or([read; 2]);
        self.read = Some([first.min(read), last.max(read)]);
    }
}

/// Sessions whose frames a separate thread reads and records.
#[derive(Debug)]
pub struct Audience {
    clients: Vec<Arc<Client>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    ended: AtomicBool,
    /// Times at which the thread looked at the clients.
    looks: Mutex<Vec<Moment>>,
    /// Callers that wait for a mark.
    marks: Mutex<Vec<oneshot::Sender<Mark>>>,
}

#[derive(Debug, Default)]
struct Client {
    paused: AtomicBool,
    heard: Mutex<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    publications: Vec<Publication>,
    /// All frames other than publications. A close frame is recorded as `{"close":code}`, the end
    /// of the stream as `{"end":true}`.
    others: Vec<Value>,
    /// Bytes read so far.
    read: u64,
    /// The number of bytes of an incomplete frame, and the time at which its last byte was read.
    fragment: Option<(usize, Moment)>,
}

#[derive(Debug, Clone, Copy)]
struct Publication {
    /// Offset in the stream at which the frame ends.
    end: u64,
    bytes: u32,
    published: Moment,
    read: Moment,
}

impl Audience {
    /// Records the frames that these clients receive from now on. Answers pings.
    pub fn of(clients: Vec<WsClient>) -> Self {
        let mut seats = Vec::new();
        for client in clients {
            let (stream, rest) = client.into_tcp().expect("the runtime releases the socket");
            seats.push(Seat::new(stream, rest.to_vec()));
        }
        let clients = seats.iter().map(|seat| Arc::clone(&seat.client)).collect();
        let shared = Arc::new(Shared::default());
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || read(seats, &shared)
        });
        Self {
            clients,
            shared,
            thread: Some(thread),
        }
    }

    /// Number of clients.
    pub fn count(&self) -> usize {
        self.clients.len()
    }

    /// Makes the client read nothing until [`Audience::resume`].
    pub fn pause(&self, client: usize) {
        self.clients[client].paused.store(true, Ordering::SeqCst);
    }

    /// Makes the client read again.
    pub fn resume(&self, client: usize) {
        self.clients[client].paused.store(false, Ordering::SeqCst);
    }

    /// Marks how far the node's writes to each client have come. The number of written bytes is the
    /// sum of the bytes that were read, the bytes in the client's socket and the bytes in the
    /// node's socket. Bytes that move during the count may be counted twice, but are never missed.
    pub async fn mark(&self) -> Mark {
        let (marking, marked) = oneshot::channel();
        self.shared.marks.lock().push(marking);
        marked.await.expect("the reading thread runs")
    }

    /// The longest time between `from` and `to` in which the thread did not look at the clients.
    /// This time is an upper bound of the time in which the machine did not schedule the thread.
    pub fn longest_gap(&self, from: Moment, to: Moment) -> Duration {
        let looks = self.shared.looks.lock();
        let looks = looks.iter().copied();
        let within = looks.filter(|look| (from..to).contains(look));
        let (mut longest, mut last) = (Duration::ZERO, from);
        for look in within.chain([to]) {
            longest = longest.max(look.since(last));
            last = look;
        }
        longest
    }

    /// The publications to the client that were written or published after the mark. Other frames
    /// do not count.
    pub fn late(&self, client: usize, mark: &Mark) -> Late {
        let heard = self.clients[client].heard.lock();
        let written = mark.written[client];
        let mut late = Late::default();
        for publication in &heard.publications {
            if publication.end > written || publication.published > mark.at {
                late.frames += 1;
                late.bytes += publication.bytes as usize;
                late.note(publication.read);
            }
        }
        if let Some((bytes, read)) = heard.fragment
            && heard.read > written
        {
            late.bytes += bytes;
            late.note(read);
        }
        late
    }

    /// Number of publications received.
    pub fn publications(&self, client: usize) -> usize {
        self.clients[client].heard.lock().publications.len()
    }

    /// True if the client has received a publication that was published after `since`.
    pub fn has_newer(&self, client: usize, since: Moment) -> bool {
        let heard = self.clients[client].heard.lock();
        let last = heard.publications.last();
        last.is_some_and(|publication| publication.published > since)
    }

    /// The first frame that is not a publication and has at least the members of `expect`.
    pub fn found(&self, client: usize, expect: &Value) -> Option<Value> {
        let heard = self.clients[client].heard.lock();
        let mut others = heard.others.iter();
        others.find(|frame| json::contains(expect, frame)).cloned()
    }

    /// The close code that the node has announced to the client; `None` before the announcement.
    pub fn closed(&self, client: usize) -> Option<u64> {
        self.found(client, &json!({"type":"closing"}))?["code"].as_u64()
    }

    /// True if the connection has ended.
    pub fn is_ended(&self, client: usize) -> bool {
        self.found(client, &json!({"end":true})).is_some()
    }
}

impl Drop for Audience {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !thread::panicking()
        {
            panic!("the reading thread has failed");
        }
    }
}

fn read(mut seats: Vec<Seat>, shared: &Shared) {
    let mut buffer = vec![0; READ_BYTES];
    while !shared.ended.load(Ordering::SeqCst) {
        shared.looks.lock().push(Moment::now());
        let mut idle = true;
        for seat in &mut seats {
            idle &= !seat.look(&mut buffer);
        }
        // The reading thread itself makes the marks, so it reads nothing meanwhile.
        for waiting in shared.marks.lock().drain(..) {
            // The send fails if the caller no longer waits, and the mark is then not needed.
            drop(waiting.send(mark(&seats)));
        }
        if idle {
            thread::sleep(TURN);
        }
    }
}

fn mark(seats: &[Seat]) -> Mark {
    let at = Moment::now();
    // The sending queues are read before the receiving queues. Bytes move in this direction, so no
    // byte is missed.
    let (unsent, unread) = (Queues::now(), Queues::now());
    let written = seats.iter().map(|seat| {
        let [client, node] = seat.ports;
        let read = seat.client.heard.lock().read;
        match unread.received(client, node) {
            Some(received) => read + unsent.sending(node, client) + received,
            // The connection was reset, so the kernel has no queue for it. All bytes that the
            // client can still read were written before this mark.
            None => u64::MAX,
        }
    });
    Mark {
        at,
        written: written.collect(),
    }
}

/// A client in the reading thread.
#[derive(Debug)]
struct Seat {
    stream: TcpStream,
    /// The ports of the client and of the node.
    ports: [u16; 2],
    client: Arc<Client>,
    /// The start of an incomplete frame.
    partial: Vec<u8>,
    /// Offset of the moment in the last publication's text.
    moment_at: usize,
    ended: bool,
}

impl Seat {
    fn new(stream: TcpStream, rest: Vec<u8>) -> Self {
        let ports = [stream.local_addr(), stream.peer_addr()];
        let client = Client::default();
        client.heard.lock().read = rest.len() as u64;
        Self {
            stream,
            ports: ports.map(|address| address.expect("the stream is connected").port()),
            client: Arc::new(client),
            partial: rest,
            moment_at: 0,
            ended: false,
        }
    }

    /// Reads the available bytes. Returns true if there were any, or if the connection has just
    /// ended.
    fn look(&mut self, buffer: &mut [u8]) -> bool {
        if self.ended || self.client.paused.load(Ordering::SeqCst) {
            return false;
        }
        for read in 0..READS {
            match self.stream.read(buffer) {
                Ok(bytes @ 1..) => self.take(&buffer[..bytes]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return read > 0,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => {
                    self.ended = true;
                    let mut heard = self.client.heard.lock();
                    heard.others.push(json!({"end":true}));
                    return true;
                }
            }
        }
        true
    }

    fn take(&mut self, bytes: &[u8]) {
        let now = Moment::now();
        let mut heard = self.client.heard.lock();
        let before = heard.read - self.partial.len() as u64;
        heard.read += bytes.len() as u64;
        self.partial.extend_from_slice(bytes);
        let mut at = 0;
        while let Some((code, payload, end)) = frame(&self.partial, at) {
            let payload = &self.partial[payload..end];
            match code {
                opcode::TEXT if payload.starts_with(MESSAGE) => {
                    let published = Moment::found_in(payload, &mut self.moment_at);
                    heard.publications.push(Publication {
                        end: before + end as u64,
                        bytes: u32::try_from(end - at)
                            .expect("a frame of a test is smaller than 4 GiB"),
                        published: published.unwrap_or_default(),
                        read: now,
                    });
                }
                opcode::TEXT => {
                    let text = serde_json::from_slice(payload).expect("frames are JSON");
                    heard.others.push(text);
                }
                opcode::CLOSE => {
                    let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                    heard.others.push(json!({"close":code}));
                }
                opcode::PING => {
                    let pong = OutFrame::new(opcode::PONG, payload).to_bytes();
                    // A failed write is ignored: it concerns only a node that does not read, and
                    // such a node does not miss this pong.
                    drop::<io::Result<usize>>(self.stream.write(&pong));
                }
                _ => {}
            }
            at = end;
        }
        self.partial.drain(..at);
        heard.fragment = match self.partial.len() {
            0 => None,
            bytes => Some((bytes, now)),
        };
    }
}

/// Finds the complete frame at `at`. Returns its opcode, and the start and the end of its content.
pub(super) fn frame(bytes: &[u8], at: usize) -> Option<(u8, usize, usize)> {
    let (first, second) = (*bytes.get(at)?, *bytes.get(at + 1)?);
    assert!(second & 0x80 == 0, "the server sent a masked frame");
    let (head, length) = match second {
        126 => {
            let length = bytes.get(at + 2..at + 4)?.try_into().ok()?;
            (4, usize::from(u16::from_be_bytes(length)))
        }
        127 => {
            let length = bytes.get(at + 2..at + 10)?.try_into().ok()?;
            let length = u64::from_be_bytes(length);
            (10, usize::try_from(length).expect("no frame is that large"))
        }
        short => (2, usize::from(short)),
    };
    let (start, end) = (at + head, at + head + length);
    (end <= bytes.len()).then_some((first & 0xf, start, end))
}
