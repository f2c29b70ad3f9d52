//! Tests of a session to whose socket two kinds of tasks write: the session's own task, and the
//! node's flushers (see `Hub::set_flushers`).

use curfew_model::boottime;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use super::peer::{TEXT, frame};
use super::*;

/// Size of each buffer of a socket. It is small, so that the sockets are often full.
const SOCKET_BYTES: u32 = 4 * 1024;

/// A number of bytes that the buffers of two sockets cannot hold.
const LARGE: usize = 60_000;

impl Harness {
    /// A session of alice on a TCP socket.
    async fn open_tcp(&self) -> Peer {
        let listener = TcpSocket::new_v4().unwrap();
        listener.set_send_buffer_size(SOCKET_BYTES).unwrap();
        listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = listener.listen(1).unwrap();
        let client = TcpSocket::new_v4().unwrap();
        client.set_recv_buffer_size(SOCKET_BYTES).unwrap();
        let address = listener.local_addr().unwrap();
        let (client, server) = tokio::join!(client.connect(address), listener.accept());
        let attachment = self.admit(json!({})).await;
        let server: TcpStream = server.unwrap().0;
        self.serve(Transport::Plain(server), Opening::Admitted(attachment), &[]);
        let mut peer = Peer::new(client.unwrap());
        peer.expect("connected").await;
        peer
    }
}

/// A frame is written either by a flusher or by the session's task, which the client's commands
/// keep awake. Different flushers write, because publishers move between threads.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_that_is_published_arrives_once_and_in_order() {
    const PUBLISHERS: usize = 3;
    const MESSAGES: u64 = 7_000;
    const ALL: u64 = PUBLISHERS as u64 * MESSAGES;
    let harness = Arc::new(Harness::with(|settings| {
        settings.limits.outbound_bytes = 1 << 30;
        settings.limits.node_outbound_bytes = 0;
    }));
    let mut peers = Vec::new();
    for _ in 0..4 {
        let mut peer = harness.open_tcp().await;
        peer.ok(SUBSCRIBE).await;
        peers.push(peer);
    }
    let mut tasks = JoinSet::new();
    for (number, mut peer) in peers.into_iter().enumerate() {
        tasks.spawn(async move {
            let mut next = [0; PUBLISHERS];
            let (mut all, mut asked, mut answered) = (0, 0, 0);
            while all < ALL || answered < asked {
                let text = peer.text().await;
                match text["type"].as_str().unwrap() {
                    "message" => {
                        let data = &text["data"];
                        let by = data["by"].as_u64().unwrap() as usize;
                        assert_eq!(data["n"], next[by]);
                        next[by] += 1;
                        all += 1;
                    }
                    "pong" => answered += 1,
                    other => panic!("{other}"),
                }
                // Each client sends commands at a different rate.
                if all % (number as u64 * 20 + 3) == 0 && asked < all {
                    peer.send_bytes(&frame(TEXT, br#"{"type":"ping","id":1}"#))
                        .await;
                    asked += 1;
                }
            }
            assert!(asked > 0);
        });
    }
    for by in 0..PUBLISHERS {
        let harness = Arc::clone(&harness);
        tasks.spawn(async move {
            for n in 0..MESSAGES {
                let padding = "x".repeat(fastrand::usize(..2_000));
                let data = format!(r#"{{"by":{by},"n":{n},"padding":"{padding}"}}"#);
                harness.publish("room", &data);
                // The publisher pauses between bursts, so that the sessions become idle.
                if fastrand::u8(..) < 40 {
                    tokio::task::yield_now().await;
                }
                if fastrand::u16(..) < 400 {
                    time::sleep(Duration::from_millis(1)).await;
                }
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    // The number of queued bytes is reduced only after a write returns. By then, a client may
    // already have received the bytes.
    let nothing_queued = async {
        while harness.hub().queued_bytes() > 0 {
            time::sleep(Duration::from_millis(1)).await;
        }
    };
    let settled = time::timeout(Duration::from_secs(10), nothing_queued).await;
    assert!(settled.is_ok(), "{} bytes", harness.hub().queued_bytes());
}

#[tokio::test]
async fn a_frame_that_a_flusher_began_is_completed_before_anything_else_is_written() {
    let harness = Harness::with(|settings| settings.limits.outbound_bytes = 1 << 30);
    let mut peer = harness.open_tcp().await;
    peer.ok(SUBSCRIBE).await;
    let sent = || harness.hub().metrics().sent_bytes.get();
    let before = sent();
    let large = "x".repeat(LARGE);
    harness.publish("room", &format!("{large:?}"));
    while sent() == before {
        tokio::task::yield_now().await;
    }
    assert!(
        sent() < before + LARGE as u64,
        "the sockets' buffers held the whole frame"
    );
    // Without the lease, the reply to the next command overtakes the queued frames.
    harness.lease.expire();
    peer.send(r#"{"type":"ping","id":7}"#).await;
    let received = || harness.metrics.received_bytes.get();
    let before = received();
    while received() == before {
        tokio::task::yield_now().await;
    }
    let until = boottime() + Duration::from_secs(60);
    harness.lease.renew(until, harness.lease.stretch());
    harness.hub().reopened();
    assert_eq!(peer.expect("message").await["data"], large);
    assert_eq!(peer.expect("error").await["code"], "unavailable");
}
