//! Tests of reading from, writing to and closing a transport.

use std::future::poll_fn;
use std::io;

use curfew_ws::{Transport, frame};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::peers::{read, tcp, write};

#[tokio::test]
async fn aborting_resets_the_connection() {
    let (mut client, server) = tcp().await;
    Transport::Plain(server).abort();
    let error = client.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn memory_transports_carry_vectored_writes_and_the_end() {
    let (near, mut far) = tokio::io::duplex(8);
    let mut transport = Transport::Memory(Box::new(near));
    assert_eq!(transport.peer_addr(), None);
    far.write_all(b"in").await.unwrap();
    let mut buffer = [0; 8];
    assert_eq!(read(&mut transport, &mut buffer).await.unwrap(), 2);
    let frames = [frame::text(b"one"), frame::text(b"longer than the pipe")];
    let mut received = Vec::new();
    let (_, read) = tokio::join!(
        async {
            write(&mut transport, &frames).await;
            poll_fn(|cx| transport.poll_shutdown(cx)).await.unwrap();
        },
        far.read_to_end(&mut received)
    );
    read.unwrap();
    assert_eq!(received, frames.concat());
    drop(far);
    transport.abort();
}
