//! `wss://` on the public listener (CONTRACT §6 `tls_cert_file`).

use curfew_testkit::http::exchange;
use curfew_testkit::mint::Key;
use curfew_testkit::{Connect, OutFrame, trusting};
use curfew_tests::{Gateway, Settings, TestCertificate, eventually};
use serde_json::json;

async fn start(certificate: &TestCertificate) -> Gateway {
    start_with(certificate, Settings::default()).await
}

async fn start_with(certificate: &TestCertificate, settings: Settings) -> Gateway {
    let directory = tempfile::tempdir().unwrap();
    let (cert, key) = certificate.write(directory.path());
    let settings = settings
        .with(&format!("server.tls_cert_file = {cert:?}"))
        .with(&format!("server.tls_key_file = {key:?}"));
    Gateway::start_in(directory, &settings.to_toml()).await
}

fn request(gateway: &Gateway) -> Connect {
    gateway.ws().bearer(&Key::default_secret().user("alice"))
}

#[tokio::test]
async fn everything_works_over_tls() {
    let certificate = TestCertificate::new();
    let gateway = start(&certificate).await;
    let early = OutFrame::text(r#"{"type":"subscribe","id":1,"channel":"room:1"}"#);
    let connect = certificate.secure(request(&gateway).behind(&[early]));
    let (mut client, _) = gateway.connected(connect).await;
    client.expect_json(json!({"type":"ok","id":1})).await;
    // The data is larger than a TLS record.
    let data = "x".repeat(60_000);
    client
        .send(json!({"type":"publish","channel":"room:1","data":data}))
        .await;
    client
        .expect_json(json!({"type":"message","data":data}))
        .await;
    for n in 0..200 {
        gateway.publish("room:1", json!(n)).await;
    }
    for n in 0..200 {
        client.expect_json(json!({"data":n})).await;
    }
    gateway.revoke(json!({"kind":"user","value":"alice"})).await;
    client.expect_close(4403, "revoked").await;
}

#[tokio::test]
async fn plain_http_and_http2_are_not_spoken_there() {
    let certificate = TestCertificate::new();
    let gateway = start(&certificate).await;
    if let Ok(answer) = exchange(gateway.address(), &request(&gateway).to_bytes()).await {
        assert_eq!(answer.status, 400);
    }
    let both = trusting(
        std::slice::from_ref(&certificate.der),
        &[b"h2", b"http/1.1"],
    );
    let stream = request(&gateway)
        .tls(both, "localhost")
        .stream()
        .await
        .unwrap();
    assert!(stream.alpn().is_none_or(|alpn| alpn == b"http/1.1"));
    let none = trusting(std::slice::from_ref(&certificate.der), &[]);
    gateway
        .connected(request(&gateway).tls(none, "localhost"))
        .await;
    // A client that offers only HTTP/2 is refused, or its offer is ignored. It never gets HTTP/2.
    let only_h2 = trusting(std::slice::from_ref(&certificate.der), &[b"h2"]);
    if let Ok(stream) = request(&gateway).tls(only_h2, "localhost").stream().await {
        assert_eq!(stream.alpn(), None);
    }
}

#[tokio::test]
async fn a_changed_certificate_is_shown_to_the_next_connection() {
    let (old, new) = (TestCertificate::new(), TestCertificate::new());
    let gateway = start(&old).await;
    let (mut client, _) = gateway.connected(old.secure(request(&gateway))).await;
    assert_eq!(client.stream().peer_certificate(), Some(old.der.clone()));
    new.write(gateway.directory());
    eventually("the new certificate", async || {
        new.secure(request(&gateway)).stream().await.ok()
    })
    .await;
    assert!(old.secure(request(&gateway)).stream().await.is_err());
    assert!(client.barrier().await.is_empty());
    gateway.connected(new.secure(request(&gateway))).await;
}

#[tokio::test]
async fn a_broken_certificate_leaves_the_old_one_in_force() {
    let certificate = TestCertificate::new();
    let gateway = start(&certificate).await;
    gateway.write("cert.pem", "nonsense");
    gateway.reload();
    gateway
        .log()
        .line(curfew_testkit::PATIENCE, |line| {
            (line.contains("\"WARN\"") || line.contains("\"ERROR\"")).then_some(())
        })
        .await
        .expect("the failure is reported");
    gateway
        .connected(certificate.secure(request(&gateway)))
        .await;
}

/// Regression: a client that spoke plain HTTP got an answer that looked like a broken network,
/// because the gateway expects a TLS handshake.
#[tokio::test]
async fn a_request_without_tls_is_told_to_use_it() {
    let gateway = start(&TestCertificate::new()).await;
    let refused = gateway.ws().refused().await;
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("wss://"), "{}", refused.text());
    let counted = "curfew_connections_rejected_total{reason=\"tls\"}";
    assert_eq!(gateway.metric(counted).await, 1.0);
}

/// Regression: a refusal before the TLS handshake looked like a broken network.
#[tokio::test]
async fn a_connection_beyond_the_limits_is_told_so_over_tls() {
    let certificate = TestCertificate::new();
    let settings = Settings::default().with("limits.unauthenticated = 1");
    let gateway = start_with(&certificate, settings).await;
    let _one = certificate.secure(gateway.ws()).open().await;
    let refused = certificate.secure(gateway.ws()).refused().await;
    assert_eq!(refused.status, 503);
    assert!(
        refused
            .text()
            .contains("has reached its maximum number of connections")
    );
}
