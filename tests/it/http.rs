//! HTTP on both listeners: refusals are explained, counted and logged (RFC 9110, RFC 9112).

mod heads;
mod listeners;
mod proxies;
mod unix;

use std::net::SocketAddr;

use curfew_testkit::http::Response;
use curfew_tests::Gateway;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Both listeners. Each has its name in metrics, its address, and a path that it answers.
fn listeners(gateway: &Gateway) -> [(&'static str, SocketAddr, &'static str); 2] {
    [
        ("public", gateway.address(), "/ws"),
        ("admin", gateway.admin_address(), "/livez"),
    ]
}

/// The number of answers of `listener` for `reason`.
async fn answers(gateway: &Gateway, listener: &str, reason: &str) -> f64 {
    let series =
        format!("curfew_http_answers_total{{listener=\"{listener}\",reason=\"{reason}\"}}");
    gateway.metric(&series).await
}

/// Sends bytes, and reads the answer until the node closes the connection.
pub(crate) async fn said(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    timeout(curfew_testkit::PATIENCE, read)
        .await
        .expect("the connection is closed")
        .unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// Fails unless the answer is a problem document with this code.
fn is_problem(answer: &Response, code: &str) {
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json"),
        "{}",
        answer.text()
    );
    let problem = answer.json();
    assert_eq!(problem["code"], code, "{problem}");
    assert_eq!(problem["status"], answer.status, "{problem}");
    assert!(problem["detail"].is_string(), "{problem}");
}
