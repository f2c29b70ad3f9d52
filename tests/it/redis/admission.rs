//! Revocation while a session is being admitted, at every point of the admission (CONTRACT §8 R3).

use std::time::{Duration, Instant};

use curfew_testkit::mint::Key;
use curfew_testkit::{Incoming, OutFrame, WsClient, opcode};
use curfew_tests::{
    Attempt, Cluster, Flow, Kind, Link, Redis, Settings, eventually, revocation_key,
};
use serde_json::{Value, json};
use tokio::time::sleep;

/// Delay between a node and Redis in each direction. It makes an admission long enough that a
/// revocation can come at each point of it.
const DISTANCE: Duration = Duration::from_millis(4);

/// Longest time between the request for a session and its revocation, in milliseconds.
const SPREAD: u64 = 60;

/// Reads a connection to its end. The session must be closed as revoked. Returns the time at which
/// the last publication arrived.
async fn to_the_end(client: &mut WsClient) -> Option<Instant> {
    let (mut last, mut ended) = (None, None);
    loop {
        match client.incoming(curfew_testkit::PATIENCE).await {
            Incoming::Frame(frame) if frame.opcode == opcode::TEXT => {
                let frame: Value = serde_json::from_str(frame.text()).unwrap();
                if frame["type"] == "message" {
                    last = Some(Instant::now());
                }
            }
            Incoming::Frame(frame) if frame.opcode == opcode::CLOSE => {
                ended = Some(frame.close().0)
            }
            Incoming::Frame(_) => {}
            Incoming::End | Incoming::Cut(_) => break,
            Incoming::Silence => panic!("the session stays open"),
        }
    }
    assert_eq!(ended, Some(4403));
    last
}

/// Connects and subscribes in one write. The user is revoked when the time `after` has passed.
async fn race(cluster: &Cluster, redis: &Redis, user: String, after: Duration) {
    let token = Key::default_secret().user(&user);
    let subscribe = OutFrame::text(r#"{"type":"subscribe","id":1,"channel":"room:1"}"#);
    let connecting = async {
        let connect = cluster[0].ws().bearer(&token).behind(&[subscribe]);
        let mut client = connect.open().await;
        to_the_end(&mut client).await
    };
    let revoking = async {
        sleep(after).await;
        let mut connection = redis.connect().await;
        let command = [
            "SET".to_owned(),
            revocation_key("user", &user),
            "1".to_owned(),
        ];
        connection.call(&command).await.unwrap().accepted();
        Instant::now()
    };
    let (last, written) = tokio::join!(connecting, revoking);
    let late = last.map(|last| last.saturating_duration_since(written));
    assert!(
        late < Some(Duration::from_secs(1)),
        "a message arrived {late:?} after the SET"
    );
}

#[tokio::test]
async fn whoever_is_revoked_while_connecting_does_not_stay() {
    let redis = Redis::start().await;
    let cluster = Cluster::behind_proxies(2, &redis, &Settings::default()).await;
    cluster.proxy(0).set(Link::both(Flow::Delay(DISTANCE)));
    let _publisher = cluster[1].publisher("carol", "room:1").await;
    let bob = cluster[0].tape("bob", "room:1").await;
    let mut offsets = (0..SPREAD).map(Duration::from_millis).collect::<Vec<_>>();
    let mut round = 0;
    while let Some(first) = offsets.pop() {
        let second = offsets.pop().unwrap_or_default();
        let third = offsets.pop().unwrap_or_default();
        let user = |n: u64| format!("user-{round}-{n}");
        tokio::join!(
            race(&cluster, &redis, user(0), first),
            race(&cluster, &redis, user(1), second),
            race(&cluster, &redis, user(2), third),
            race(&cluster, &redis, user(3), first / 2),
        );
        round += 1;
    }
    bob.assert_open("after").await;
    eventually("the sessions of bob and carol only", async || {
        let keys = redis.keys().await;
        let strays = keys.iter().any(|key| key.starts_with("curfew:user:user-"));
        (cluster[1].sessions().await.len() == 2 && !strays).then_some(())
    })
    .await;
    cluster.assert_well().await;
}

#[tokio::test]
async fn whoever_is_revoked_while_redis_is_not_heard_does_not_stay() {
    let redis = Redis::start().await;
    let cluster = Cluster::behind_proxies(1, &redis, &Settings::default()).await;
    let (mute, deaf) = (Link::only_down(Flow::Stall), Link::only_up(Flow::Stall));
    // The first two stalls are on every connection. The next two are only on connections for
    // commands, so the node knows the revocation before it receives the admission's answers. The
    // last stall is only on the connection that carries the revocation.
    let stalls = [
        (mute, None),
        (deaf, None),
        (mute, Some(Kind::Other)),
        (deaf, Some(Kind::Other)),
        (mute, Some(Kind::Tracking)),
    ];
    for (round, (stall, only)) in stalls.into_iter().cycle().take(30).enumerate() {
        let user = format!("user-{round}");
        let token = Key::default_secret().user(&user);
        // The stall comes before the first command of the admission, or after some of its commands.
        let proxy = cluster.proxy(0);
        proxy.set(Link::both(Flow::Delay(DISTANCE)));
        let connecting = Attempt::make(cluster[0].ws().bearer(&token));
        let revoking = async {
            sleep(DISTANCE * u32::try_from(round).unwrap() / 3).await;
            match only {
                None => proxy.set(stall),
                Some(kind) => proxy.set_only(kind, stall),
            }
            // In this time, the bytes that are under way reach the stall.
            sleep(DISTANCE * 3).await;
            let key = revocation_key("user", &user);
            redis.run(&["SET", &key, "1"]).await;
            // In this time, every byte arrives that is not held back.
            sleep(DISTANCE * 3).await;
            proxy.set(Link::PASS);
        };
        let (attempt, ()) = tokio::join!(connecting, revoking);
        match attempt {
            Attempt::Open(mut client) => {
                client.expect_close(4403, "revoked").await;
            }
            other => assert!(other.is_revoked() || other.is_unavailable(), "{other:?}"),
        }
        cluster[0].until_in_touch(Duration::from_secs(10)).await;
        cluster[0].assert_refused(&user).await;
    }
    eventually("no sessions", async || {
        cluster[0].sessions().await.is_empty().then_some(())
    })
    .await;
    cluster.assert_well().await;
}

#[tokio::test]
async fn whoever_is_revoked_while_refreshing_does_not_stay() {
    let redis = Redis::start().await;
    let cluster = Cluster::behind_proxies(1, &redis, &Settings::default()).await;
    cluster.proxy(0).set(Link::both(Flow::Delay(DISTANCE)));
    for round in 0..24_u32 {
        let user = format!("user-{round}");
        let token =
            |n: u32| Key::default_secret().user_with(&user, json!({"jti":format!("{user}-{n}")}));
        let mut client = cluster[0].session(&token(0)).await;
        client
            .send(json!({"type":"refresh","id":1,"token":token(1)}))
            .await;
        let revoking = async {
            sleep(DISTANCE * round / 4).await;
            // The revocation names the user or the new token.
            let key = if round % 2 == 0 {
                revocation_key("user", &user)
            } else {
                revocation_key("token", &format!("{user}-1"))
            };
            redis.run(&["SET", &key, "1"]).await;
        };
        let (answer, ()) = tokio::join!(client.next_json(), revoking);
        match answer["type"].as_str() {
            // The new token is revoked. The session ends, although its old token is valid.
            Some("error") => {
                assert_eq!(answer["code"], "revoked", "{answer}");
                client.expect_close(4403, "revoked").await;
            }
            Some("refreshed") => drop(client.expect_close(4403, "revoked").await),
            Some("closing") => assert_eq!(client.closed().await.0, 4403, "{answer}"),
            _ => panic!("{answer}"),
        }
    }
    cluster.assert_well().await;
}
