//! The least of Redis' protocol that a measurement can do with: commands out, replies in, over one
//! connection that nothing else shares or delays.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context as _, bail};

/// How long Redis may take to connect or to answer: emptying millions of keys takes a while.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to Redis.
#[derive(Debug)]
pub struct Resp {
    stream: BufReader<TcpStream>,
    /// Kept for its memory.
    command: Vec<u8>,
}

impl Resp {
    /// Connects.
    ///
    /// # Errors
    ///
    /// Nobody listens there.
    pub fn connect(address: impl ToSocketAddrs) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).context("connect to redis")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream: BufReader::new(stream),
            command: Vec::new(),
        })
    }

    /// Sends a command and waits for its reply.
    ///
    /// # Errors
    ///
    /// Redis refuses the command or does not answer.
    pub fn call(&mut self, words: &[impl AsRef<[u8]>]) -> anyhow::Result<String> {
        self.send(words)?;
        self.receive()
    }

    /// Sends a command; its reply is yet to be [received](Resp::receive).
    ///
    /// # Errors
    ///
    /// The connection is lost.
    pub fn send(&mut self, words: &[impl AsRef<[u8]>]) -> anyhow::Result<()> {
        self.command.clear();
        put_command(words, &mut self.command);
        self.stream
            .get_mut()
            .write_all(&self.command)
            .context("send to redis")
    }

    /// The next reply, as text: a status, a number, or a string, empty where there is none.
    ///
    /// # Errors
    ///
    /// It is an error or an array, or does not come.
    pub fn receive(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line);
        if read.context("receive from redis")? == 0 {
            bail!("redis has closed the connection");
        }
        let line = line.trim_end();
        match line.split_at_checked(1) {
            Some(("+" | ":", rest)) => Ok(rest.to_owned()),
            Some(("-", error)) => bail!("redis says {error}"),
            Some(("$", "-1")) => Ok(String::new()),
            Some(("$", length)) => self.string(length.parse().context("length of a string")?),
            _ => bail!("redis says what is not understood here: {line}"),
        }
    }

    fn string(&mut self, length: usize) -> anyhow::Result<String> {
        /// What follows a string.
        const END: &[u8] = b"\r\n";
        let mut bytes = vec![0; length + END.len()];
        self.stream
            .read_exact(&mut bytes)
            .context("receive from redis")?;
        bytes.truncate(length);
        String::from_utf8(bytes).context("redis says what is no text")
    }
}

fn put_command(words: &[impl AsRef<[u8]>], out: &mut Vec<u8>) {
    out.extend(format!("*{}\r\n", words.len()).bytes());
    for word in words {
        let word = word.as_ref();
        out.extend(format!("${}\r\n", word.len()).bytes());
        out.extend(word);
        out.extend(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::net::TcpListener;

    #[test]
    fn commands_are_sent_and_replies_of_every_form_are_read() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut resp = Resp::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server
            .write_all(b"+OK\r\n:42\r\n$3\r\na\r\n\r\n$-1\r\n-NOAUTH no\r\n*0\r\n")
            .unwrap();
        assert_eq!(resp.call(&["SET", "k", ""]).unwrap(), "OK");
        assert_eq!(resp.receive().unwrap(), "42");
        assert_eq!(resp.receive().unwrap(), "a\r\n");
        assert_eq!(resp.receive().unwrap(), "");
        assert!(resp.receive().unwrap_err().to_string().contains("NOAUTH"));
        assert!(resp.receive().is_err(), "arrays are not read");
        let mut sent = [0; 26];
        server.read_exact(&mut sent).unwrap();
        assert_eq!(&sent, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n");
    }
}
