//! The publications that a subscriber missed, from the window or from a read.

use std::time::{Duration, Instant};

use curfew_model::{Position, Publication};

use super::{Feed, ReadPart};

/// The publications that a subscriber missed, as far as they are known.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::streams) enum Replay {
    /// The publications between `since` and the feed's position.
    Whole(Vec<Publication>),
    /// The publications are not in memory: the stream has to be read after this offset.
    Read(u64),
    /// The publications can no longer be recovered.
    Lost,
}

impl Feed {
    /// The publications after `since` up to the feed's position. `read` is the part of the stream
    /// that was read and ingested for this subscriber; it supplies publications that the window
    /// lacks. `came_at` is the time of day at which the subscriber arrived.
    pub(in crate::streams) fn replay(
        &mut self,
        since: Position,
        read: Option<ReadPart<'_>>,
        now: Instant,
        came_at: Duration,
    ) -> Replay {
        let Some(at) = self.at else {
            return Replay::Read(since.offset);
        };
        // A part that was just read has not expired, but a window may have. During an interruption,
        // the event that the publications were deleted may have been missed.
        if self.is_interrupted || (read.is_none() && self.has_expired(came_at)) {
            self.forget();
        }
        self.used_at = now;
        // A publication without a position arrived after `since`: no stream has it.
        let lacks = |hole: Position| hole.epoch == since.epoch && hole.offset >= since.offset;
        if self.unplaced_at.is_some_and(lacks) {
            return Replay::Lost;
        }
        if since == at {
            return Replay::Whole(Vec::new());
        }
        if since.epoch != at.epoch || since.offset > at.offset {
            return match read {
                Some(_) => Replay::Lost,
                // The feed may be behind the stream, or in an epoch that is over.
                None => Replay::Read(at.offset),
            };
        }
        let read = read.filter(|read| read.position.epoch == at.epoch);
        let top_read = read.map(|read| read.position.offset);
        let parts = read.map_or(&[][..], |read| read.publications);
        let mut missed = Vec::new();
        let mut reached = since.offset;
        // The read part comes first: the window holds newer publications.
        for publication in parts.iter().chain(&self.window) {
            let offset = publication.entry.map_or(0, |entry| entry.position.offset);
            if offset == reached + 1 && offset <= at.offset {
                missed.push(publication.clone());
                reached = offset;
            }
        }
        match reached == at.offset {
            true => Replay::Whole(missed),
            // The stream was read and did not have the next publication.
            false if top_read.is_some_and(|top| reached < top) => Replay::Lost,
            false => Replay::Read(since.offset),
        }
    }

    /// True if the stream no longer has the publications in the window.
    fn has_expired(&self, now: Duration) -> bool {
        let newest = self.window.back().and_then(|newest| newest.entry);
        newest.is_some_and(|entry| Duration::from_millis(entry.at) + self.ttl <= now)
    }
}
