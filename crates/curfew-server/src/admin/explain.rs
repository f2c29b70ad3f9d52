//! The explanation of a decision: the rule that allows or denies an action.

use std::sync::Arc;

use curfew_auth::VerifyError;
use curfew_model::Action;
use curfew_policy::Explanation;
use http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::channels::parse_channel;
use super::{Admin, Call};
use crate::http::{Problem, Response, json};

/// The action to explain.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Explain {
    /// A token to verify. Send either this or `claims`.
    token: Option<String>,
    /// Claims to use as if they had been verified. Send either this or `token`.
    claims: Option<Map<String, Value>>,
    /// The action.
    action: Action,
    /// The channel.
    channel: String,
}

pub(super) async fn explain(admin: Arc<Admin>, call: Call) -> Result<Response, Problem> {
    let body: Explain = call.json()?;
    let channel = parse_channel(&body.channel)?;
    call.check_channel(&channel)?;
    let claims = match (body.token, body.claims) {
        (Some(token), None) => match admin.context.verify(&token).await {
            Ok(principal) => principal.claims().parse(),
            Err(VerifyError::Unknown(why)) => {
                let problem = Problem::unavailable(format!("{why}, try again"));
                return Err(problem.after(why.retry_after()));
            }
            Err(VerifyError::Refused(error)) => {
                let why = format!(
                    "the token is refused ({}): {}",
                    error.failure(),
                    error.message()
                );
                return Ok(json(StatusCode::OK, &Explanation::refused(why)));
            }
        },
        (None, Some(claims)) => claims,
        _ => return Err(Problem::bad_request("send exactly one of token and claims")),
    };
    let settings = &call.settings;
    let user = match claims.get(&settings.auth.subject_claim) {
        Some(Value::String(user)) => user.clone(),
        Some(Value::Number(user)) => user.to_string(),
        _ => String::new(),
    };
    let policy = &settings.sessions.policy;
    let explanation = policy.explain(&claims, &user, body.action, &channel);
    Ok(json(StatusCode::OK, &explanation))
}
