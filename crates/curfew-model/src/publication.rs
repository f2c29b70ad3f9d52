//! Publications.

use std::sync::Arc;

use bytes::Bytes;

use crate::{Channel, Present, StreamEntry, TraceContext};

/// Data accepted into a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// The channel that it was published into.
    pub channel: Channel,
    /// One JSON value, byte for byte as the publisher sent it; any bytes where the channel's
    /// `format` is `binary`.
    pub data: Bytes,
    /// The publishing session's user; `None` for a publication by the admin API.
    pub from: Option<Arc<str>>,
    /// The publishing session, as others see it; `None` for the admin API, and where no protocol
    /// of the node shows it.
    pub sender: Option<Arc<Present>>,
    /// True if the data is not JSON. Protocols that carry JSON alone do not deliver it.
    pub is_binary: bool,
    /// Its place in the channel's stream; `None` where it has none, or not yet.
    pub entry: Option<StreamEntry>,
    /// The publishing span, if the publication is traced.
    pub trace: Option<Box<TraceContext>>,
}
