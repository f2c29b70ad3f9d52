//! The operations that publish: into one channel, and into several channels.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use curfew_backend::BackendError;
use curfew_model::{MAX_PUBLICATION_KEY_BYTES, Position, Publication, PublicationKey, Publisher};
use curfew_node::Append;
use curfew_protocol::native;
use curfew_session::{PublishOutcome, PublishSource};
use http::StatusCode;
use schemars::JsonSchema;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::channels::parse_channel;
use super::{Admin, Call};
use crate::http::{Problem, Response, json};

/// Maximum number of channels in one broadcast.
const MAX_CHANNELS: usize = 1000;

/// The request to publish into one channel.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Publish {
    /// The channel.
    channel: String,
    /// Any JSON value. It is delivered byte for byte.
    #[schemars(with = "serde_json::Value")]
    data: Box<RawValue>,
    /// The caller's idempotency key, of 1 to 64 bytes, for a channel with history. If a publication
    /// with the same key and the same admin key was accepted within the last five minutes, nothing
    /// is delivered, and the answer is the same as the answer to that publication.
    #[serde(default)]
    key: Option<String>,
    /// The caller's span, in the form of the HTTP header `traceparent`. This member takes
    /// precedence over the header. An invalid value is ignored.
    #[serde(rename = "traceparent", default)]
    #[schemars(with = "Option<String>")]
    _traceparent: Option<IgnoredAny>,
    /// The trace state that belongs to the member `traceparent`, in the form of the HTTP header
    /// `tracestate`. An invalid value is ignored.
    #[serde(rename = "tracestate", default)]
    #[schemars(with = "Option<String>")]
    _tracestate: Option<IgnoredAny>,
}

/// The request to publish the same data into several channels.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Broadcast {
    /// The channels, 1 to 1000.
    channels: Vec<String>,
    /// Any JSON value. It is delivered byte for byte.
    #[schemars(with = "serde_json::Value")]
    data: Box<RawValue>,
    /// The caller's span, in the form of the HTTP header `traceparent`. This member takes
    /// precedence over the header. An invalid value is ignored.
    #[serde(rename = "traceparent", default)]
    #[schemars(with = "Option<String>")]
    _traceparent: Option<IgnoredAny>,
    /// The trace state that belongs to the member `traceparent`, in the form of the HTTP header
    /// `tracestate`. An invalid value is ignored.
    #[serde(rename = "tracestate", default)]
    #[schemars(with = "Option<String>")]
    _tracestate: Option<IgnoredAny>,
}

/// A position in a channel's history, for the API's description.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct StreamPlace {
    /// The history's epoch. Offsets can be compared only within one epoch.
    epoch: String,
    /// The number of publications up to and including this position.
    offset: u64,
}

/// The result of a publication.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Published {
    /// The number of channels into which the data was published.
    published: usize,
    /// The publication's position. Absent if the request lists several channels, or if the channel
    /// keeps no history.
    #[serde(flatten)]
    #[schemars(flatten, with = "Option<StreamPlace>")]
    position: Option<Position>,
}

pub(super) async fn publish(admin: Arc<Admin>, call: Call) -> Result<Response, Problem> {
    check(&call)?;
    let Publish {
        channel, data, key, ..
    } = call.json()?;
    if let Some(key) = &key
        && !(1..=MAX_PUBLICATION_KEY_BYTES).contains(&key.len())
    {
        return Err(Problem::bad_request(format!(
            "key must have 1 to {MAX_PUBLICATION_KEY_BYTES} bytes"
        )));
    }
    let key = key.as_deref();
    admin.publish_all(&[channel], &data, key, &call).await
}

pub(super) async fn broadcast(admin: Arc<Admin>, call: Call) -> Result<Response, Problem> {
    check(&call)?;
    let Broadcast { channels, data, .. } = call.json()?;
    if !(1..=MAX_CHANNELS).contains(&channels.len()) {
        return Err(Problem::bad_request(format!(
            "`channels` must list 1 to {MAX_CHANNELS} channels"
        )));
    }
    admin.publish_all(&channels, &data, None, &call).await
}

/// Checks the call's body by the rules that the native protocol has for a client's publication.
fn check(call: &Call) -> Result<(), Problem> {
    native::check_request(&call.body).map_err(Problem::bad_request)
}

impl Admin {
    /// Publishes `data` into all `channels`. Every channel is checked before anything is published.
    async fn publish_all(
        &self,
        channels: &[String],
        data: &RawValue,
        key: Option<&str>,
        call: &Call,
    ) -> Result<Response, Problem> {
        let most = call.settings.sessions.limits.message_bytes;
        if data.get().len() > most {
            let detail = format!("data has more than {most} bytes (limits.message_bytes)");
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            return Err(Problem::new(status, "message_too_large", detail));
        }
        let channels = channels.iter().map(|name| parse_channel(name));
        let channels = channels.collect::<Result<Vec<_>, _>>()?;
        for channel in &channels {
            call.check_channel(channel)?;
            call.check_json(channel)?;
            if key.is_some() {
                call.check_stream(
                    channel,
                    "key needs a channel that keeps history: see [[channels]]",
                )?;
            }
        }
        let key = key.map(|key| PublicationKey::new(Publisher::AdminKey(call.key()), key));
        let mut position = None;
        let count = channels.len();
        let data = Bytes::copy_from_slice(data.get().as_bytes());
        for (published, channel) in channels.into_iter().enumerate() {
            let publication = Publication {
                channel,
                data: data.clone(),
                from: None,
                sender: None,
                is_binary: false,
                entry: None,
                trace: call.trace.clone(),
            };
            let error = match self.publish_one(publication, key, call).await {
                Ok(place) => {
                    position = place.filter(|_| count == 1);
                    continue;
                }
                Err(error) => error,
            };
            // The error states how many channels have got the publication. If the caller repeated
            // the whole broadcast, these channels would get the data twice.
            return Err(match error {
                BackendError::Unavailable(_) if published > 0 => Problem::unknown_outcome(format!(
                    "published into the first {published} of {count} channels, and into no other"
                )),
                BackendError::UnknownOutcome(_) if count > 1 => Problem::unknown_outcome(format!(
                    "published into the first {published} of {count} channels, and perhaps into the next"
                )),
                error => error.into(),
            });
        }
        let published = Published {
            published: count,
            position,
        };
        Ok(json(StatusCode::OK, &published))
    }

    async fn publish_one(
        &self,
        publication: Publication,
        key: Option<PublicationKey>,
        call: &Call,
    ) -> Result<Option<Position>, BackendError> {
        let node = &self.context.node;
        let options = call.options(&publication.channel);
        let append = options.stream.map(|bounds| Append { bounds, key });
        let result = match node.hub().lease().held_until() {
            Some(until) => {
                let began = Some(Instant::now());
                node.publish(publication, until, began, append).await
            }
            None => Err(BackendError::unavailable(
                "the node is disconnected from its backend",
            )),
        };
        let outcome = match &result {
            Ok(_) => PublishOutcome::Accepted,
            Err(BackendError::UnknownOutcome(_)) => PublishOutcome::Unknown,
            Err(_) => PublishOutcome::Error,
        };
        let metrics = &self.context.metrics;
        metrics.publishes.inc((outcome, PublishSource::Api));
        result
    }
}
