//! The real server and the simulated server, side by side. They get the same bytes and must give
//! the same answers.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use curfew_simulation::redis::{ConnectionId, Reply, Server};

use crate::compare::{Frames, compare, split};
use crate::real::{Connection, Real, encode};

/// The script that the sequences call.
pub(crate) const SCRIPT: &str =
    include_str!("../../../../crates/curfew-backend-redis/src/fence/publish.lua");

/// Number of connections in a sequence.
pub(crate) const CONNECTIONS: usize = 4;

/// Both servers with the same connections.
pub(crate) struct Pair<'r> {
    real: &'r Real,
    simulated: Server,
    operator: Connection,
    /// The real server's digest of the script.
    digest: Vec<u8>,
    connections: Vec<Connected>,
    next: ConnectionId,
}

struct Connected {
    real: Connection,
    /// The real server's answer to `CLIENT ID`.
    real_id: i64,
    simulated: ConnectionId,
}

/// Loads the script. Returns its digest.
pub(crate) fn load(connection: &mut Connection) -> Vec<u8> {
    match connection.call(&[b"SCRIPT", b"LOAD", SCRIPT.as_bytes()]) {
        Reply::Bulk(digest) => digest,
        other => panic!("{other:?}"),
    }
}

/// The time that the simulated server takes from its caller.
#[expect(
    clippy::disallowed_methods,
    reason = "it is compared with a real server's clock"
)]
pub(crate) fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("the clock shows a time after 1970")
}

impl<'r> Pair<'r> {
    /// Two empty servers with connections. The last connection speaks RESP2.
    pub(crate) fn new(real: &'r Real) -> Self {
        let mut operator = real.connect();
        let digest = load(&mut operator);
        for command in [
            &["CONFIG", "SET", "maxmemory", "0"][..],
            &["FLUSHALL"],
            &["SCRIPT", "FLUSH"],
            // Active expiry is off, because it would push expired keys at unpredictable times.
            &["DEBUG", "SET-ACTIVE-EXPIRE", "0"],
        ] {
            let command: Vec<&[u8]> = command.iter().map(|word| word.as_bytes()).collect();
            assert_eq!(operator.call(&command), Reply::Simple("OK".to_owned()));
        }
        let mut pair = Self {
            real,
            simulated: Server::new(0),
            operator,
            digest,
            connections: Vec::new(),
            next: 1,
        };
        for place in 0..CONNECTIONS {
            let connected = pair.connect(place);
            pair.connections.push(connected);
        }
        pair
    }

    fn connect(&mut self, place: usize) -> Connected {
        let mut real = self.real.connect();
        let Reply::Integer(real_id) = real.call(&[b"CLIENT", b"ID"]) else {
            panic!("CLIENT ID does not answer with a number");
        };
        let simulated = self.next;
        self.next += 1;
        self.simulated.connect(simulated);
        if place + 1 < CONNECTIONS {
            real.call(&[b"HELLO", b"3"]);
            self.simulated
                .receive(simulated, &encode(&[b"HELLO", b"3"]), now());
            self.simulated.take_output();
        }
        Connected {
            real,
            real_id,
            simulated,
        }
    }

    /// Makes the memory of both servers run out or recover.
    pub(crate) fn set_out_of_memory(&mut self, out: bool) {
        let most: &[u8] = if out { b"1" } else { b"0" };
        self.operator.call(&[b"CONFIG", b"SET", b"maxmemory", most]);
        self.simulated.set_out_of_memory(out);
    }

    /// Sends commands in one write on one connection, and compares the output of every connection.
    pub(crate) fn send(&mut self, place: usize, commands: &[Vec<Vec<u8>>]) -> Result<(), String> {
        let (mut to_real, mut to_simulated) = (Vec::new(), Vec::new());
        for command in commands {
            to_real.extend(self.encode_for(command, |connected| connected.real_id));
            to_simulated.extend(self.encode_for(command, |connected| {
                i64::try_from(connected.simulated).unwrap_or(i64::MAX)
            }));
        }
        let connected = &mut self.connections[place];
        connected.real.send(&to_real);
        self.simulated
            .receive(connected.simulated, &to_simulated, now());
        let output = self.simulated.take_output();
        let closed = self.simulated.take_closed();
        let mut expected = self.by_place(output);
        let sent = expected.remove(&place).unwrap_or_default();
        self.compare_one(place, &sent, &closed)?;
        // The pushes to other connections are already sent, so they come before the answer to a
        // `PING`.
        for other in 0..CONNECTIONS {
            let before = expected.remove(&other).unwrap_or_default();
            self.compare_other(other, before, &closed)?;
        }
        Ok(())
    }

    /// Encodes a command. `@n` is replaced by the id of connection n, and `@script` by the digest.
    fn encode_for(&self, command: &[Vec<u8>], id: impl Fn(&Connected) -> i64) -> Vec<u8> {
        let words: Vec<Vec<u8>> = command
            .iter()
            .map(|word| match &word[..] {
                b"@script" => self.digest.clone(),
                [b'@', digit] => {
                    let place = usize::from(digit - b'0');
                    id(&self.connections[place]).to_string().into_bytes()
                }
                _ => word.clone(),
            })
            .collect();
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        encode(&words)
    }

    fn by_place(&self, output: Vec<(ConnectionId, Vec<u8>)>) -> BTreeMap<usize, Vec<u8>> {
        let mut by_place: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
        for (id, bytes) in output {
            let place = self.connections.iter().position(|c| c.simulated == id);
            let place = place.expect("output belongs to a connection");
            by_place.entry(place).or_default().extend(bytes);
        }
        by_place
    }

    fn compare_one(
        &mut self,
        place: usize,
        expected: &[u8],
        closed: &[ConnectionId],
    ) -> Result<(), String> {
        let expected = split(expected);
        let connected = &mut self.connections[place];
        let found = match closed.contains(&connected.simulated) {
            true => connected.real.until_closed(),
            false => connected.real.frames(expected.len()),
        };
        compare(place, &found, &expected)
    }

    fn compare_other(
        &mut self,
        place: usize,
        before: Vec<u8>,
        closed: &[ConnectionId],
    ) -> Result<(), String> {
        let connected = &mut self.connections[place];
        if closed.contains(&connected.simulated) {
            connected.real.until_closed();
            if !connected.real.is_closed {
                return Err(format!("Redis has not closed connection {place}"));
            }
            self.connections[place] = self.connect(place);
            return Ok(());
        }
        let barrier = encode(&[b"PING", b"barrier"]);
        connected.real.send(&barrier);
        self.simulated.receive(connected.simulated, &barrier, now());
        let id = connected.simulated;
        let output = self.simulated.take_output();
        let mut expected: Frames = split(&before);
        for (told, bytes) in output {
            assert_eq!(told, id, "a PING causes output to another connection");
            expected.extend(split(&bytes));
        }
        let connected = &mut self.connections[place];
        let found = connected.real.frames(expected.len());
        compare(place, &found, &expected)
    }
}
