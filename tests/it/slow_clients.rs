//! Clients that send their bytes very slowly, at every stage of a connection (SECURITY rows 63-65;
//! row 41 is in `message_auth`).

use std::time::{Duration, Instant};

use curfew_testkit::mint::Key;
use curfew_testkit::{Connect, Stream};
use curfew_tests::{Gateway, Settings, TestCertificate};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

/// Sends `bytes` one by one, with pauses, until the node closes the connection. Returns the node's
/// answer and the time until the close.
async fn drip(mut stream: Stream, bytes: &[u8], pause: Duration) -> (String, Duration) {
    let began = Instant::now();
    let mut said = Vec::new();
    let mut bytes = bytes.iter();
    let mut buffer = [0; 1024];
    loop {
        assert!(
            began.elapsed() < Duration::from_secs(15),
            "the node does not close the connection"
        );
        match timeout(pause, stream.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => break,
            Ok(Ok(count)) => said.extend_from_slice(&buffer[..count]),
            Err(_) => {
                if let Some(byte) = bytes.next() {
                    drop(stream.write_all(&[*byte]).await);
                }
            }
        }
    }
    (String::from_utf8_lossy(&said).into_owned(), began.elapsed())
}

fn in_time(elapsed: Duration, seconds: u64) {
    let bounds = Duration::from_millis(seconds * 1000 - 200)..Duration::from_secs(seconds * 2 + 3);
    assert!(bounds.contains(&elapsed), "{elapsed:?}");
}

#[tokio::test]
async fn whoever_sends_nothing_or_a_head_too_slowly_is_closed() {
    let settings = Settings::default().with(r#"server.handshake_timeout = "1s""#);
    let gateway = Gateway::start_with(&settings).await;
    let mut session = gateway.user("bob").await;
    let request = gateway.ws().bearer(&Key::default_secret().user("alice"));
    let connect = async || request.stream().await.unwrap();
    let (silent, slow, nearly) = tokio::join!(
        async { drip(connect().await, b"", Duration::from_millis(100)).await },
        async {
            drip(
                connect().await,
                &request.to_bytes(),
                Duration::from_millis(100),
            )
            .await
        },
        async {
            let mut stream = connect().await;
            let bytes = request.to_bytes();
            stream.write_all(&bytes[..bytes.len() - 3]).await.unwrap();
            drip(stream, &bytes[bytes.len() - 3..], Duration::from_secs(3)).await
        },
    );
    in_time(silent.1, 1);
    in_time(slow.1, 1);
    in_time(nearly.1, 1);
    for (said, _) in [&silent, &slow, &nearly] {
        assert!(
            said.is_empty() || said.starts_with("HTTP/1.1 408"),
            "{said}"
        );
    }
    assert!(session.barrier().await.is_empty());
}

#[tokio::test]
async fn the_deadline_is_five_seconds_by_default() {
    let gateway = Gateway::start_default().await;
    let request = gateway.ws();
    let stream = request.stream().await.unwrap();
    let (_, elapsed) = drip(stream, &request.to_bytes(), Duration::from_secs(1)).await;
    assert!(
        elapsed > Duration::from_secs(4) && elapsed < Duration::from_secs(9),
        "{elapsed:?}"
    );
}

#[tokio::test]
async fn a_tls_handshake_has_the_same_deadline() {
    let directory = tempfile::tempdir().unwrap();
    let certificate = TestCertificate::new();
    let (cert, key) = certificate.write(directory.path());
    let settings = Settings::default()
        .with(r#"server.handshake_timeout = "1s""#)
        .with(&format!("server.tls_cert_file = {cert:?}"))
        .with(&format!("server.tls_key_file = {key:?}"));
    let gateway = Gateway::start_in(directory, &settings.to_toml()).await;
    let plain = Connect::to(gateway.address());
    // These bytes are the beginning of a ClientHello, which stays incomplete.
    let hello = [&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3][..], &[7; 500]].concat();
    let (silent, slow) = tokio::join!(
        async {
            drip(
                plain.stream().await.unwrap(),
                b"",
                Duration::from_millis(100),
            )
            .await
        },
        async {
            drip(
                plain.stream().await.unwrap(),
                &hello,
                Duration::from_millis(100),
            )
            .await
        },
    );
    in_time(silent.1, 1);
    in_time(slow.1, 1);
    // The head of the request has the same deadline after the TLS handshake.
    let request = certificate.secure(gateway.ws());
    let stream = request.stream().await.unwrap();
    let (_, elapsed) = drip(stream, &request.to_bytes(), Duration::from_millis(100)).await;
    in_time(elapsed, 1);
    let token = Key::default_secret().user("alice");
    let (mut client, _) = gateway
        .connected(certificate.secure(gateway.ws().bearer(&token)))
        .await;
    assert!(client.barrier().await.is_empty());
}
