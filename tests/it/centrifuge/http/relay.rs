//! Commands that arrive at a node other than their session's.

use curfew_testkit::PATIENCE;
use curfew_testkit::mint::Key;
use curfew_tests::{Cluster, Gateway, Redis, eventually, revocation_key};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::stream::{Client, KINDS, Kind, delimited, field, part};
use super::{alice, number, publication, publish, settings, subscribe};

/// A connection to Redis, and all bytes received on it.
struct Tap {
    stream: TcpStream,
    heard: Vec<u8>,
}

impl Tap {
    async fn open(redis: &Redis, command: &str) -> Self {
        let mut stream = TcpStream::connect(redis.address()).await.unwrap();
        stream.write_all(command.as_bytes()).await.unwrap();
        let mut tap = Self {
            stream,
            heard: Vec::new(),
        };
        tap.until(b"\r\n").await;
        tap
    }

    fn find(&self, wanted: &[u8]) -> Option<usize> {
        let mut parts = self.heard.windows(wanted.len());
        parts.position(|part| part == wanted)
    }

    /// Reads until `wanted` arrives. Returns the position after it.
    async fn until(&mut self, wanted: &[u8]) -> usize {
        loop {
            if let Some(at) = self.find(wanted) {
                return at;
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.heard));
            assert_ne!(
                read.await
                    .expect("Redis sends these bytes in time")
                    .unwrap(),
                0
            );
        }
    }

    /// The next message that one node sends to another node: its Redis channel and its bytes. Skips
    /// answers.
    async fn message(&mut self) -> (String, Vec<u8>) {
        loop {
            let at = self.until(b":relay:").await;
            self.heard.drain(..at);
            let end = self.until(b"\r\n$").await;
            let channel = String::from_utf8(self.heard.drain(..end).collect()).unwrap();
            self.heard.drain(..3);
            let end = self.until(b"\r\n").await;
            let length: String = String::from_utf8(self.heard.drain(..end).collect()).unwrap();
            let length: usize = length.parse().unwrap();
            while self.heard.len() < length + 4 {
                let read = timeout(PATIENCE, self.stream.read_buf(&mut self.heard));
                assert_ne!(
                    read.await
                        .expect("Redis sends the whole message in time")
                        .unwrap(),
                    0
                );
            }
            let message: Vec<u8> = self.heard.drain(..length + 2).skip(2).collect();
            if message.first() == Some(&b'?') {
                return (format!("curfew{channel}"), message);
            }
        }
    }
}

async fn two_nodes(redis: &Redis) -> Cluster {
    Cluster::start(2, &redis.url(), &settings()).await
}

async fn relayed(node: &Gateway) -> f64 {
    node.metric("curfew_emulation_requests_total{outcome=\"relayed\"}")
        .await
}

/// Replaces the session's token. Returns the new token.
async fn refresh(client: &mut Client, kind: Kind) -> String {
    let token = alice();
    match kind {
        Kind::Protobuf => {
            let refresh = field(14, &field(1, token.as_bytes()));
            client
                .send(&delimited(&[&[0x08, 9][..], &refresh].concat()))
                .await;
            let reply = client.message().await.unwrap();
            assert_eq!((number(&reply, 1), part(&reply, 2)), (Some(9), None));
        }
        Kind::Json | Kind::Sse => {
            let command = json!({"id":9,"refresh":{"token":token}});
            client.send(command.to_string().as_bytes()).await;
            let reply = client.next().await;
            assert!(reply["refresh"].is_object(), "{reply}");
        }
    }
    token
}

#[tokio::test]
async fn any_node_takes_the_commands_of_a_session_in_order() {
    let redis = Redis::start().await;
    let cluster = two_nodes(&redis).await;
    let (here, there) = (&cluster[0], &cluster[1]);
    for kind in KINDS {
        let mut listener = Client::open(here, kind, &alice()).await;
        let mut publisher = Client::open(here, kind, &alice()).await;
        listener.send_by(there);
        subscribe(&mut listener, kind, "news").await;
        for n in 0..40 {
            publisher.send_by(if n % 3 == 0 { here } else { there });
            publish(&mut publisher, kind, "news", &n.to_string()).await;
        }
        for n in 0..40 {
            let data = publication(&mut listener, kind).await;
            assert_eq!(data, n.to_string().into_bytes());
        }
        // A publication almost as long as a message may be.
        let long = json!("x".repeat(60_000)).to_string();
        publisher.send_by(there);
        publish(&mut publisher, kind, "news", &long).await;
        assert_eq!(publication(&mut listener, kind).await, long.into_bytes());
        for _ in 0..41 {
            publisher.message().await.unwrap();
        }
        refresh(&mut publisher, kind).await;
    }
    assert!(relayed(there).await >= 3.0 * 29.0);
    assert_eq!(relayed(here).await, 0.0);
    cluster.assert_well().await;
}

#[tokio::test]
async fn redis_is_shown_neither_a_token_nor_the_secret_of_a_session() {
    let redis = Redis::start().await;
    let cluster = two_nodes(&redis).await;
    let mut monitor = Tap::open(&redis, "MONITOR\r\n").await;
    let mut told = Tap::open(&redis, "PSUBSCRIBE *\r\n").await;
    for kind in KINDS {
        let mut client = Client::open(&cluster[0], kind, &alice()).await;
        client.send_by(&cluster[1]);
        let token = refresh(&mut client, kind).await;
        let (_, message) = told.message().await;
        assert!(message.len() > token.len());
        redis.run(&["ECHO", "the end"]).await;
        monitor.until(b"the end").await;
        for secret in [token.rsplit('.').next().unwrap(), &client.session] {
            assert!(
                !message
                    .windows(secret.len())
                    .any(|part| part == secret.as_bytes())
            );
            assert_eq!(monitor.find(secret.as_bytes()), None);
            assert_eq!(told.find(secret.as_bytes()), None);
            for node in cluster.nodes() {
                assert!(!node.log().text().contains(secret));
            }
        }
        monitor.heard.clear();
    }
}

#[tokio::test]
async fn a_message_that_is_sent_again_or_changed_does_nothing() {
    let redis = Redis::start().await;
    let cluster = two_nodes(&redis).await;
    let mut told = Tap::open(&redis, "PSUBSCRIBE *\r\n").await;
    for kind in KINDS {
        let mut client = Client::open(&cluster[0], kind, &alice()).await;
        client.send_by(&cluster[1]);
        subscribe(&mut client, kind, "room:1").await;
        told.message().await;
        let mut publisher = Client::open(&cluster[0], kind, &alice()).await;
        publisher.send_by(&cluster[1]);
        publish(&mut publisher, kind, "room:1", "1").await;
        assert_eq!(publication(&mut client, kind).await, b"1");
        let (channel, message) = told.message().await;
        let dropped = async |reason: &str| {
            let name = format!("curfew_emulation_dropped_total{{reason=\"{reason}\"}}");
            cluster[0].metric(&name).await
        };
        let before = (dropped("replayed").await, dropped("unreadable").await);
        let mut changed = message.clone();
        *changed.last_mut().unwrap() ^= 1;
        for (message, times) in [(&message, 3), (&changed, 2)] {
            for _ in 0..times {
                let command = [b"PUBLISH", channel.as_bytes(), message];
                assert!(redis.run(&command).await.integer() >= 2);
                told.message().await;
            }
        }
        eventually("the messages to be dropped", async || {
            let after = (dropped("replayed").await, dropped("unreadable").await);
            (after == (before.0 + 3.0, before.1 + 2.0)).then_some(())
        })
        .await;
        // The session still accepts commands that its own client sends.
        publish(&mut publisher, kind, "room:1", "2").await;
        told.message().await;
        assert_eq!(publication(&mut client, kind).await, b"2");
    }
}

#[tokio::test]
async fn a_node_or_a_session_that_is_gone_takes_nothing() {
    let redis = Redis::start().await;
    let mut cluster = two_nodes(&redis).await;
    let kind = Kind::Json;
    let mut client = Client::open(&cluster[0], kind, &alice()).await;
    client.send_by(&cluster[1]);
    let command = br#"{"id":9,"unsubscribe":{"channel":"news"}}"#;
    // A request for an unknown session gets the same answer as a request for an existing session.
    // The session's own node gives this answer as well.
    for session in ["unknown", client.id.as_str(), &"A".repeat(43)] {
        let answer = client.send_as(session, &client.node, command, &[]).await;
        assert_eq!((answer.status, answer.body.len()), (204, 0), "{session}");
    }
    let unknown = "01980000-0000-7000-8000-000000000000";
    for node in ["", "nowhere", unknown] {
        let answer = client.send_as(&client.session, node, command, &[]).await;
        assert_eq!(answer.status, 404, "{node}");
    }
    let mut dead = cluster.remove(0);
    dead.signal("KILL");
    dead.exited(PATIENCE).await;
    // The other node considers the killed node alive until the killed node's lease has expired.
    eventually("the node to be known as gone", async || {
        let answer = client
            .send_as(&client.session, &client.node, command, &[])
            .await;
        assert!([404, 503].contains(&answer.status), "{}", answer.status);
        (answer.status == 404).then_some(())
    })
    .await;
}

#[tokio::test]
async fn commands_wait_for_no_redis_that_is_away() {
    let mut redis = Redis::start().await;
    let cluster = two_nodes(&redis).await;
    let mut client = Client::open(&cluster[0], Kind::Json, &alice()).await;
    client.send_by(&cluster[1]);
    subscribe(&mut client, Kind::Json, "news").await;
    redis.kill();
    let command = br#"{"id":9,"history":{"channel":"news"}}"#;
    let answer = client
        .send_as(&client.session, &client.node, command, &[])
        .await;
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").is_some());
    redis.restart().await;
    cluster.synced().await;
    eventually("commands to be accepted again", async || {
        let answer = client
            .send_as(&client.session, &client.node, command, &[])
            .await;
        assert!([204, 503].contains(&answer.status), "{}", answer.status);
        (answer.status == 204).then_some(())
    })
    .await;
    assert_eq!(client.next().await["id"], 9);
}

#[tokio::test]
async fn a_revoked_session_executes_nothing_that_comes_by_another_node() {
    let redis = Redis::start().await;
    let cluster = two_nodes(&redis).await;
    for (n, kind) in KINDS.into_iter().enumerate() {
        let user = format!("user-{n}");
        let token = Key::default_secret().user(&user);
        let mut listener = Client::open(&cluster[1], kind, &alice()).await;
        subscribe(&mut listener, kind, "news").await;
        let mut revoked = Client::open(&cluster[0], kind, &token).await;
        revoked.send_by(&cluster[1]);
        publish(&mut revoked, kind, "news", "1").await;
        assert_eq!(publication(&mut listener, kind).await, b"1");
        let key = revocation_key("user", &user);
        redis.run(&["SET", &key, "1", "EX", "600"]).await;
        revoked.rest().await;
        publish(&mut revoked, kind, "news", "2").await;
        cluster[1].publish("news", json!(3)).await;
        assert_eq!(publication(&mut listener, kind).await, b"3");
    }
}

#[tokio::test]
async fn requests_for_sessions_that_nobody_knows_are_within_the_rate_of_handshakes() {
    let redis = Redis::start().await;
    let settings = settings().with("limits.handshakes_per_second = 5");
    let cluster = Cluster::start(2, &redis.url(), &settings).await;
    let mut client = Client::open(&cluster[0], Kind::Json, &alice()).await;
    client.send_by(&cluster[1]);
    subscribe(&mut client, Kind::Json, "news").await;
    let command = br#"{"id":9,"unsubscribe":{"channel":"news"}}"#;
    let stranger = "A".repeat(43);
    eventually("requests of strangers to be refused", async || {
        let answer = client.send_as(&stranger, &client.node, command, &[]).await;
        assert!([204, 503].contains(&answer.status), "{}", answer.status);
        (answer.status == 503).then_some(())
    })
    .await;
    // Commands that a session accepts do not count towards the rate of handshakes.
    for n in 0..10 {
        client.send_by(&cluster[n % 2]);
        publish(&mut client, Kind::Json, "news", "1").await;
    }
}
