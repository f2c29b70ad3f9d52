//! Publishers that never wait for answers.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use curfew_testkit::{WsClient, opcode};
use parking_lot::Mutex;

use super::Moment;

/// Number of publications that one client writes at once.
const BATCH: usize = 16;

/// Pause of the publishing thread if no socket accepted bytes.
const TURN: Duration = Duration::from_micros(500);

/// Maximum size of one read of answers, in bytes.
const READ_BYTES: usize = 64 * 1024;

/// Sessions that publish to a channel without end, each as fast as its node accepts. The sessions
/// do not wait for answers. The data is an object with the time of publication. The sessions end
/// when this value is dropped.
#[derive(Debug)]
pub struct Flood {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    ended: AtomicBool,
    /// Maximum number of publications per second of all clients together; 0 for no limit.
    pace: AtomicU64,
    published: AtomicU64,
    told: Mutex<BTreeMap<String, u64>>,
    /// Number of clients whose connection has ended.
    gone: AtomicU64,
}

impl Flood {
    /// Publishes objects of about `bytes` bytes to `channel`.
    pub fn start(clients: Vec<WsClient>, channel: &str, bytes: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let sources: Vec<Source> = clients
            .into_iter()
            .map(|client| {
                Source::new(
                    client
                        .into_tcp()
                        .expect("the runtime releases the socket")
                        .0,
                )
            })
            .collect();
        let command = Command::new(channel, bytes);
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || flood(sources, command, &shared)
        });
        Self {
            shared,
            thread: Some(thread),
        }
    }

    /// Sets the maximum number of publications per second of all clients together; 0 for no limit.
    pub fn pace(&self, per_second: u64) {
        self.shared.pace.store(per_second, Ordering::SeqCst);
    }

    /// Number of publications written to the sockets.
    pub fn published(&self) -> u64 {
        self.shared.published.load(Ordering::SeqCst)
    }

    /// Number of clients that have lost their connection.
    pub fn gone(&self) -> u64 {
        self.shared.gone.load(Ordering::SeqCst)
    }

    /// The error codes and close codes that the clients received, with the number of times that
    /// each code was received.
    pub fn told(&self) -> BTreeMap<String, u64> {
        self.shared.told.lock().clone()
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !thread::panicking()
        {
            panic!("the publishing thread has failed");
        }
    }
}

fn flood(mut sources: Vec<Source>, mut command: Command, shared: &Shared) {
    let mut buffer = vec![0; READ_BYTES];
    let (mut pace, mut since, mut sent) = (0, Moment::now(), 0);
    while !shared.ended.load(Ordering::SeqCst) {
        let wanted = shared.pace.load(Ordering::SeqCst);
        if wanted != pace {
            (pace, since, sent) = (wanted, Moment::now(), 0);
        }
        let mut idle = true;
        for source in &mut sources {
            let elapsed = Moment::now().since(since).as_secs_f64();
            if source.unsent.is_empty() && (pace == 0 || (sent as f64) < elapsed * pace as f64) {
                for _ in 0..BATCH {
                    source.unsent.extend_from_slice(command.published_now());
                }
                sent += BATCH as u64;
                shared.published.fetch_add(BATCH as u64, Ordering::SeqCst);
            }
            idle &= !source.write();
            source.listen(&mut buffer, shared);
        }
        if idle {
            thread::sleep(TURN);
        }
    }
}

/// The publication that is sent again and again.
#[derive(Debug)]
struct Command {
    frame: Vec<u8>,
    /// The part of the frame that holds the time of publication.
    moment: Range<usize>,
}

impl Command {
    fn new(channel: &str, bytes: usize) -> Self {
        let (moment, pad) = (Moment::default().member(), "x".repeat(bytes));
        let text = format!(
            r#"{{"type":"publish","channel":"{channel}","data":{{{moment},"pad":"{pad}"}}}}"#
        );
        let length = u16::try_from(text.len()).expect("the publication is shorter than 64 KiB");
        // A mask of zeros leaves the text unchanged.
        let mut frame = vec![0x80 | opcode::TEXT, 0x80 | 126];
        frame.extend(length.to_be_bytes());
        frame.extend([0; 4]);
        frame.extend(text.as_bytes());
        let digits = Moment::default().digits();
        let at = frame
            .windows(digits.len())
            .position(|found| found == digits.as_bytes())
            .expect("the frame contains the moment");
        Self {
            frame,
            moment: at..at + digits.len(),
        }
    }

    fn published_now(&mut self) -> &[u8] {
        let now = Moment::now().digits();
        self.frame[self.moment.clone()].copy_from_slice(now.as_bytes());
        &self.frame
    }
}

/// One publishing client.
#[derive(Debug)]
struct Source {
    stream: TcpStream,
    unsent: Vec<u8>,
    answers: Vec<u8>,
    ended: bool,
}

impl Source {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            unsent: Vec::new(),
            answers: Vec::new(),
            ended: false,
        }
    }

    /// Writes as much as the socket accepts. Returns true if it accepted anything.
    fn write(&mut self) -> bool {
        if self.ended || self.unsent.is_empty() {
            return false;
        }
        match self.stream.write(&self.unsent) {
            Ok(written) => {
                self.unsent.drain(..written);
                true
            }
            // The socket has no room, or the connection is broken. `listen` notices a broken
            // connection.
            Err(_) => false,
        }
    }

    /// Records the codes that the client receives.
    fn listen(&mut self, buffer: &mut [u8], shared: &Shared) {
        if self.ended {
            return;
        }
        match self.stream.read(buffer) {
            Ok(bytes @ 1..) => self.answers.extend_from_slice(&buffer[..bytes]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Ok(_) | Err(_) => {
                self.ended = true;
                shared.gone.fetch_add(1, Ordering::SeqCst);
            }
        }
        let mut at = 0;
        while let Some((_, start, end)) = super::audience::frame(&self.answers, at) {
            if let Ok(answer) =
                serde_json::from_slice::<serde_json::Value>(&self.answers[start..end])
            {
                let code = &answer["code"];
                let code = code
                    .as_str()
                    .map_or_else(|| code.to_string(), str::to_owned);
                *shared.told.lock().entry(code).or_default() += 1;
            }
            at = end;
        }
        self.answers.drain(..at);
    }
}
