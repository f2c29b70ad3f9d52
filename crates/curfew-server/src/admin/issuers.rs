//! The operation that lists the issuers and their keys.

use curfew_auth::IssuerSummary;
use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use super::Admin;
use crate::http::{Problem, Response, json};

/// The issuers whose tokens this node accepts, and the keys that verify them.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Issuers {
    issuers: Vec<IssuerSummary>,
}

pub(super) fn list(admin: &Admin) -> Result<Response, Problem> {
    let issuers = admin.context.authenticator.issuers();
    Ok(json(StatusCode::OK, &Issuers { issuers }))
}
