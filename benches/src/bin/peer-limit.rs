//! The upper limit of a gateway's speed: a server that only reads heads of frames and writes
//! prepared frames. It verifies no token, parses nothing and allows every client everything. It
//! implements only the part of `curfew.v1` that `curfew-bench` needs, by comparing prefixes. A
//! client's mask must be zeros.
//!
//! `peer-limit ADDRESS each` writes each delivery separately. `peer-limit ADDRESS tick` collects
//! the publications of each channel in one buffer during one iteration of the event loop, and then
//! writes this buffer once to each subscriber.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read as _, Write as _};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(usize::MAX);

/// The answer to an upgrade request with the nonce that `curfew-bench` always sends, followed by
/// the first frame.
const WELCOME: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
Sec-WebSocket-Protocol: curfew.v1\r\n\r\n\x81\x14{\"type\":\"connected\"}";

const OK: &[u8] = b"\x81\x14{\"type\":\"ok\",\"id\":1}";
const SUBSCRIBE: &[u8] = b"{\"type\":\"subscribe\",\"id\":1,\"channel\":\"";
const PUBLISH: &[u8] = b"{\"type\":\"publish\",\"channel\":\"";

#[derive(Default)]
struct Channel {
    subscribers: Vec<usize>,
    /// The publications of this iteration of the event loop, as frames.
    published: Vec<u8>,
}

struct Client {
    stream: TcpStream,
    upgraded: bool,
    partial: Vec<u8>,
    unsent: Vec<u8>,
}

struct Server {
    poll: Poll,
    clients: HashMap<usize, Client>,
    next: usize,
    names: HashMap<Vec<u8>, usize>,
    channels: Vec<Channel>,
    /// Channels with publications in this iteration.
    dirty: Vec<usize>,
    each: bool,
}

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, address, mode] = &arguments[..] else {
        panic!("peer-limit ADDRESS each|tick");
    };
    rlimit::increase_nofile_limit(u64::MAX).expect("the limit of open files can be raised");
    let address = address
        .parse()
        .expect("ADDRESS is an IP address with a port");
    let mut listener = TcpListener::bind(address)?;
    let poll = Poll::new()?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut server = Server {
        poll,
        clients: HashMap::new(),
        next: 0,
        names: HashMap::new(),
        channels: Vec::new(),
        dirty: Vec::new(),
        each: mode == "each",
    };
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match server.poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            match event.token() {
                LISTENER => server.accept(&listener)?,
                Token(id) => server.ready(id, &mut buffer),
            }
        }
        server.deliver();
    }
}

impl Server {
    fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        loop {
            match listener.accept() {
                Ok((mut stream, _)) => {
                    stream.set_nodelay(true)?;
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    let registry = self.poll.registry();
                    registry.register(&mut stream, Token(self.next), interest)?;
                    let client = Client {
                        stream,
                        upgraded: false,
                        partial: Vec::new(),
                        unsent: Vec::new(),
                    };
                    self.clients.insert(self.next, client);
                    self.next += 1;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(_) => {}
            }
        }
    }

    fn ready(&mut self, id: usize, buffer: &mut [u8]) {
        if self.read(id, buffer).is_err() {
            self.clients.remove(&id);
            for channel in &mut self.channels {
                channel.subscribers.retain(|subscriber| *subscriber != id);
            }
        }
    }

    fn read(&mut self, id: usize, buffer: &mut [u8]) -> io::Result<()> {
        let Some(client) = self.clients.get_mut(&id) else {
            return Ok(());
        };
        client.flush()?;
        let kept = client.partial.len();
        buffer[..kept].copy_from_slice(&client.partial);
        let read = match client.stream.read(&mut buffer[kept..]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let bytes = &buffer[..kept + read];
        let taken = match client.upgraded {
            true => self.frames(id, bytes)?,
            false if bytes.ends_with(b"\r\n\r\n") => {
                client.upgraded = true;
                client.send(WELCOME)?;
                bytes.len()
            }
            false => 0,
        };
        if let Some(client) = self.clients.get_mut(&id) {
            client.partial.clear();
            client.partial.extend_from_slice(&bytes[taken..]);
        }
        Ok(())
    }

    fn frames(&mut self, id: usize, bytes: &[u8]) -> io::Result<usize> {
        let mut at = 0;
        while let Some((payload, length)) = frame(&bytes[at..]) {
            at += length;
            if let Some(rest) = payload.strip_prefix(PUBLISH) {
                let end = rest.iter().position(|byte| *byte == b'"').unwrap_or(0);
                self.publish(&rest[..end], &rest[end..]);
            } else if let Some(rest) = payload.strip_prefix(SUBSCRIBE) {
                let end = rest.iter().position(|byte| *byte == b'"').unwrap_or(0);
                let channel = self.channel(&rest[..end]);
                self.channels[channel].subscribers.push(id);
                if let Some(client) = self.clients.get_mut(&id) {
                    client.send(OK)?;
                }
            }
        }
        Ok(at)
    }

    fn channel(&mut self, name: &[u8]) -> usize {
        if let Some(known) = self.names.get(name) {
            return *known;
        }
        self.channels.push(Channel::default());
        self.names.insert(name.to_vec(), self.channels.len() - 1);
        self.channels.len() - 1
    }

    /// Publishes a message. `rest` is the end of the command: from the quotation mark after the
    /// channel's name to the last brace.
    fn publish(&mut self, name: &[u8], rest: &[u8]) {
        let at = self.channel(name);
        let each = self.each;
        let channel = &mut self.channels[at];
        if channel.published.is_empty() {
            self.dirty.push(at);
        }
        let parts = [
            &b"{\"type\":\"message\",\"channel\":\""[..],
            name,
            &rest[..rest.len() - 1],
            b",\"from\":\"bench-0\"}",
        ];
        let length: usize = parts.iter().map(|part| part.len()).sum();
        channel.published.push(0x81);
        match length {
            short @ 0..=125 => channel.published.push(short as u8),
            middle => {
                channel.published.push(126);
                channel.published.extend((middle as u16).to_be_bytes());
            }
        }
        for part in parts {
            channel.published.extend_from_slice(part);
        }
        if each {
            self.deliver();
        }
    }

    /// Writes the publications of this iteration to every subscriber.
    fn deliver(&mut self) {
        for at in self.dirty.drain(..) {
            let channel = &mut self.channels[at];
            for subscriber in &channel.subscribers {
                if let Some(client) = self.clients.get_mut(subscriber) {
                    // The next read notices a lost client.
                    drop(client.send(&channel.published));
                }
            }
            channel.published.clear();
        }
    }
}

impl Client {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(bytes);
            return Ok(());
        }
        match self.stream.write(bytes) {
            Ok(sent) => self.unsent.extend_from_slice(&bytes[sent..]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.unsent.extend_from_slice(bytes);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The payload of the first frame, and the length of this frame with its head; `None` while the
/// frame is incomplete. The mask must be zeros.
fn frame(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let [_, second, rest @ ..] = bytes else {
        return None;
    };
    let (head, length) = match second & 0x7f {
        126 => (8, usize::from(u16::from_be_bytes(*rest.first_chunk()?))),
        127 => (
            14,
            usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).ok()?,
        ),
        short => (6, usize::from(short)),
    };
    let payload = bytes.get(head..head + length)?;
    Some((payload, head + length))
}
