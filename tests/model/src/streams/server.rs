//! A Redis server as far as one channel's stream goes, and the link that brings its publications.

use super::rules::StreamRules;

/// A publication, or what a reader knows of a stream: everything up to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// The stream's epoch.
    pub epoch: u8,
    /// The offset in it, from 1; 0 is before the first.
    pub offset: u8,
    /// Hidden from the node: which history this is part of. A loss of data begins another.
    pub line: u8,
}

impl Position {
    /// The one after it.
    pub(super) fn next(self) -> Self {
        Self {
            offset: self.offset + 1,
            ..self
        }
    }

    /// True when a reader takes `other` for the same epoch.
    pub(super) fn is_of_epoch(self, other: Self) -> bool {
        self.epoch == other.epoch
    }
}

/// A stream on a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stream {
    /// Its epoch.
    pub epoch: u8,
    /// The last offset.
    pub top: u8,
    /// The first offset that is kept; beyond the top when none is.
    pub first: u8,
    /// The `master_replid` that it was made under.
    pub replid: u8,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Server {
    /// The stream; none before the first call.
    pub stream: Option<Stream>,
    /// Its `master_replid`, which a replica shares with its primary.
    pub replid: u8,
    /// Which history its data is.
    pub line: u8,
}

/// All that a read says: where the stream stands, and which entries there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Answer {
    /// The top.
    pub top: Position,
    /// The first entry; beyond the top when there is none.
    pub first: u8,
    /// The last entry: the top, where both are read at once.
    pub last: u8,
    /// An entry in between that is not there; only without SR13.
    pub hole: Option<u8>,
}

/// A message on the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Push {
    /// The node listens from here on.
    Confirmed,
    /// A publication.
    Frame(Position),
    /// The history up to here has been deleted.
    Deleted(Position),
}

/// The link that publications come on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Link {
    /// Whose publications come on it.
    pub server: usize,
    /// True once the node has read that it listens.
    pub confirmed: bool,
    /// True when nothing comes any more, and the node has not found out yet.
    pub broken: bool,
    /// All that is on its way, in order.
    pub queue: Vec<Push>,
}

impl Link {
    /// One that the server has just taken note of.
    pub(super) fn new(server: usize) -> Self {
        Self {
            server,
            confirmed: false,
            broken: false,
            queue: vec![Push::Confirmed],
        }
    }

    /// True when the node may rely on it, as far as it knows.
    pub(super) fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    /// True when the node has read all that will come without a new publication.
    pub(super) fn is_drained(&self) -> bool {
        self.confirmed && !self.broken && self.queue.is_empty()
    }
}

impl Server {
    /// One with an empty stream in its first epoch.
    pub(super) fn new() -> Self {
        Self {
            stream: Some(Stream::new(1, 1)),
            replid: 1,
            line: 1,
        }
    }

    /// The beginning of every script: the stream, a new one where the data is not what it was.
    /// `replid` is what the caller's connection has read.
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

    /// The script of a deletion. Positions go on.
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

    /// What a read finds, where nothing is to be made anew.
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
