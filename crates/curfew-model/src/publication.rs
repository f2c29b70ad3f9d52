//! Publications.

use std::sync::Arc;

use bytes::Bytes;

use crate::{Channel, Present, StreamEntry, TraceContext};

/// Data accepted into a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// The channel that it was published into.
    pub channel: Channel,
    /// One JSON value, byte for byte as the publisher sent it. If the channel's `format` is
    /// `binary`, any bytes.
    pub data: Bytes,
    /// The publishing session's user; `None` for a publication by the admin API.
    pub from: Option<Arc<str>>,
    /// The publishing session, as other sessions see it; `None` for the admin API, or if no
    /// protocol of the node shows it.
    pub sender: Option<Arc<Present>>,
    /// True if the data is not JSON. Protocols that carry JSON alone do not deliver it.
    pub is_binary: bool,
    /// The publication's entry in the channel's stream; `None` if the channel has no stream, or has
    /// not accepted the publication yet.
    pub entry: Option<StreamEntry>,
    /// The publishing span, if the publication is traced.
    pub trace: Option<Box<TraceContext>>,
}
