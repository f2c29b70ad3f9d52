//! Reading a stream on request, for a client or an operator.

use curfew_backend::{BackendError, StreamRange};
use curfew_model::{Channel, Epoch, HistoryRange, MAX_HISTORY_LIMIT, Position, Publication};

use crate::Node;

/// Room for all of a publication in an answer but its data and its publisher, in bytes.
const ENTRY_BYTES: usize = 96;

/// A part of a channel's stream, as much as an answer has room for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// The stream's position.
    pub position: Position,
    /// The publications, in the order of the range.
    pub publications: Vec<Publication>,
    /// The last ones had no room.
    pub truncated: bool,
}

impl Node {
    /// Reads a part of a channel's stream, at most [`MAX_HISTORY_LIMIT`] publications, and as many as
    /// fit into half of `outbound_bytes` (`limits.outbound_bytes`): the other half is for what else
    /// waits. A limit of 0 asks for the position alone.
    pub async fn history(
        &self,
        channel: &Channel,
        range: HistoryRange,
        limit: u64,
        outbound_bytes: usize,
    ) -> Result<History, BackendError> {
        let limit = limit.min(MAX_HISTORY_LIMIT) as u32;
        let part = match range {
            _ if limit == 0 => StreamRange::Top,
            HistoryRange::Since(since) => StreamRange::After {
                offset: since.offset,
                limit,
            },
            HistoryRange::Before(offset) => StreamRange::Before { offset, limit },
        };
        let page = self.backends.streams.read(channel, part).await?;
        let mut publications = page.publications;
        if let HistoryRange::Since(since) = range
            && ![Epoch::ANY, page.position.epoch].contains(&since.epoch)
        {
            // Nothing came after a position of another epoch.
            publications.clear();
        }
        let fitting = count_within(&publications, outbound_bytes / 2, size);
        let truncated = fitting < publications.len();
        publications.truncate(fitting);
        Ok(History {
            position: page.position,
            publications,
            truncated,
        })
    }
}

fn size(publication: &Publication) -> usize {
    let from = publication.from.as_ref().map_or(0, |from| from.len());
    ENTRY_BYTES + publication.data.len() + from
}

/// The number of first items that have room in `bytes` of an answer, each of which takes `size`.
pub fn count_within<T>(items: &[T], mut bytes: usize, size: impl Fn(&T) -> usize) -> usize {
    let fits = |item: &&T| {
        let left = bytes.checked_sub(size(item));
        bytes = left.unwrap_or(0);
        left.is_some()
    };
    items.iter().take_while(fits).count()
}
