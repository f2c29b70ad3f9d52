//! Tests of the client against the server over TCP and TLS, and against handwritten bytes.

use std::sync::Arc;

use curfew_ws::client::{self, ClientError, ConnectError, Incoming};
use curfew_ws::{Client, Decoder, Event, Input, Limits, Transport, frame};
use http::{HeaderMap, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::peers::{echo, serve, tcp};

/// A client over a pipe in memory, and the server's end of the pipe. The client's upgrade request
/// receives `answer`.
async fn scripted(answer: &str) -> (Result<Client<DuplexStream>, ConnectError>, DuplexStream) {
    let (near, mut far) = tokio::io::duplex(64 * 1024);
    let serving = async {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(far.read_u8().await.unwrap());
        }
        let request = String::from_utf8(request).unwrap().to_ascii_lowercase();
        assert!(request.starts_with("get /ws?a=b http/1.1\r\n"), "{request}");
        assert!(request.contains("host: example.com:1\r\n"), "{request}");
        far.write_all(answer.as_bytes()).await.unwrap();
        far
    };
    let connecting = client::connect(
        near,
        "example.com:1",
        "/ws?a=b",
        &["curfew.v1"],
        HeaderMap::new(),
    );
    tokio::join!(connecting, serving)
}

#[tokio::test]
async fn the_client_and_the_server_understand_each_other() {
    let (near, far) = tcp().await;
    let server = async {
        let (mut transport, early) = serve(far).await.unwrap();
        echo(&mut transport, &early).await;
    };
    let peer = async {
        let connected = client::connect(near, "a", "/ws", &["x", "curfew.v1"], HeaderMap::new());
        converse(connected.await.unwrap()).await;
    };
    tokio::join!(server, peer);
}

#[tokio::test]
async fn a_tls_connection_comes_back_as_tls() {
    let (near, far) = tcp().await;
    let (acceptor, connector) = tls();
    let server = async {
        let tls = acceptor.accept(far).await.unwrap();
        let (mut transport, early) = serve(tls).await.unwrap();
        assert!(matches!(transport, Transport::Tls(_)));
        assert!(transport.peer_addr().is_some());
        echo(&mut transport, &early).await;
    };
    let peer = async {
        let name = ServerName::try_from("localhost").unwrap();
        let tls = connector.connect(name, near).await.unwrap();
        let connected = client::connect(tls, "a", "/ws", &["curfew.v1"], HeaderMap::new());
        converse(connected.await.unwrap()).await;
    };
    tokio::join!(server, peer);
}

fn tls() -> (TlsAcceptor, TlsConnector) {
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(issued.cert.der().clone()).unwrap();
    let server = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![issued.cert.der().clone()], key)
        .unwrap();
    let client = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server).into(), Arc::new(client).into())
}

/// Exchanges every kind of frame and every form of length, then closes.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(mut client: Client<S>) {
    assert_eq!(client.subprotocol(), Some("curfew.v1"));
    for length in [0, 1, 125, 126, 65_535, 65_536, 300_000] {
        let text = "t".repeat(length);
        client.send_text(&text).await.unwrap();
        assert!(
            client.next().await.unwrap() == Incoming::Text(text),
            "{length}"
        );
    }
    client.send_binary(b"\0\xff").await.unwrap();
    assert!(client.next().await.unwrap() == Incoming::Binary(b"\0\xff".to_vec()));
    client.ping(b"p").await.unwrap();
    assert!(client.next().await.unwrap() == Incoming::Pong(b"p".to_vec()));
    client.close(4000, "bye").await.unwrap();
    assert!(matches!(
        client.send_text("x").await,
        Err(ClientError::Ended)
    ));
    let close = Incoming::Close {
        code: Some(4000),
        reason: "bye".to_owned(),
    };
    assert!(client.next().await.unwrap() == close);
    assert!(matches!(client.next().await, Err(ClientError::Ended)));
}

#[tokio::test]
async fn the_client_tells_why_it_was_refused() {
    let body = "x".repeat(20_000);
    let answer = format!(
        "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\nContent-Length: 20000\r\n\r\n{body}"
    );
    let (connected, _) = scripted(&answer).await;
    let Err(ConnectError::Refused {
        status,
        headers,
        body,
    }) = connected
    else {
        panic!("the upgrade was not refused");
    };
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert_eq!(headers["www-authenticate"], "Bearer");
    assert_eq!(body.len(), 16 * 1024);
}

#[tokio::test]
async fn the_client_checks_the_answer() {
    let upgraded =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
    for (answer, expect) in [
        (
            format!("{upgraded}\r\n"),
            "Sec-WebSocket-Accept does not match the key",
        ),
        (
            format!("{upgraded}Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"),
            "Sec-WebSocket-Accept does not match the key",
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"
                .to_owned(),
            "the server does not upgrade to WebSocket",
        ),
    ] {
        let (connected, _) = scripted(&answer).await;
        let Err(ConnectError::InvalidAnswer(problem)) = connected else {
            panic!("the client accepted the answer {answer}");
        };
        assert_eq!(problem, expect);
    }
    let (connected, _) = scripted("SSH-2.0-OpenSSH\r\n\r\n").await;
    assert!(matches!(connected, Err(ConnectError::Http(_))));
}

/// A client, and the bare socket of its server.
async fn upgraded() -> (Client<TcpStream>, TcpStream) {
    let (near, far) = tcp().await;
    let connected = client::connect(near, "a", "/", &[], HeaderMap::new());
    let (client, taken) = tokio::join!(connected, serve(far));
    let Some((Transport::Plain(server), _)) = taken else {
        panic!("the connection is not upgraded to a plain socket");
    };
    (client.unwrap(), server)
}

#[tokio::test]
async fn a_read_of_the_client_may_be_dropped_at_any_byte() {
    let (mut client, mut server) = upgraded().await;
    let frames = [frame::text(b"one"), frame::ping(b"p"), frame::text(b"two")].concat();
    let mut incoming = Vec::new();
    for byte in &frames {
        server.write_all(&[*byte]).await.unwrap();
        // The future of `next` is polled once and then dropped, even if the byte has arrived.
        tokio::select! {
            biased;
            next = client.next() => incoming.push(next.unwrap()),
            () = async {} => {}
        }
    }
    server.write_all(&frame::close(4401, "end")).await.unwrap();
    let mut server_read = Vec::new();
    let closing = async {
        while incoming.len() < 4 {
            incoming.push(client.next().await.unwrap());
        }
        assert!(matches!(client.next().await, Err(ClientError::Ended)));
        drop(client);
    };
    let (_, read) = tokio::join!(closing, server.read_to_end(&mut server_read));
    read.unwrap();
    let expect = [
        Incoming::Text("one".to_owned()),
        Incoming::Ping(b"p".to_vec()),
        Incoming::Text("two".to_owned()),
        Incoming::Close {
            code: Some(4401),
            reason: "end".to_owned(),
        },
    ];
    assert!(incoming == expect, "{incoming:?}");

    let mut decoder = Decoder::new();
    let mut input = Input::new(&mut server_read);
    let limits = Limits::default();
    assert_eq!(
        decoder.next(&mut input, &limits),
        Ok(Some(Event::Pong(b"p")))
    );
    let close = Event::Close {
        code: Some(4401),
        reason: "",
    };
    assert_eq!(decoder.next(&mut input, &limits), Ok(Some(close)));
}

#[tokio::test]
async fn the_client_answers_a_broken_frame_with_its_close_code() {
    let (mut client, mut server) = upgraded().await;
    server.write_all(&[0x81, 0x80, 1, 2, 3, 4]).await.unwrap();
    let error = client.next().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the server broke the protocol: a frame from the server is masked"
    );
    assert!(matches!(client.next().await, Err(ClientError::Ended)));
    drop(client);
    let mut frames = Vec::new();
    server.read_to_end(&mut frames).await.unwrap();
    let mut decoder = Decoder::new();
    let close = Event::Close {
        code: Some(1002),
        reason: "",
    };
    let mut input = Input::new(&mut frames);
    assert_eq!(
        decoder.next(&mut input, &Limits::default()),
        Ok(Some(close))
    );
}
