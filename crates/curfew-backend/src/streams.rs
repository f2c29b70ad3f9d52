//! Streams: the last publications of a channel, stored for subscribers that were disconnected.

use std::time::Duration;

use curfew_model::{Channel, Position, Publication, PublicationKey};

use crate::{BackendError, BoxFuture};

/// Time for which a publication's idempotency key is remembered.
pub const PUBLICATION_KEY_LIFETIME: Duration = Duration::from_secs(5 * 60);

/// Time for which a stream's position is stored after the stream's last publication. A client that
/// reconnects after this time is told that it may have missed publications.
pub const POSITION_LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Bounds of a channel's stream (`history` of `[[channels]]`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamBounds {
    /// Maximum number of stored publications; at least 1.
    pub size: u32,
    /// Time for which all publications stay stored after the newest publication.
    pub ttl: Duration,
}

/// The part of a stream that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamRange {
    /// Only the position, without publications.
    Top,
    /// Publications after an offset, oldest first, at most `limit`.
    After {
        /// The offset before the first publication to read.
        offset: u64,
        /// Maximum number of publications.
        limit: u32,
    },
    /// Publications before an offset, newest first, at most `limit`.
    Before {
        /// The offset after the newest publication to read. If this offset is above the newest
        /// publication, the range starts at the newest publication.
        offset: u64,
        /// Maximum number of publications.
        limit: u32,
    },
}

/// A part of a stream, and the stream's position at the same moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPage {
    /// The position of the newest publication.
    pub position: Position,
    /// The publications, each with its [`entry`](Publication::entry), in the order of the range.
    /// The publications carry no trace context.
    pub publications: Vec<Publication>,
}

/// The streams of channels.
///
/// Guarantees:
/// - Offsets of one epoch have no gaps. A publication gets its offset and its entry before it
///   reaches [`Events::publication`](crate::Events::publication), and publications of one channel
///   arrive in the order of their offsets.
/// - A publication for which `append` returned `Ok` is in the stream until [`StreamBounds`] or
///   [`Streams::clear`] remove it.
/// - A backend that may have lost publications gives the stream a new epoch. The backend never
///   reads a replica that may be behind its primary.
/// - The first request for a channel gives the channel's stream an epoch and the offset 0.
pub trait Streams: Send + Sync + 'static {
    /// Appends a publication to its channel's stream and hands it to every listening node, in one
    /// step. Returns the publication's position.
    ///
    /// A second publication with the same `key` in the same channel, within
    /// [`PUBLICATION_KEY_LIFETIME`], returns the position of the first publication and has no other
    /// effect. [`Broker::publish`](crate::Broker::publish) describes the order of publications and
    /// `until`.
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

    /// Deletes every publication of a channel's stream. The stream's position stays, so that
    /// subscribers do not mistake the deletion for a gap. Every node that listens is notified
    /// ([`Events::cleared`](crate::Events::cleared)) in the same step, before any later
    /// publication. The calling node is notified before the call returns, and may be notified
    /// twice.
    fn clear<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<(), BackendError>>;
}
