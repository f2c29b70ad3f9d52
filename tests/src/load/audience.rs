//! Many clients, read by one thread.

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

/// Bytes read at once.
const READ_BYTES: usize = 256 * 1024;

/// Reads of one client before the others have their turn.
const READS: usize = 4;

/// Between two looks at clients of which none had anything.
const TURN: Duration = Duration::from_millis(1);

/// Start of a publication's frame.
const MESSAGE: &[u8] = br#"{"type":"message""#;

/// Progress of the node with each client at a moment.
#[derive(Debug, Clone)]
pub struct Mark {
    at: Moment,
    /// By client: bytes that the node had written.
    written: Vec<u64>,
}

impl Mark {
    /// Bytes behind the mark were written after this moment.
    pub fn at(&self) -> Moment {
        self.at
    }
}

/// Frames behind a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Late {
    /// Publications.
    pub frames: usize,
    /// Bytes of these, and of one that did not become whole.
    pub bytes: usize,
    /// Times at which the first and the last of them were read: not before they were written, but
    /// perhaps long after.
    pub read: Option<[Moment; 2]>,
}

impl Late {
    fn note(&mut self, read: Moment) {
        let [first, last] = self.read.unwrap_or([read; 2]);
        self.read = Some([first.min(read), last.max(read)]);
    }
}

/// Sessions whose frames are read and noted by a thread of their own.
#[derive(Debug)]
pub struct Audience {
    clients: Vec<Arc<Client>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    ended: AtomicBool,
    /// Times at which the clients were looked at.
    looks: Mutex<Vec<Moment>>,
    /// For those who wait for a mark.
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
    /// All other text frames; for a close frame `{"close":code}`, for the end `{"end":true}`.
    others: Vec<Value>,
    /// Bytes read so far.
    read: u64,
    /// Number of bytes of an incomplete frame, and time at which the last was read.
    fragment: Option<(usize, Moment)>,
}

#[derive(Debug, Clone, Copy)]
struct Publication {
    /// Bytes up to its end.
    end: u64,
    bytes: u32,
    published: Moment,
    read: Moment,
}

impl Audience {
    /// Reads what these clients receive from now on. Pings are answered.
    pub fn of(clients: Vec<WsClient>) -> Self {
        let mut seats = Vec::new();
        for client in clients {
            let (stream, rest) = client.into_tcp().expect("a socket of this runtime");
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

    /// The client reads nothing until [`Audience::resume`].
    pub fn pause(&self, client: usize) {
        self.clients[client].paused.store(true, Ordering::SeqCst);
    }

    /// The client reads again.
    pub fn resume(&self, client: usize) {
        self.clients[client].paused.store(false, Ordering::SeqCst);
    }

    /// Marks how far the node has come with each client: what it has written that was read, what
    /// waits in the client's socket and what in its own. Bytes that move meanwhile are counted twice
    /// rather than not at all.
    pub async fn mark(&self) -> Mark {
        let (marking, marked) = oneshot::channel();
        self.shared.marks.lock().push(marking);
        marked.await.expect("the reading thread runs")
    }

    /// The longest time without a look at the clients between the two moments: for so long at most
    /// the machine kept a busy thread from running.
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

    /// Frames to the client behind the mark, without notices.
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

    /// True if a publication has come that was published after `since`.
    pub fn has_newer(&self, client: usize, since: Moment) -> bool {
        let heard = self.clients[client].heard.lock();
        let last = heard.publications.last();
        last.is_some_and(|publication| publication.published > since)
    }

    /// The first frame, publications aside, that has at least the members of `expect`.
    pub fn found(&self, client: usize, expect: &Value) -> Option<Value> {
        let heard = self.clients[client].heard.lock();
        let mut others = heard.others.iter();
        others.find(|frame| json::contains(expect, frame)).cloned()
    }

    /// The code it was closed with, once it was.
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
        // Nothing is read while a mark is made.
        for waiting in shared.marks.lock().drain(..) {
            // One who waits no more needs no mark.
            drop(waiting.send(mark(&seats)));
        }
        if idle {
            thread::sleep(TURN);
        }
    }
}

fn mark(seats: &[Seat]) -> Mark {
    let at = Moment::now();
    // In the order in which bytes move, so that none is passed over.
    let (unsent, unread) = (Queues::now(), Queues::now());
    let written = seats.iter().map(|seat| {
        let [client, node] = seat.ports;
        let read = seat.client.heard.lock().read;
        match unread.received(client, node) {
            Some(received) => read + unsent.sending(node, client) + received,
            // The kernel has forgotten the connection, which was reset: what the client can read
            // yet was written before.
            None => u64::MAX,
        }
    });
    Mark {
        at,
        written: written.collect(),
    }
}

/// A client as its reading thread has it.
#[derive(Debug)]
struct Seat {
    stream: TcpStream,
    /// The client's and the node's.
    ports: [u16; 2],
    client: Arc<Client>,
    /// The start of a frame whose rest has not come.
    partial: Vec<u8>,
    /// Offset of the moment in a publication.
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
            ports: ports.map(|address| address.expect("it is connected").port()),
            client: Arc::new(client),
            partial: rest,
            moment_at: 0,
            ended: false,
        }
    }

    /// Reads what there is; returns whether there was anything.
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
                        bytes: u32::try_from(end - at).expect("a frame of the test's"),
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
                    // A node that reads nothing will find out without it.
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

/// The whole frame that begins at `at`: its opcode, and where its content begins and ends.
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
