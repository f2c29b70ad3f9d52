//! The operation that lists the live nodes.

use std::sync::Arc;

use curfew_backend::NodeInfo;
use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use super::Admin;
use crate::http::{Problem, Response, json};

/// The live nodes.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Nodes {
    nodes: Vec<NodeInfo>,
}

pub(super) async fn nodes(admin: Arc<Admin>) -> Result<Response, Problem> {
    let nodes = admin.context.node.backends().nodes.list().await?;
    Ok(json(StatusCode::OK, &Nodes { nodes }))
}
