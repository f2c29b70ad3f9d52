//! Publications on their way to Redis, with the answers to their publishers.

use std::time::Duration;

use bytes::Bytes;
use curfew_model::Position;
use redis::{RedisError, Value};
use tokio::sync::oneshot;

use crate::fault::Fault;
use crate::streams::NewEntry;

/// A publication on its way to Redis, with the sender of the answer to its publisher. If a
/// publication is dropped without an answer, its publisher is notified that the publication was not
/// sent, or that its outcome is unknown.
pub(crate) struct Publication {
    /// The channel's name at Redis.
    pub(super) channel: String,
    pub(super) payload: Bytes,
    /// The end of the lease under which the publication was accepted, as
    /// [`boottime`](curfew_model::boottime).
    pub(super) until: Duration,
    /// True if Redis may have received the publication.
    pub(super) sent: bool,
    /// The stream entry that the publication becomes, if its channel has a stream.
    pub(super) entry: Option<Box<NewEntry>>,
    answer: Option<oneshot::Sender<Result<Option<Position>, Fault>>>,
}

/// The publications of one run of the script.
pub(crate) struct Run {
    pub(super) publications: Vec<Publication>,
    pub(super) until: Duration,
    pub(super) bytes: usize,
}

impl Publication {
    /// Creates a publication, with the receiver of its answer.
    pub(crate) fn new(
        channel: String,
        payload: Bytes,
        until: Duration,
        entry: Option<Box<NewEntry>>,
    ) -> (Self, oneshot::Receiver<Result<Option<Position>, Fault>>) {
        let (answer, answered) = oneshot::channel();
        let publication = Self {
            channel,
            payload,
            until,
            sent: false,
            entry,
            answer: Some(answer),
        };
        (publication, answered)
    }

    /// Refuses the publication, because later publications were executed before it.
    pub(crate) fn overtaken(mut self) {
        self.answer(Err(Fault::Overtaken));
    }

    /// True if the publisher no longer waits for an answer.
    pub(super) fn is_given_up(&self) -> bool {
        self.answer.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// Sends the answer. Later answers are ignored.
    pub(super) fn answer(&mut self, result: Result<Option<Position>, Fault>) {
        if let Some(answer) = self.answer.take() {
            // The publisher may have given up.
            drop(answer.send(result));
        }
    }
}

impl Drop for Publication {
    fn drop(&mut self) {
        let fault = match self.sent {
            false => Fault::NotConnected,
            true => Fault::Unanswered(Box::new(Fault::NotConnected)),
        };
        self.answer(Err(fault));
    }
}

impl Run {
    /// Adds a publication to the run.
    pub(super) fn push(&mut self, publication: Publication) {
        self.bytes += publication.channel.len() + publication.payload.len();
        self.publications.push(publication);
    }

    /// The end of the lease under which the run is sent.
    pub(crate) fn until(&self) -> Duration {
        self.until
    }

    /// Answers every publisher that still waits: the outcome is unknown, because of `error`.
    pub(crate) fn leave_open(&mut self, error: &RedisError) {
        self.answer_rest(|| Err(Fault::Unanswered(Box::new(Fault::Redis(error.clone())))));
    }

    /// Answers every publisher that still waits: the outcome is unknown, because the lease is over.
    pub(crate) fn give_up(&mut self) {
        self.answer_rest(|| Err(Fault::Unanswered(Box::new(Fault::LeaseOver))));
    }

    /// Refuses the publications that Redis did not accept. `refused` holds two values for each of
    /// them: its index, then its error.
    pub(super) fn refuse(&mut self, refused: Vec<Value>) {
        let mut refused = refused.into_iter();
        while let (Some(place), Some(error)) = (refused.next(), refused.next()) {
            let place = match place {
                Value::Int(place) => usize::try_from(place).ok(),
                _ => None,
            };
            let publication = place.and_then(|place| self.publications.get_mut(place));
            if let (Some(publication), Value::ServerError(error)) = (publication, error) {
                publication.answer(Err(RedisError::from(error).into()));
            }
        }
    }

    /// True if the call of this run can also carry this publication.
    pub(super) fn takes(&self, publication: &Publication) -> bool {
        let first = self.publications.first();
        match (
            first.and_then(|first| first.entry.as_ref()),
            &publication.entry,
        ) {
            (Some(entry), Some(other)) => entry.is_like(other),
            (None, None) => true,
            _ => false,
        }
    }

    /// True if the run's publications are appended to a stream.
    pub(super) fn appends(&self) -> bool {
        self.publications
            .first()
            .is_some_and(|first| first.entry.is_some())
    }

    /// The run's entries with their envelopes, if its publications are appended to a stream.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&NewEntry, &[u8])> + Clone {
        self.publications.iter().filter_map(|publication| {
            let entry = publication.entry.as_deref()?;
            Some((entry, &publication.payload[..]))
        })
    }

    /// Answers the run's publications in order, each with its position.
    pub(super) fn answer_each(&mut self, positions: Vec<Position>) {
        for (publication, position) in self.publications.iter_mut().zip(positions) {
            publication.answer(Ok(Some(position)));
        }
    }

    /// Answers the publications that have no answer yet, each with the outcome that `result`
    /// returns.
    pub(super) fn answer_rest(&mut self, result: impl Fn() -> Result<Option<Position>, Fault>) {
        for publication in &mut self.publications {
            publication.answer(result());
        }
    }

    /// Returns the publications, so that they can be sent again.
    pub(crate) fn into_publications(self) -> Vec<Publication> {
        self.publications
    }
}
