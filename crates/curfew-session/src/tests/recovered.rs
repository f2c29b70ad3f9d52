//! Recovered publications pass the same checks as live publications, at the time they are written
//! (ST4).

use curfew_backend::StreamBounds;
use curfew_model::{Position, RevocationKey};
use curfew_node::{ChannelConfig, ChannelEntries, HistoryConfig};

use super::rig::{Call, When};
use super::*;

const BOUNDS: StreamBounds = StreamBounds {
    size: 200,
    ttl: Duration::from_secs(60),
};

fn harness() -> Harness {
    Harness::with(|settings| {
        settings.channels = ChannelEntries::new(&[ChannelConfig {
            pattern: "*".to_owned(),
            history: Some(HistoryConfig {
                size: BOUNDS.size,
                ttl: BOUNDS.ttl,
            }),
            ..ChannelConfig::default()
        }]);
    })
}

impl Harness {
    /// Appends `count` publications to the stream. Returns a `subscribe` command that recovers
    /// these publications.
    async fn missed(&self, count: usize) -> String {
        let mut last = None;
        for at in 0..count {
            let publication = publication("room", &at.to_string());
            let streams = &self.rig.inner().streams;
            let appended = streams.append(publication, Duration::MAX, BOUNDS, None);
            last = Some(appended.await.unwrap());
        }
        let Position { epoch, offset } = last.unwrap();
        assert_eq!(offset, count as u64);
        let since = json!({"epoch": epoch.as_str(), "offset": 0});
        json!({"type":"subscribe","id":1,"channel":"room","since":since}).to_string()
    }
}

/// A client that recovers five publications. `then` runs after the publications are read from the
/// stream and before the first of them is written to the client.
async fn peer_that_reads(harness: &Harness, then: impl FnOnce() + Send + 'static) -> Peer {
    let subscribe = harness.missed(5).await;
    let mut peer = harness.open().await;
    harness.rig.hook(When::After, Call::Read, then);
    peer.send(&subscribe).await;
    peer
}

#[tokio::test(start_paused = true)]
async fn a_revocation_between_the_read_and_the_write_wins() {
    let harness = harness();
    let rig = Arc::clone(&harness.rig);
    let revoke = move || rig.revoke(RevocationKey::user("alice"));
    let mut peer = peer_that_reads(&harness, revoke).await;
    let closed = peer.expect_closed(Disconnect::REVOKED).await;
    assert_eq!(closed.types(), ["closing"]);
    harness.assert_nothing_left().await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_token_between_the_read_and_the_write_wins() {
    let harness = harness();
    let clock = Arc::clone(&harness.clock);
    let expire = move || *clock.ahead.lock() += Duration::from_secs(TTL + 10);
    let mut peer = peer_that_reads(&harness, expire).await;
    let closed = peer.closed().await;
    assert!(!closed.types().contains(&"message"), "{:?}", closed.types());
}

#[tokio::test(start_paused = true)]
async fn the_lease_that_ends_between_the_read_and_the_write_holds_back_what_was_read() {
    let harness = harness();
    let lease = Arc::clone(&harness.lease);
    let mut peer = peer_that_reads(&harness, move || lease.expire()).await;
    peer.silence(1).await;
    harness.rig.revoke(RevocationKey::user("alice"));
    let closed = peer.expect_closed(Disconnect::REVOKED).await;
    assert_eq!(closed.types(), ["closing"]);
}

#[tokio::test(start_paused = true)]
async fn the_policy_that_a_reload_puts_in_force_during_the_read_decides() {
    let harness = harness();
    let context = Arc::clone(&harness.context);
    let reload = move || {
        let mut settings = SessionSettings::clone(&context.settings.load());
        settings.policy = Arc::new(Policy::new(&allowing(&[Action::Publish])));
        context.settings.store(Arc::new(settings));
        context.node.hub().reconsider_all();
    };
    let mut peer = peer_that_reads(&harness, reload).await;
    let refused = peer.text().await;
    assert_eq!(refused["code"], "forbidden", "{refused}");
    peer.silence(1).await;
    assert_eq!(harness.hub().channel_count(), 0);
}

/// Recovered publications wait until the client reads.
#[tokio::test(start_paused = true)]
async fn what_waits_to_be_written_is_withheld_once_access_ends() {
    /// Upper bound of the number of messages that are already in the pipe and cannot be withheld.
    /// The last of these messages may be partial.
    const BEYOND_RECALL: usize = 256 / 50 + 1;
    for access_ends in ["revoked", "expired"] {
        let harness = harness();
        let subscribe = harness.missed(100).await;
        let mut peer = harness.open_with(json!({}), 256).await;
        peer.send(&subscribe).await;
        time::sleep(Duration::from_millis(10)).await;
        assert!(harness.hub().queued_bytes() > 4_000);
        match access_ends {
            "revoked" => harness.rig.revoke(RevocationKey::token("t1")),
            _ => *harness.clock.ahead.lock() += Duration::from_secs(TTL + 10),
        }
        let texts = peer.cut().await;
        assert!(texts.len() < BEYOND_RECALL, "{access_ends}: {texts:?}");
    }
}

/// A window that was filled by a read expires together with the stream, and not a whole lifetime
/// after that read.
#[tokio::test(start_paused = true)]
async fn nothing_is_recovered_from_a_window_that_the_stream_has_outlived() {
    let harness = harness();
    let later = |part: f64| *harness.clock.suspended.lock() += BOUNDS.ttl.mul_f64(part);
    let subscribe = harness.missed(5).await;
    let recover = async |token: &str| {
        let mut peer = harness.open_with(json!({"jti": token}), ROOM).await;
        peer.send(&subscribe).await;
        let answer = peer.expect("ok").await;
        (peer, answer["recovered"].clone())
    };
    later(0.7);
    let (_reader, recovered) = recover("t1").await;
    assert_eq!(recovered, true);
    later(0.2);
    let reads = harness.rig.asked(Call::Read, "");
    assert_eq!(recover("t2").await.1, true);
    assert_eq!(
        harness.rig.asked(Call::Read, ""),
        reads,
        "the publications were read from the backend instead of the window"
    );
    later(0.2);
    assert_eq!(recover("t3").await.1, false);
}
