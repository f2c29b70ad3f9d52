//! Publications.

use std::sync::Arc;

use bytes::Bytes;

use crate::{Channel, StreamEntry, TraceContext};

/// Data accepted into a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// The channel that it was published into.
    pub channel: Channel,
    /// One JSON value, byte for byte as the publisher sent it.
    pub data: Bytes,
    /// The publishing session's user; `None` for a publication by the admin API.
    pub from: Option<Arc<str>>,
    /// Its place in the channel's stream; `None` where it has none, or not yet.
    pub entry: Option<StreamEntry>,
    /// The publishing span, if the publication is traced.
    pub trace: Option<Box<TraceContext>>,
}
