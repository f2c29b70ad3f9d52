//! A Redis server reduced to one channel's stream, and the link that brings its publications.

use super::rules::StreamRules;

/// The position of a publication. A reader at this position has every publication up to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// The stream's epoch.
    pub epoch: u8,
    /// The offset in the epoch, counted from 1; 0 is before the first publication.
    pub offset: u8,
    /// Number of the history to which the position belongs. The node cannot read it. A loss of data
    /// begins a new history.
    pub line: u8,
}

impl Position {
    /// The next position.
    pub(super) fn next(self) -> Self {
        Self {
            offset: self.offset + 1,
            ..self
        }
    }

    /// True if a reader considers `self` and `other` to be of the same epoch.
    pub(super) fn is_of_epoch(self, other: Self) -> bool {
        self.epoch == other.epoch
    }
}

/// A stream on a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stream {
    /// The stream's epoch.
    pub epoch: u8,
    /// The last offset.
    pub top: u8,
    /// The first stored offset; beyond the top if none is stored.
    pub first: u8,
    /// The `master_replid` of the server that wrote the stream.
    pub replid: u8,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Server {
    /// The stream; `None` if the server has no data of the channel.
    pub stream: Option<Stream>,
    /// The server's `master_replid`, which a replica shares with its primary.
    pub replid: u8,
    /// Number of the history of the server's data.
    pub line: u8,
}

/// The answer to a read: the stream's top, and its entries as offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Answer {
    /// The stream's top: the position of its last publication.
    pub top: Position,
    /// Offset of the first entry; beyond the top if there is none.
    pub first: u8,
    /// Offset of the last entry. It is the offset of the top if the top and the entries are read at
    /// once (SR3).
    pub last: u8,
    /// Offset of a missing entry between the first and the last entry; only without SR13.
    pub hole: Option<u8>,
}

/// A message on the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Push {
    /// The server has confirmed that the node listens.
    Confirmed,
    /// A publication.
    Frame(Position),
    /// The history up to this position was deleted.
    Deleted(Position),
}

/// The link that brings publications.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Link {
    /// The server at the other end.
    pub server: usize,
    /// True once the node has read the confirmation.
    pub confirmed: bool,
    /// True if nothing more arrives and the node has not noticed this yet.
    pub broken: bool,
    /// The messages in flight, in order.
    pub queue: Vec<Push>,
}

impl Link {
    /// A link that the server has just registered.
    pub(super) fn new(server: usize) -> Self {
        Self {
            server,
            confirmed: false,
            broken: false,
            queue: vec![Push::Confirmed],
        }
    }

    /// True if the node has read the confirmation. The node then relies on the link.
    pub(super) fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    /// True if the node has read everything that arrives without a new publication.
    pub(super) fn is_drained(&self) -> bool {
        self.confirmed && !self.broken && self.queue.is_empty()
    }
}

impl Server {
    /// A server with an empty stream in its first epoch.
    pub(super) fn new() -> Self {
        Self {
            stream: Some(Stream::new(1, 1)),
            replid: 1,
            line: 1,
        }
    }

    /// Returns the stream, as every script does at its beginning. Begins a new stream if there is
    /// none, or if another primary wrote the stream. `replid` is the id that the caller's
    /// connection has read.
    fn stream(&mut self, replid: u8, epochs: &mut u8, rules: &StreamRules) -> &mut Stream {
        let is_foreign = |stream: &Stream| rules.compare_replid && stream.replid != replid;
        if self.stream.as_ref().is_none_or(is_foreign) {
            *epochs += 1;
            self.stream = Some(Stream::new(*epochs, replid));
        }
        self.stream.get_or_insert(Stream::new(*epochs, replid))
    }

    /// The script of a publication.
    pub(super) fn publish(&mut self, size: u8, epochs: &mut u8, rules: &StreamRules) -> Position {
        let (replid, line) = (self.replid, self.line);
        let stream = self.stream(replid, epochs, rules);
        stream.top += 1;
        stream.first = stream.first.max((stream.top + 1).saturating_sub(size));
        Position {
            epoch: stream.epoch,
            offset: stream.top,
            line,
        }
    }

    /// The script of a deletion. Later publications continue the offsets.
    pub(super) fn delete(&mut self, epochs: &mut u8, rules: &StreamRules) -> Position {
        let (replid, line) = (self.replid, self.line);
        let stream = self.stream(replid, epochs, rules);
        stream.first = stream.top + 1;
        Position {
            epoch: stream.epoch,
            offset: stream.top,
            line,
        }
    }

    /// The script of a read.
    pub(super) fn read(&mut self, replid: u8, epochs: &mut u8, rules: &StreamRules) -> Answer {
        self.stream(replid, epochs, rules);
        self.answer()
    }

    /// The answer to a read that begins no new stream.
    pub(super) fn answer(&self) -> Answer {
        let stream = self.stream.unwrap_or(Stream::new(0, 0));
        Answer {
            top: Position {
                epoch: stream.epoch,
                offset: stream.top,
                line: self.line,
            },
            first: stream.first,
            last: stream.top,
            hole: None,
        }
    }
}

impl Stream {
    fn new(epoch: u8, replid: u8) -> Self {
        Self {
            epoch,
            top: 0,
            first: 1,
            replid,
        }
    }
}
