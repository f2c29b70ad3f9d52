//! Nodes and channels.

use std::sync::Arc;

use curfew_backend::NodeInfo;
use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Admin, Call};
use crate::http::{Problem, Response, json};

/// The live nodes.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Nodes {
    nodes: Vec<NodeInfo>,
}

/// Channels with subscribers.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Channels {
    channels: Vec<ChannelInfo>,
}

/// One channel.
#[derive(Debug, Serialize, JsonSchema)]
struct ChannelInfo {
    channel: String,
    /// Sessions that listen.
    subscribers: usize,
}

pub(super) async fn nodes(admin: Arc<Admin>) -> Result<Response, Problem> {
    let nodes = admin.context.node.backends().nodes.list().await?;
    Ok(json(StatusCode::OK, &Nodes { nodes }))
}

pub(super) fn channels(admin: &Admin, call: &Call) -> Result<Response, Problem> {
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
