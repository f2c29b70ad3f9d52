//! A subscriber with its own connection to Redis. It records the publications that Redis executes,
//! with bounds of their times.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;

use super::Moment;

/// Channel of the ticks.
const TICKS: &str = "curfew-tests:ticks";

/// Name of the witness' connections at Redis. Tests that kill other connections need this name.
pub const WITNESS: &str = "witness";

/// Interval between two ticks. The interval is the precision of the time of execution.
const TICK: Duration = Duration::from_millis(5);

/// Text before the publishing user in an envelope.
const FROM: &[u8] = br#""from":""#;

/// A publication that Redis executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed {
    /// Lower bound of the time of execution: Redis executed the publication after a tick that was
    /// sent at this moment.
    pub after: Moment,
    /// Time of publication, from the publication's data.
    pub published: Moment,
    /// The publishing user; empty for the admin API.
    pub from: Arc<str>,
}

#[derive(Debug, Default)]
struct WitnessRecord {
    executed: Vec<Executed>,
    /// Time at which the last tick was sent.
    tick: Moment,
}

/// A subscriber at a Redis server, without a node. It records the publications. Redis sends
/// messages to one connection in the order of execution. A publication that follows a tick was
/// therefore executed after the tick was sent, no matter when the two are read.
#[derive(Debug)]
pub struct Witness {
    seen: Arc<Mutex<WitnessRecord>>,
    ended: Arc<AtomicBool>,
    streams: [TcpStream; 2],
    threads: Vec<JoinHandle<()>>,
}

impl Witness {
    /// Subscribes to channels of the gateway.
    pub fn start(server: SocketAddr, channels: &[&str]) -> Self {
        let connect = || {
            let mut stream = TcpStream::connect(server).expect("the server accepts connections");
            stream
                .set_nodelay(true)
                .expect("the socket is a TCP socket");
            let named = format!("CLIENT SETNAME {WITNESS}\r\n");
            stream
                .write_all(named.as_bytes())
                .expect("the server reads");
            let mut answer = [0; b"+OK\r\n".len()];
            stream.read_exact(&mut answer).expect("the server answers");
            stream
        };
        let (mut subscriber, ticker) = (connect(), connect());
        let names = channels.iter().map(|name| format!("curfew:channel:{name}"));
        let mut words = vec!["SUBSCRIBE".to_owned(), TICKS.to_owned()];
        words.extend(names);
        subscriber
            .write_all((words.join(" ") + "\r\n").as_bytes())
            .expect("the server reads");
        let mut lines = BufReader::new(clone(&subscriber));
        for _ in 1..words.len() {
            // Redis sends one confirmation for each channel.
            message(&mut lines).expect("the server subscribes");
        }
        let seen = Arc::default();
        let ended = Arc::new(AtomicBool::new(false));
        let streams = [clone(&subscriber), clone(&ticker)];
        let listening = thread::spawn({
            let seen = Arc::clone(&seen);
            move || listen(lines, &seen)
        });
        let ticking = thread::spawn({
            let ended = Arc::clone(&ended);
            move || tick(ticker, &ended)
        });
        Self {
            seen,
            ended,
            streams,
            threads: vec![listening, ticking],
        }
    }

    /// Number of executed publications so far.
    pub fn count(&self) -> usize {
        self.seen.lock().executed.len()
    }

    /// The time at which the last received tick was sent. Everything that Redis executed before
    /// this time has been recorded.
    pub fn last_tick(&self) -> Moment {
        self.seen.lock().tick
    }

    /// The publications of `users` that were executed after `bound`.
    pub fn late(&self, bound: Moment, users: impl Fn(&str) -> bool) -> Vec<Executed> {
        let seen = self.seen.lock();
        seen.executed
            .iter()
            .filter(|executed| executed.after > bound && users(&executed.from))
            .cloned()
            .collect()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        for stream in &self.streams {
            // The call fails only if the server has ended the connection.
            drop(stream.shutdown(Shutdown::Both));
        }
        for thread in self.threads.drain(..) {
            // A panic of the thread is ignored here: the thread has already printed it.
            drop(thread.join());
        }
    }
}

fn clone(stream: &TcpStream) -> TcpStream {
    stream.try_clone().expect("a socket can be shared")
}

/// Publishes ticks until the witness is dropped.
fn tick(mut stream: TcpStream, ended: &AtomicBool) {
    let mut answers = BufReader::new(clone(&stream));
    let mut answer = String::new();
    while !ended.load(Ordering::SeqCst) {
        let tick = format!("PUBLISH {TICKS} {}\r\n", Moment::now().digits());
        answer.clear();
        if stream.write_all(tick.as_bytes()).is_err() || answers.read_line(&mut answer).is_err() {
            return;
        }
        thread::sleep(TICK);
    }
}

/// Records publications until the connection ends.
fn listen(mut lines: BufReader<TcpStream>, seen: &Mutex<WitnessRecord>) {
    let (mut after, mut moment_at) = (Moment::default(), 0);
    let mut users: Vec<Arc<str>> = Vec::new();
    while let Some([_, channel, text]) = message(&mut lines) {
        if channel == TICKS.as_bytes() {
            after = Moment::parse(&text).expect("a tick is a moment");
            seen.lock().tick = after;
            continue;
        }
        let from = sender(&text);
        let known = users.iter().find(|user| user.as_bytes() == from).cloned();
        let from = known.unwrap_or_else(|| {
            let user: Arc<str> = String::from_utf8_lossy(from).into();
            users.push(Arc::clone(&user));
            user
        });
        seen.lock().executed.push(Executed {
            after,
            published: Moment::found_in(&text, &mut moment_at).unwrap_or_default(),
            from,
        });
    }
}

/// The publishing user in an envelope.
fn sender(envelope: &[u8]) -> &[u8] {
    let mut windows = envelope.windows(FROM.len());
    let Some(at) = windows.position(|found| found == FROM) else {
        return b"";
    };
    let rest = &envelope[at + FROM.len()..];
    let end = rest.iter().position(|byte| *byte == b'"');
    &rest[..end.unwrap_or(rest.len())]
}

/// The three parts of a message that Redis pushes to a subscriber.
fn message(lines: &mut BufReader<TcpStream>) -> Option<[Vec<u8>; 3]> {
    let mut parts = [const { Vec::new() }; 3];
    assert_eq!(line(lines)?, "*3", "a push to a subscriber has three parts");
    for part in &mut parts {
        let head = line(lines)?;
        if let Some(length) = head.strip_prefix('$') {
            let length: usize = length.parse().expect("the part has a length");
            part.resize(length + 2, 0);
            lines.read_exact(part).ok()?;
            part.truncate(length);
        }
    }
    Some(parts)
}

fn line(lines: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    match lines.read_line(&mut line) {
        Ok(1..) => Some(line.trim_end().to_owned()),
        Ok(_) | Err(_) => None,
    }
}
