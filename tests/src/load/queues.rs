//! Bytes in the kernel's socket queues.

use std::collections::HashMap;
use std::fs;

/// The number of bytes in the queues of this machine's sockets, by local and remote port.
#[derive(Debug)]
pub struct Queues(HashMap<[u16; 2], [u64; 2]>);

impl Queues {
    /// Reads the current state from `/proc/net/tcp`.
    pub fn now() -> Self {
        let table = fs::read_to_string("/proc/net/tcp").expect("this is Linux");
        // The columns are sl, local_address, rem_address, st and tx_queue:rx_queue. Numbers are
        // hexadecimal.
        let sockets = table.lines().skip(1).filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            let mut port = || u16::from_str_radix(words.next()?.rsplit_once(':')?.1, 16).ok();
            let ports = [port()?, port()?];
            let (sending, received) = words.nth(1)?.split_once(':')?;
            let bytes = |text: &str| u64::from_str_radix(text, 16).ok();
            Some((ports, [bytes(sending)?, bytes(received)?]))
        });
        Self(sockets.collect())
    }

    /// Number of bytes that a socket has accepted and its peer has not received.
    pub(super) fn sending(&self, local: u16, remote: u16) -> u64 {
        self.0.get(&[local, remote]).map_or(0, |bytes| bytes[0])
    }

    /// Number of bytes that a socket has received and its process has not read; `None` if the
    /// connection is closed.
    pub(super) fn received(&self, local: u16, remote: u16) -> Option<u64> {
        self.0.get(&[local, remote]).map(|bytes| bytes[1])
    }

    /// Number of bytes that clients on this machine have received from a listener on this port and
    /// have not read.
    pub fn unread_from(&self, port: u16) -> u64 {
        let of_it = self.0.iter().filter(|(ports, _)| ports[1] == port);
        of_it.map(|(_, bytes)| bytes[1]).sum()
    }
}
