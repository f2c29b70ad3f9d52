//! Pings that the server sends, and clients that do not answer them (CONTRACT §4, 4510).

use std::time::{Duration, Instant};

use curfew_testkit::mint::Key;
use curfew_testkit::{Incoming, OutFrame, opcode};
use curfew_tests::{Gateway, Settings};

fn quick() -> Settings {
    Settings::default()
        .with(r#"session.ping_interval = "1s""#)
        .with(r#"session.pong_timeout = "1s""#)
}

#[tokio::test]
async fn whoever_answers_pings_stays_and_whoever_does_not_is_closed_with_4510() {
    let gateway = Gateway::start_with(&quick()).await;
    let token = Key::default_secret().user("alice");
    let (mut good, connected) = gateway.connected(gateway.ws().bearer(&token)).await;
    assert_eq!(connected["ping_interval"], 1);
    let mut dead = gateway.user("alice").await;
    dead.ignore_pings();
    let began = Instant::now();
    let (closing, ()) = tokio::join!(dead.expect_close(4510, "no_pong"), async {
        let mut pings = 0;
        while pings < 3 {
            match good.incoming(Duration::from_secs(5)).await {
                Incoming::Frame(frame) if frame.opcode == opcode::PING => pings += 1,
                other => panic!("{other:?}"),
            }
        }
    });
    assert_eq!(closing["reconnect"], true);
    let lasted = began.elapsed();
    assert!(lasted > Duration::from_millis(1500), "{lasted:?}");
    assert!(good.barrier().await.is_empty());
}

#[tokio::test]
async fn an_unasked_pong_is_not_an_answer_but_any_frame_shows_life() {
    let gateway = Gateway::start_with(&quick()).await;
    let mut client = gateway.user("alice").await;
    client.ignore_pings();
    // A client that sends messages counts as alive, even if it sends no pongs. It is still
    // connected after three pings.
    let mut pings = 0;
    while pings < 3 {
        match client.incoming(Duration::from_millis(300)).await {
            Incoming::Frame(frame) if frame.opcode == opcode::PING => pings += 1,
            Incoming::Frame(frame) if frame.opcode == opcode::TEXT => {}
            Incoming::Silence => {
                client
                    .send_frame(OutFrame::text(r#"{"type":"ping"}"#))
                    .await;
            }
            other => panic!("{other:?}"),
        }
    }
}
