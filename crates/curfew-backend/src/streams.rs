//! Streams: the last publications of a channel, kept for subscribers that were away.

use std::time::Duration;

use curfew_model::{Channel, Position, Publication, PublicationKey};

use crate::{BackendError, BoxFuture};

/// Time for which a publication's idempotency key is remembered.
pub const PUBLICATION_KEY_LIFETIME: Duration = Duration::from_secs(5 * 60);

/// Time for which a stream's position outlives its last publication. A client that comes back later
/// than that is told that it may have missed something.
pub const POSITION_LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Bounds of a channel's stream (`history` of `[[channels]]`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamBounds {
    /// Publications kept, at least 1.
    pub size: u32,
    /// Time for which publications are kept after the last of them.
    pub ttl: Duration,
}

/// The part of a stream that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamRange {
    /// The position alone.
    Top,
    /// Publications after an offset, oldest first, at most `limit`.
    After {
        /// The offset before the first.
        offset: u64,
        /// Most publications.
        limit: u32,
    },
    /// Publications before an offset, newest first, at most `limit`.
    Before {
        /// The offset after the first; above the top it is the end of the stream.
        offset: u64,
        /// Most publications.
        limit: u32,
    },
}

/// A part of a stream, and the stream's position, both of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPage {
    /// The place of the newest publication.
    pub position: Position,
    /// The publications, each with its [`entry`](Publication::entry), in the order of the range.
    /// Without their traces.
    pub publications: Vec<Publication>,
}

/// The streams of channels.
///
/// Guarantees:
/// - Offsets of one epoch have no holes. A publication has its offset before it reaches
///   [`Events::publication`](crate::Events::publication), with its entry, and publications of one
///   channel arrive in the order of their offsets.
/// - A publication for which `append` returned `Ok` is in the stream until [`StreamBounds`] or
///   [`Streams::clear`] take it out.
/// - A backend that may have lost publications gives the stream a new epoch. A replica that may be
///   behind is never read.
/// - A channel has an epoch, with offset 0, from the first time that it is asked for.
pub trait Streams: Send + Sync + 'static {
    /// Appends a publication to its channel's stream and hands it to every listening node, in one
    /// step. Answers with its position.
    ///
    /// A second publication with the same `key` in the same channel, within
    /// [`PUBLICATION_KEY_LIFETIME`], has the first's answer and does nothing else. Order and
    /// `until` are as for [`Broker::publish`](crate::Broker::publish).
    fn append(
        &self,
        publication: Publication,
        until: Duration,
        bounds: StreamBounds,
        key: Option<PublicationKey>,
    ) -> BoxFuture<'_, Result<Position, BackendError>>;

    /// Reads a part of a channel's stream.
    fn read<'a>(
        &'a self,
        channel: &'a Channel,
        range: StreamRange,
    ) -> BoxFuture<'a, Result<StreamPage, BackendError>>;

    /// The positions of many channels' streams, in the order of the channels.
    fn positions<'a>(
        &'a self,
        channels: &'a [Channel],
    ) -> BoxFuture<'a, Result<Vec<Position>, BackendError>>;

    /// Takes every publication out of a channel's stream. Its position stays, so that subscribers
    /// miss nothing. Every node that listens is told ([`Events::cleared`](crate::Events::cleared)) in
    /// the same step, before it is told of later publications.
    fn clear<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<(), BackendError>>;
}
