//! Reading a stream on request, for a client or an operator.

use curfew_backend::{BackendError, StreamRange};
use curfew_model::{Channel, Epoch, HistoryRange, MAX_HISTORY_LIMIT, Position, Publication};

use crate::Node;

/// Number of bytes assumed for a publication in a reply, in addition to its data and its
/// publisher's name.
const ENTRY_BYTES: usize = 96;

/// A part of a channel's stream, shortened if a reply has no room for all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// The stream's position.
    pub position: Position,
    /// The publications, in the order that the [`HistoryRange`] defines.
    pub publications: Vec<Publication>,
    /// True if the last publications of the range were left out because the reply has no room for
    /// them.
    pub truncated: bool,
}

impl Node {
    /// Reads a part of a channel's stream: at most [`MAX_HISTORY_LIMIT`] publications, and no more
    /// than fit into half of `outbound_bytes` (`limits.outbound_bytes`). The other half is for
    /// other frames. A limit of 0 asks only for the position.
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
            // The client's position belongs to another epoch, so no publication of this epoch
            // follows it.
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

/// The number of leading items that together fit into `bytes`. `size` returns the number of bytes
/// of an item.
pub fn count_within<T>(items: &[T], mut bytes: usize, size: impl Fn(&T) -> usize) -> usize {
    let fits = |item: &&T| {
        let left = bytes.checked_sub(size(item));
        bytes = left.unwrap_or(0);
        left.is_some()
    };
    items.iter().take_while(fits).count()
}
