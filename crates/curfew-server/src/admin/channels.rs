//! Channels: their subscribers on this node, their streams and their presence.

use std::sync::Arc;

use curfew_backend::{BackendError, PresenceList, StreamPage, StreamRange};
use curfew_model::{
    Channel, DEFAULT_HISTORY_LIMIT, Epoch, HistoryRange, MAX_OFFSET, Position, Present, Publication,
};
use curfew_node::ChannelOptions;
use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{Admin, Call};
use crate::http::{Problem, Response, json};

/// Channels with subscribers.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Channels {
    channels: Vec<ChannelInfo>,
}

/// One channel.
#[derive(Debug, Serialize, JsonSchema)]
struct ChannelInfo {
    channel: String,
    /// The number of this node's sessions that are subscribed.
    subscribers: usize,
}

/// One channel with its stream and its presence.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ChannelDetails {
    channel: String,
    /// The number of this node's sessions that are subscribed.
    subscribers: usize,
    /// The stream; absent if the channel has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<StreamInfo>,
    /// The sessions of all nodes that are subscribed; absent if the channel has no presence.
    #[serde(skip_serializing_if = "Option::is_none")]
    presence: Option<PresenceInfo>,
}

/// The presence of a channel.
#[derive(Debug, Serialize, JsonSchema)]
struct PresenceInfo {
    /// The subscribed sessions, at most 1000 of them.
    sessions: Vec<PresentSession>,
    /// The number of all subscribed sessions.
    count: u64,
    /// The number of different users with a subscribed session.
    users: u64,
    /// True if `sessions` has fewer sessions than `count`.
    truncated: bool,
}

/// A session that is subscribed to a channel.
#[derive(Debug, Serialize, JsonSchema)]
struct PresentSession {
    session: String,
    user: String,
    /// The value of the claim that `session.info_claim` names; absent if the token does not have
    /// this claim.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    info: Option<Box<RawValue>>,
}

impl From<PresenceList> for PresenceInfo {
    fn from(list: PresenceList) -> Self {
        Self {
            truncated: (list.sessions.len() as u64) < list.count,
            sessions: list
                .sessions
                .into_iter()
                .map(PresentSession::from)
                .collect(),
            count: list.count,
            users: list.users,
        }
    }
}

impl From<Present> for PresentSession {
    fn from(present: Present) -> Self {
        let info = present.info.map(|info| info.to_string());
        Self {
            session: present.session.to_string(),
            user: present.user.to_string(),
            info: info.and_then(|info| RawValue::from_string(info).ok()),
        }
    }
}

/// A channel's stream.
#[derive(Debug, Serialize, JsonSchema)]
struct StreamInfo {
    /// The stream's epoch. Offsets can be compared only within one epoch.
    epoch: String,
    /// The offset of the newest publication.
    offset: u64,
    /// The number of stored publications.
    kept: u64,
}

/// A part of a channel's history.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct History {
    /// The stream's epoch. Offsets can be compared only within one epoch.
    epoch: String,
    /// The offset of the newest publication.
    offset: u64,
    /// The publications. If the request has `since`, the oldest is first, otherwise the newest.
    publications: Vec<Entry>,
    /// True if the last publications were left out, because an answer has at most half of
    /// `limits.outbound_bytes`. To get them, send a request that starts at the last offset of this
    /// answer. Absent if no publication was left out.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
}

/// One stored publication.
#[derive(Debug, Serialize, JsonSchema)]
struct Entry {
    offset: u64,
    /// The published value, byte for byte.
    #[schemars(with = "serde_json::Value")]
    data: Box<RawValue>,
    /// The publisher's user; absent if the publication came through this API.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    /// The time of the publication, in Unix milliseconds.
    at: u64,
}

pub(super) fn list(admin: &Admin, call: &Call) -> Result<Response, Problem> {
    let channels = admin
        .context
        .node
        .hub()
        .channels()
        .into_iter()
        .filter(|info| call.may_use(&info.channel))
        .map(|info| ChannelInfo {
            channel: info.channel.as_str().to_owned(),
            subscribers: info.subscribers,
        })
        .collect();
    Ok(json(StatusCode::OK, &Channels { channels }))
}

pub(super) async fn get(admin: Arc<Admin>, call: Call) -> Result<Response, Problem> {
    let channel = named(&call)?;
    let stream = match call.options(&channel).stream {
        Some(_) => {
            let first = StreamRange::After {
                offset: 0,
                limit: 1,
            };
            let page = admin.read(&channel, first).await?;
            let first = page.publications.first().and_then(|first| first.entry);
            let offset = page.position.offset;
            Some(StreamInfo {
                epoch: page.position.epoch.to_string(),
                offset,
                // The stored publications have consecutive offsets, so their number is the
                // difference of the newest and the oldest offset, plus 1.
                kept: first.map_or(0, |first| offset + 1 - first.position.offset),
            })
        }
        None => None,
    };
    let presence = match call.options(&channel).presence {
        true => Some(admin.context.node.presence(&channel).await?.into()),
        false => None,
    };
    let details = ChannelDetails {
        subscribers: admin.context.node.hub().subscribers(&channel),
        channel: channel.to_string(),
        stream,
        presence,
    };
    Ok(json(StatusCode::OK, &details))
}

pub(super) async fn history(admin: Arc<Admin>, call: Call) -> Result<Response, Problem> {
    let channel = call.streamed()?;
    call.check_json(&channel)?;
    let limit = number(&call, "limit")?.unwrap_or(DEFAULT_HISTORY_LIMIT);
    let since = call.query("since")?.map(|text| since(&text)).transpose()?;
    let range = match (since, number(&call, "before")?) {
        (Some(_), Some(_)) => {
            return Err(Problem::bad_request(
                "give either since or before, not both",
            ));
        }
        (Some(since), None) => HistoryRange::Since(since),
        (None, before) => HistoryRange::Before(before.unwrap_or(u64::MAX)),
    };
    let bytes = admin.context.settings.load().limits.outbound_bytes;
    let read = admin.context.node.history(&channel, range, limit, bytes);
    let read = read.await?;
    // A stream may still store binary publications from before its channel's format changed to
    // JSON. The answer leaves out the binary publications, because the answer itself is JSON.
    let publications = read.publications.into_iter();
    let publications = publications.filter(|publication| !publication.is_binary);
    let publications = publications.map(entry);
    let history = History {
        epoch: read.position.epoch.to_string(),
        offset: read.position.offset,
        publications: publications.collect::<Result<_, _>>()?,
        truncated: read.truncated,
    };
    Ok(json(StatusCode::OK, &history))
}

/// Deletes the publications of a channel's stream. The position of the stream does not change.
pub(super) async fn clear(admin: Arc<Admin>, call: Call) -> Result<Response, Problem> {
    let channel = call.streamed()?;
    // The position is read before the deletion. If reading fails, the caller gets an error and
    // nothing is deleted.
    let position = admin.read(&channel, StreamRange::Top).await?.position;
    admin
        .context
        .node
        .backends()
        .streams
        .clear(&channel)
        .await?;
    let history = History {
        epoch: position.epoch.to_string(),
        offset: position.offset,
        publications: Vec::new(),
        truncated: false,
    };
    Ok(json(StatusCode::OK, &history))
}

impl Call {
    /// The options of a channel, from the settings of the request.
    pub(super) fn options(&self, channel: &Channel) -> ChannelOptions {
        self.settings.sessions.channels.of(channel)
    }

    /// Fails with status 409 and the message `detail` unless the channel has a stream.
    pub(super) fn check_stream(
        &self,
        channel: &Channel,
        detail: &'static str,
    ) -> Result<(), Problem> {
        match self.options(channel).stream {
            Some(_) => Ok(()),
            None => Err(Problem::new(StatusCode::CONFLICT, "not_available", detail)),
        }
    }

    /// Fails with status 409 unless the channel's publications are JSON, the only format of this
    /// API.
    pub(super) fn check_json(&self, channel: &Channel) -> Result<(), Problem> {
        match self.options(channel).is_binary {
            false => Ok(()),
            true => Err(Problem::new(
                StatusCode::CONFLICT,
                "not_available",
                "the channel carries bytes (format = \"binary\"), but this API supports only JSON: use a \
                 client of the Centrifuge protocol with Protobuf",
            )),
        }
    }

    /// Returns the channel that the path parameter `name` names. Fails unless the caller's key may
    /// be used for the channel and the channel has a stream.
    fn streamed(&self) -> Result<Channel, Problem> {
        let channel = named(self)?;
        self.check_stream(&channel, "the channel keeps no history: see [[channels]]")?;
        Ok(channel)
    }
}

impl Admin {
    async fn read(&self, channel: &Channel, range: StreamRange) -> Result<StreamPage, Problem> {
        let streams = &self.context.node.backends().streams;
        Ok(streams.read(channel, range).await?)
    }
}

/// Parses a channel's name. Fails with status 400 if the name is invalid.
pub(super) fn parse_channel(name: &str) -> Result<Channel, Problem> {
    Channel::parse(name).map_err(|error| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            "invalid_channel",
            error.to_string(),
        )
    })
}

/// Returns the channel that the path parameter `name` names. Fails unless the caller's key may be
/// used for the channel.
fn named(call: &Call) -> Result<Channel, Problem> {
    let channel = parse_channel(call.param("name"))?;
    call.check_channel(&channel)?;
    Ok(channel)
}

/// Parses the query parameter `name` as a whole number; `None` if the query does not have it.
fn number(call: &Call, name: &str) -> Result<Option<u64>, Problem> {
    let number = |text: String| {
        let number = text.parse().ok().filter(|number| *number <= MAX_OFFSET);
        number.ok_or_else(|| {
            Problem::bad_request(format!(
                "{name} must be a whole number from 0 to {MAX_OFFSET}"
            ))
        })
    };
    call.query(name)?.map(number).transpose()
}

/// Parses a position in the form `EPOCH:OFFSET`.
fn since(text: &str) -> Result<Position, Problem> {
    let read = text.split_once(':').and_then(|(epoch, offset)| {
        let offset = offset.parse().ok().filter(|offset| *offset <= MAX_OFFSET)?;
        let epoch = epoch.parse().unwrap_or(Epoch::NONE);
        Some(Position { epoch, offset })
    });
    read.ok_or_else(|| Problem::bad_request("since must be an epoch, a colon and an offset"))
}

fn entry(publication: Publication) -> Result<Entry, BackendError> {
    let place = publication.entry;
    let place = place
        .ok_or_else(|| BackendError::Unusable("a stored publication has no position".into()))?;
    let data = serde_json::from_slice(&publication.data);
    Ok(Entry {
        offset: place.position.offset,
        data: data.map_err(|error| BackendError::Unusable(error.into()))?,
        from: publication.from.map(|from| from.to_string()),
        at: place.at,
    })
}
