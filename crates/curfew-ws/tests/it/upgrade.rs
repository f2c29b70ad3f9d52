//! Tests of the upgrade, from the request to the bare socket.

use std::future::poll_fn;
use std::io::IoSlice;

use bytes::Bytes;
use curfew_ws::{DeferSwitch, DeferredResponse, Transport};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::peers::{EARLY, REQUEST, echo, head, serve, tcp, upgrade};

#[tokio::test]
async fn the_bare_socket_comes_back_with_the_bytes_behind_the_request() {
    for early in [&[][..], EARLY] {
        let (mut client, server) = tcp().await;
        let local = client.local_addr().unwrap();
        let request = [REQUEST.as_bytes(), b"\r\n", early].concat();
        client.write_all(&request).await.unwrap();
        let (transport, received) = serve(server).await.unwrap();

        assert_eq!(received, early);
        assert!(matches!(transport, Transport::Plain(_)));
        assert_eq!(transport.peer_addr(), Some(local));
        let head = head(&mut client).await;
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        assert!(
            head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"),
            "{head}"
        );
        assert!(
            head.contains("sec-websocket-protocol: curfew.v1\r\n"),
            "{head}"
        );
        assert!(
            !head.contains("secret") && !head.contains("extensions"),
            "{head}"
        );
    }
}

#[tokio::test]
async fn early_frames_are_decoded_and_answered() {
    let (mut client, server) = tcp().await;
    let request = [REQUEST.as_bytes(), b"\r\n", EARLY, EARLY, &EARLY[..4]].concat();
    client.write_all(&request).await.unwrap();
    let (mut transport, early) = serve(server).await.unwrap();
    let peer = async {
        head(&mut client).await;
        client.write_all(&EARLY[4..]).await.unwrap();
        client.shutdown().await.unwrap();
        let mut frames = Vec::new();
        client.read_to_end(&mut frames).await.unwrap();
        frames
    };
    let echo = async {
        echo(&mut transport, &early).await;
        poll_fn(|cx| transport.poll_shutdown(cx)).await.unwrap();
    };
    let (frames, ()) = tokio::join!(peer, echo);
    assert_eq!(frames, b"\x81\x05early".repeat(3));
}

#[tokio::test]
async fn requests_that_are_no_upgrade_get_their_status_and_no_socket() {
    for (request, status, header) in [
        (
            "GET /ws HTTP/1.1\r\nHost: a\r\n",
            "426",
            "upgrade: websocket\r\n",
        ),
        (
            "POST /ws HTTP/1.1\r\nHost: a\r\n",
            "405",
            "allow: get, head\r\n",
        ),
        (
            &REQUEST.replace("Version: 13", "Version: 8"),
            "426",
            "sec-websocket-version: 13\r\n",
        ),
        (&REQUEST.replace("HTTP/1.1", "HTTP/1.0"), "505", ""),
        (&REQUEST.replace("Host: localhost\r\n", ""), "400", ""),
        (&format!("{REQUEST}Host: localhost\r\n"), "400", ""),
        (&format!("{REQUEST}Content-Length: 5\r\n"), "400", ""),
        (
            &format!("{REQUEST}Transfer-Encoding: chunked\r\n"),
            "400",
            "",
        ),
        (
            &format!("{REQUEST}Origin: https://a\r\nOrigin: https://b\r\n"),
            "400",
            "",
        ),
    ] {
        let (mut client, server) = tcp().await;
        client
            .write_all(format!("{request}\r\n").as_bytes())
            .await
            .unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        let (taken, read) = tokio::join!(serve(server), client.read_to_string(&mut answer));
        read.unwrap();
        let answer = answer.to_ascii_lowercase();
        assert!(taken.is_none(), "{request}");
        assert_eq!(answer.get(9..12), Some(status), "{request}: {answer}");
        assert!(answer.contains(header), "{request}: {answer}");
    }
}

#[tokio::test]
async fn the_answer_is_left_to_whoever_takes_the_connection_over() {
    let (mut client, server) = tokio::io::duplex(4096);
    client
        .write_all(format!("{REQUEST}\r\n").as_bytes())
        .await
        .unwrap();
    let upgraded = upgrade(server).await.unwrap();
    let answer = upgraded.answer.to_ascii_lowercase();
    assert!(answer.starts_with(b"http/1.1 101 ") && answer.ends_with(b"\r\n\r\n"));
    drop(upgraded);
    let mut written = Vec::new();
    client.read_to_end(&mut written).await.unwrap();
    assert_eq!(written, b"");
}

#[tokio::test]
async fn answers_before_the_upgrade_are_written_before_it() {
    let (mut client, server) = tokio::io::duplex(4096);
    let switch = DeferSwitch::default();
    let mut io = DeferredResponse::new(server, Bytes::new(), switch.clone());
    io.write_all(b"before").await.unwrap();
    switch.defer();
    io.write_all(b"held, ").await.unwrap();
    let slices = [IoSlice::new(b"in "), IoSlice::new(b"order")];
    assert_eq!(io.write_vectored(&slices).await.unwrap(), 8);
    io.flush().await.unwrap();
    let upgraded = io.finish(b"early");
    assert_eq!(upgraded.answer, &b"held, in order"[..]);
    assert_eq!(upgraded.early, &b"early"[..]);
    drop(upgraded);
    let mut written = Vec::new();
    client.read_to_end(&mut written).await.unwrap();
    assert_eq!(written, b"before");
}

#[tokio::test]
async fn what_comes_between_two_answers_is_held_back() {
    let (mut client, server) = tokio::io::duplex(4096);
    let switch = DeferSwitch::default();
    let mut io = DeferredResponse::new(server, Bytes::new(), switch.clone());
    switch.defer();
    io.write_all(b"not ours, ").await.unwrap();
    switch.pass();
    io.write_all(b"ours, ").await.unwrap();
    switch.defer_once_flushed();
    io.write_all(b"to its end").await.unwrap();
    io.flush().await.unwrap();
    io.write_all(b"not ours").await.unwrap();
    io.flush().await.unwrap();
    // The writes are already held back, so the call changes nothing.
    switch.defer_once_flushed();
    io.write_all(b"neither").await.unwrap();
    drop(io.into_inner());
    let mut written = Vec::new();
    client.read_to_end(&mut written).await.unwrap();
    assert_eq!(written, b"ours, to its end");
}

#[tokio::test]
async fn what_was_read_ahead_comes_first_and_what_hyper_left_of_it_is_early() {
    let (mut client, server) = tokio::io::duplex(4096);
    client.write_all(b", then").await.unwrap();
    let ahead = Bytes::from_static(b"ahead");
    let mut io = DeferredResponse::new(server, ahead.clone(), DeferSwitch::default());
    let mut read = [0; 11];
    io.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"ahead, then");

    let (_client, server) = tokio::io::duplex(4096);
    let mut io = DeferredResponse::new(server, ahead, DeferSwitch::default());
    let mut read = [0; 2];
    assert_eq!(io.read(&mut read).await.unwrap(), 2);
    // hyper used the first byte and left the second byte.
    assert_eq!(io.finish(&read[1..]).early, &b"head"[..]);
}
