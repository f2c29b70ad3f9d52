//! Publications.

use std::sync::Arc;

use bytes::Bytes;

use crate::{Channel, Present, StreamEntry, TraceContext};

/// Data published into a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// The channel that the data was published into.
    pub channel: Channel,
    /// The data, byte for byte as the publisher sent it: one JSON value, or any bytes if the
    /// channel's `format` is `binary`.
    pub data: Bytes,
    /// The publishing session's user; `None` for a publication by the admin API.
    pub from: Option<Arc<str>>,
    /// The publishing session, as other sessions see it; `None` for the admin API, or if no
    /// protocol of the node shows senders.
    pub sender: Option<Arc<Present>>,
    /// True if the data is not JSON. Protocols that carry only JSON do not deliver the publication
    /// then.
    pub is_binary: bool,
    /// The publication's entry in the channel's stream; `None` if the channel has no stream, or if
    /// the stream has not accepted the publication yet.
    pub entry: Option<StreamEntry>,
    /// The span that published the data, if the publication is traced.
    pub trace: Option<Box<TraceContext>>,
}
