//! Cases that random sequences leave out: raw bytes, passing time, replicas, undefined orders.

use std::collections::BTreeSet;
use std::time::Duration;

use curfew_simulation::redis::{Reply, Server};

use crate::compare::{compare, split};
use crate::pair::{SCRIPT, load, now};
use crate::real::{Connection, Real, encode};

/// The id of the only connection of the simulated server in these tests.
const ONLY: u64 = 1;

fn simulated() -> Server {
    let mut simulated = Server::new(7);
    simulated.connect(ONLY);
    simulated
}

/// Sends the same bytes to both servers, whose answers must be equal.
fn same(real: &mut Connection, simulated: &mut Server, bytes: &[u8]) {
    simulated.receive(ONLY, bytes, now());
    let expected = simulated.take_output();
    let expected = expected
        .into_iter()
        .flat_map(|(_, bytes)| split(&bytes))
        .collect();
    let is_closed = !simulated.take_closed().is_empty();
    real.send(bytes);
    let found = match is_closed {
        true => real.until_closed(),
        false => real.frames(Vec::len(&expected)),
    };
    assert_eq!(real.is_closed, is_closed);
    compare(0, &found, &expected).unwrap_or_else(|differs| panic!("{differs}"));
}

fn words(line: &str) -> Vec<u8> {
    encode(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>())
}

#[test]
fn bytes_that_are_no_command_end_the_connection() {
    let real = Real::start();
    for bytes in [
        &b"*2\r\n$4\r\nECHO\r\nx5\r\nhello\r\n"[..],
        b"*x\r\n",
        b"*1\r\n$-5\r\n",
        b"*1\r\n$x\r\n",
        b"*99999999999\r\n",
        b"*1\r\n$4\r\nPING\r\n*1\r\n+PING\r\n*1\r\n$4\r\nPING\r\n",
        b"*1\r\n$4\r\nQUIT\r\n*1\r\n$4\r\nPING\r\n",
    ] {
        same(&mut real.connect(), &mut simulated(), bytes);
    }
}

#[test]
fn lines_and_empty_commands_are_taken() {
    let real = Real::start();
    let (mut connection, mut simulated) = (real.connect(), simulated());
    for bytes in [
        &b"PING\r\n"[..],
        b"\r\n*0\r\nECHO  hello \n",
        b"*-1\r\nping\r\n",
    ] {
        same(&mut connection, &mut simulated, bytes);
    }
}

#[test]
fn a_command_may_come_byte_by_byte() {
    let mut simulated = simulated();
    let bytes = [words("SET a b"), words("GET a"), b"PING\r\n".to_vec()].concat();
    let mut told = Vec::new();
    for byte in &bytes {
        simulated.receive(ONLY, std::slice::from_ref(byte), now());
        told.extend(
            simulated
                .take_output()
                .into_iter()
                .flat_map(|(_, bytes)| bytes),
        );
    }
    assert_eq!(told, b"+OK\r\n$1\r\nb\r\n+PONG\r\n");
}

#[test]
fn keys_that_end_are_told_of_by_themselves() {
    let real = Real::start();
    let (mut connection, mut simulated) = (real.connect(), simulated());
    for line in [
        "HELLO 3",
        "CLIENT TRACKING ON BCAST PREFIX p:",
        "SET q:a 1 PX 60",
    ] {
        same(&mut connection, &mut simulated, &words(line));
    }
    let set = words("SET p:a 1 PX 50");
    simulated.receive(ONLY, &set, now());
    connection.send(&set);
    // The three frames are the answer to the write, the push about the write, and the push about
    // the expiry.
    let found = connection.frames(3);
    let mut expected = simulated.take_output();
    while let Some(next) = simulated.next_expiry() {
        simulated.expire(next - Duration::from_millis(1));
        assert_eq!(
            simulated.next_expiry(),
            Some(next),
            "the key exists until its expiry"
        );
        simulated.expire(next);
        expected.extend(simulated.take_output());
    }
    let expected = expected
        .into_iter()
        .flat_map(|(_, bytes)| split(&bytes))
        .collect();
    compare(0, &found, &expected).unwrap_or_else(|differs| panic!("{differs}"));
    assert!(simulated.keys(now()).is_empty());
}

#[test]
fn a_replica_refuses_what_it_should() {
    let real = Real::start();
    let (mut connection, mut simulated) = (real.connect(), simulated());
    for line in [
        "HELLO 3",
        "SET there 1",
        "SET lapsed 1 PXAT 1",
        "MULTI",
        "SET a b",
    ] {
        same(&mut connection, &mut simulated, &words(line));
    }
    real.connect().call(&[b"REPLICAOF", b"127.0.0.1", b"1"]);
    simulated.set_replica(true);
    let digest = load(&mut real.connect());
    let digest = str::from_utf8(&digest).expect("a digest is text");
    real.connect().call(&[b"SCRIPT", b"FLUSH"]);
    for line in [
        "EXEC",
        "SET a b",
        "DEL there",
        "GET there",
        "EXISTS lapsed",
        "DBSIZE",
        "KEYS lap*",
        "HELLO 3",
        "PUBLISH c m",
        "WAIT 1 10",
        "MULTI",
        "GET there",
        "SET a b",
        "EXEC",
        &format!("EVALSHA {digest} 0 9007199254740992"),
    ] {
        same(&mut connection, &mut simulated, &words(line));
    }
    same(
        &mut connection,
        &mut simulated,
        &encode(&[b"SCRIPT", b"LOAD", SCRIPT.as_bytes()]),
    );
    same(
        &mut connection,
        &mut simulated,
        &words(&format!("EVALSHA {digest} 0 9007199254740992")),
    );
    for reply in [
        connection.call(&[b"ROLE"]),
        simulated.run(now(), &[b"ROLE"]),
    ] {
        let Reply::Array(role) = reply else {
            panic!("{reply:?}");
        };
        assert_eq!((role.len(), &role[0]), (5, &Reply::Bulk(b"slave".to_vec())));
    }
}

#[test]
fn what_is_read_of_info_is_there() {
    let real = Real::start();
    let info = |reply: Reply| match reply {
        Reply::Bulk(text) => String::from_utf8(text).expect("the answer to INFO is text"),
        other => panic!("{other:?}"),
    };
    let field = |info: &str, name: &str| {
        let found = info
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        found.map(str::to_owned)
    };
    let of_real = info(real.connect().call(&[b"INFO"]));
    let of_simulated = info(simulated().run(now(), &[b"INFO"]));
    for name in [
        "redis_version",
        "maxmemory_policy",
        "aof_enabled",
        "connected_slaves",
        "role",
        "loading",
        "min_slaves_good_slaves",
    ] {
        assert_eq!(field(&of_simulated, name), field(&of_real, name), "{name}");
    }
    for name in ["run_id", "master_replid"] {
        let lengths = [&of_simulated, &of_real].map(|info| field(info, name).map(|id| id.len()));
        assert_eq!(lengths, [Some(40), Some(40)], "{name}");
    }
    let Reply::Array(time) =
        simulated().run(Duration::from_micros(1_500_000_000_000_042), &[b"TIME"])
    else {
        panic!("TIME does not answer with an array");
    };
    assert_eq!(
        time,
        [
            Reply::Bulk(b"1500000000".to_vec()),
            Reply::Bulk(b"42".to_vec())
        ]
    );
}

/// Scans a set of 500 members, and removes each member that the scan returns. Returns these
/// members.
fn scanned(mut call: impl FnMut(&[&[u8]]) -> Reply) -> BTreeSet<Vec<u8>> {
    let names: Vec<String> = (0..500).map(|number| format!("member:{number}")).collect();
    let mut add: Vec<&[u8]> = vec![b"SADD", b"set"];
    add.extend(names.iter().map(String::as_bytes));
    assert_eq!(call(&add), Reply::Integer(500));
    let mut cursor = b"0".to_vec();
    let mut all = BTreeSet::new();
    loop {
        let Reply::Array(page) = call(&[b"SSCAN", b"set", &cursor, b"COUNT", b"20"]) else {
            panic!("SSCAN does not answer with an array");
        };
        let [Reply::Bulk(next), Reply::Array(members)] = &page[..] else {
            panic!("{page:?}");
        };
        for member in members {
            let Reply::Bulk(member) = member else {
                panic!("{member:?}");
            };
            call(&[b"SREM", b"set", member]);
            all.insert(member.clone());
        }
        if next == b"0" {
            return all;
        }
        cursor.clone_from(next);
    }
}

#[test]
fn a_scan_meets_every_member_while_members_are_removed() {
    let real = Real::start();
    let mut connection = real.connect();
    let mut simulated = simulated();
    let found = scanned(|command| simulated.run(now(), command));
    assert_eq!(found, scanned(|command| connection.call(command)));
    assert_eq!(found.len(), 500);
    assert_eq!(
        simulated.run(now(), &[b"EXISTS", b"set"]),
        Reply::Integer(0)
    );
}

#[test]
fn keys_are_scanned_by_pattern_and_type() {
    let real = Real::start();
    let (mut connection, mut simulated) = (real.connect(), simulated());
    for number in 0..50 {
        let line = match number % 3 {
            0 => format!("SET a:{number} 1"),
            1 => format!("SADD a:{number} 1"),
            _ => format!("SET b:{number} 1"),
        };
        same(&mut connection, &mut simulated, &words(&line));
    }
    let all = |call: &mut dyn FnMut(&[&[u8]]) -> Reply, options: &[&[u8]]| {
        let (mut cursor, mut all) = (b"0".to_vec(), BTreeSet::new());
        loop {
            let mut command: Vec<&[u8]> = vec![b"SCAN", &cursor];
            command.extend(options);
            let Reply::Array(page) = call(&command) else {
                panic!("SCAN does not answer with an array");
            };
            let [Reply::Bulk(next), Reply::Array(keys)] = &page[..] else {
                panic!("{page:?}");
            };
            all.extend(keys.iter().map(|key| format!("{key:?}")));
            if next == b"0" {
                return all;
            }
            cursor.clone_from(next);
        }
    };
    for options in ["", "MATCH a:*", "TYPE set COUNT 7"] {
        let options: Vec<&[u8]> = options.split_terminator(' ').map(str::as_bytes).collect();
        assert_eq!(
            all(&mut |command| simulated.run(now(), command), &options),
            all(&mut |command| connection.call(command), &options),
        );
    }
    for line in [
        "SCAN x",
        "SCAN 0 COUNT 0",
        "SCAN 0 WHAT 1",
        "SSCAN a:1 x",
        "SSCAN a:0 0",
        "SSCAN none 0",
    ] {
        same(&mut connection, &mut simulated, &words(line));
    }
}

#[test]
fn members_are_a_set() {
    let real = Real::start();
    let (mut connection, mut simulated) = (real.connect(), simulated());
    for line in [
        "HELLO 3",
        "SADD set c b a 3 2 1",
        "SMEMBERS set",
        "SMEMBERS none",
        "SET s 1",
        "SMEMBERS s",
    ] {
        same(&mut connection, &mut simulated, &words(line));
    }
}
