//! Tests of the simulated Redis in situations that a test cannot force on a real Redis: the end of
//! a turn of the event loop, a restart, a fault. The log of effects is tested too.

use std::time::Duration;

use curfew_simulation::redis::{ConnectionId, Effect, Executed, Reply, Server};

const NOW: Duration = Duration::from_secs(1_795_916_763);

fn encode(line: &str) -> Vec<u8> {
    let words: Vec<&str> = line.split(' ').collect();
    let mut bytes = format!("*{}\r\n", words.len());
    for word in words {
        bytes.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    bytes.into_bytes()
}

fn run(server: &mut Server, line: &str) -> Reply {
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    server.run(NOW, &words)
}

fn ok() -> Reply {
    Reply::Simple("OK".to_owned())
}

/// Ends the turn, and returns the output to a connection.
fn told(server: &mut Server, id: ConnectionId) -> String {
    let output = server.take_output();
    let own = output
        .into_iter()
        .filter(|(to, _)| *to == id)
        .map(|(_, bytes)| bytes);
    String::from_utf8(own.collect::<Vec<_>>().concat()).expect("the output is text")
}

/// A server with a connection that tracks revocations.
fn tracking(id: ConnectionId) -> Server {
    let mut server = Server::new(1);
    server.connect(id);
    server.receive(id, &encode("HELLO 3"), NOW);
    server.receive(id, &encode("CLIENT TRACKING ON BCAST PREFIX r:"), NOW);
    told(&mut server, id);
    server
}

#[test]
fn a_reply_comes_before_the_push_of_what_was_written_earlier_in_the_turn() {
    let mut server = tracking(1);
    server.connect(2);
    server.receive(2, &encode("SET r:all 5"), NOW);
    server.receive(1, &encode("PING"), NOW);
    assert_eq!(
        told(&mut server, 1),
        "+PONG\r\n>2\r\n$10\r\ninvalidate\r\n*1\r\n$5\r\nr:all\r\n"
    );
}

#[test]
fn an_operator_causes_pushes_like_any_other_client() {
    let mut server = tracking(1);
    assert_eq!(run(&mut server, "SET r:all 5"), ok());
    assert!(told(&mut server, 1).contains("r:all"));
    assert_eq!(run(&mut server, "FLUSHALL"), ok());
    assert_eq!(told(&mut server, 1), ">2\r\n$10\r\ninvalidate\r\n_\r\n",);
}

#[test]
fn a_restart_closes_every_connection_and_forgets_scripts() {
    let script = include_str!("../../../crates/curfew-backend-redis/src/fence/publish.lua");
    let mut server = tracking(1);
    let info = |server: &mut Server| match run(server, "INFO server") {
        Reply::Bulk(text) => String::from_utf8(text).expect("the answer to INFO is text"),
        other => panic!("{other:?}"),
    };
    let load: [&[u8]; 3] = [b"SCRIPT", b"LOAD", script.as_bytes()];
    let Reply::Bulk(digest) = server.run(NOW, &load) else {
        panic!("SCRIPT LOAD does not answer with a digest");
    };
    let evalsha: [&[u8]; 4] = [b"EVALSHA", &digest, b"0", b"9007199254740992"];
    assert_eq!(
        server.run(NOW, &evalsha),
        Reply::Integer(1_795_916_763_000_000)
    );
    run(&mut server, "SET a 1 PX 1000");
    let (before, snapshot) = (info(&mut server), server.snapshot());
    run(&mut server, "SET a 2");

    server.restart(Some(snapshot), NOW);
    assert_eq!(server.take_closed(), [1]);
    assert!(server.take_output().is_empty());
    assert_ne!(info(&mut server), before);
    assert!(
        matches!(server.run(NOW, &evalsha), Reply::Error(text) if text.starts_with("NOSCRIPT"))
    );
    assert_eq!(server.get(b"a", NOW), Some(b"1".to_vec()));
    assert_eq!(
        server.next_expiry(),
        Some(NOW + Duration::from_millis(1001))
    );
    server.connect(1);
    run(&mut server, "SET r:all 1");
    assert_eq!(told(&mut server, 1), "");

    server.restart(None, NOW);
    assert!(server.keys(NOW).is_empty());
}

#[test]
fn a_key_is_there_until_its_millisecond_is_over() {
    let mut server = Server::new(1);
    run(&mut server, "SET a 1 PX 1000");
    let end = NOW + Duration::from_millis(1000);
    assert_eq!(server.get(b"a", end), Some(b"1".to_vec()));
    assert_eq!(server.get(b"a", end + Duration::from_millis(1)), None);
    server.expire(end);
    assert_eq!(server.keys(end).len(), 1);
    server.expire(end + Duration::from_millis(1));
    assert_eq!(run(&mut server, "DBSIZE"), Reply::Integer(0));
}

#[test]
fn what_was_done_is_logged() {
    let mut server = tracking(1);
    server.receive(1, &encode("SUBSCRIBE c"), NOW);
    server.receive(1, &encode("SET r:a 1 PX 5"), NOW);
    server.receive(1, &encode("GET r:a"), NOW);
    server.receive(1, &encode("PUBLISH c hello"), NOW);
    run(&mut server, "ZADD z 1 m");
    let later = NOW + Duration::from_secs(1);
    server.expire(later);
    let key = b"r:a".to_vec();
    let done = [
        (
            NOW,
            Some(1),
            Effect::Set {
                key: key.clone(),
                value: b"1".to_vec(),
            },
        ),
        (
            NOW,
            Some(1),
            Effect::Published {
                channel: b"c".to_vec(),
                payload: b"hello".to_vec(),
                receivers: 1,
            },
        ),
        (
            NOW,
            None,
            Effect::Other {
                command: "ZADD".to_owned(),
                key: b"z".to_vec(),
            },
        ),
        (later, None, Effect::Removed { key }),
    ];
    assert_eq!(
        server.take_log(),
        done.map(|(at, by, what)| Executed { at, by, what })
    );
    assert!(server.take_log().is_empty());
}

#[test]
fn a_connection_that_is_killed_hears_no_more() {
    let mut server = tracking(1);
    server.connect(2);
    server.receive(2, &encode("SUBSCRIBE c"), NOW);
    assert_eq!(run(&mut server, "CLIENT KILL ID 1"), Reply::Integer(1));
    assert_eq!(
        run(&mut server, "CLIENT KILL TYPE pubsub"),
        Reply::Integer(1)
    );
    assert_eq!(server.take_closed(), [1, 2]);
    assert_eq!(run(&mut server, "PUBLISH c m"), Reply::Integer(0));
    server.receive(1, &encode("PING"), NOW);
    server.disconnect(1);
    assert!(server.take_output().is_empty());
}

#[test]
fn a_script_that_is_not_known_is_refused() {
    let mut server = Server::new(1);
    let reply = server.run(NOW, &[b"EVAL", b"return 1", b"0"]);
    assert!(matches!(reply, Reply::Error(text) if text.contains("does not know this script")));
}
