//! The refusal of a token, with the token's members and the issuers' keys for comparison.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use curfew_auth::{AuthError, IssuerSummary};
use serde_json::{Map, Value, json};

use crate::output;

/// The refusal of a token, with the data that explains it.
pub(super) struct Refusal {
    pub(super) error: AuthError,
    /// The unverified members of the token that may explain the refusal; `null` for absent members.
    says: Value,
    issuers: Vec<IssuerSummary>,
}

impl Refusal {
    pub(super) fn new(error: AuthError, token: &str, issuers: Vec<IssuerSummary>) -> Self {
        let header = part(token, 0).unwrap_or_default();
        let claims = unverified(token).unwrap_or_default();
        let said = |members: &Map<String, Value>, name: &str| {
            members.get(name).cloned().unwrap_or_default()
        };
        let mut says = json!({
            "alg": said(&header, "alg"),
            "kid": said(&header, "kid"),
            "typ": said(&header, "typ"),
            "iss": said(&claims, "iss"),
            "aud": said(&claims, "aud"),
        });
        // These claims are in a separate object, because a required claim may have the same name as
        // a member of the header.
        let required = issuers
            .iter()
            .flat_map(|issuer| issuer.required_claims.keys());
        let required: Map<String, Value> = required
            .map(|name| (name.clone(), said(&claims, name)))
            .collect();
        if !required.is_empty() && !claims.is_empty() {
            says["required_claims"] = Value::Object(required);
        }
        Self {
            error,
            says,
            issuers,
        }
    }

    /// The refusal in one line.
    pub(super) fn line(&self) -> String {
        format!(
            "refused: {} ({})\n",
            self.error.message(),
            self.error.failure()
        )
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "reason": self.error.failure().as_str(),
            "message": self.error.message(),
            "token": self.says,
            "issuers": self.issuers,
        })
    }

    /// The token's members and the issuers, for comparison.
    pub(super) fn details(&self) -> String {
        let says = self.says.as_object().into_iter().flatten();
        let says: Vec<String> = says
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        let says = match says.is_empty() {
            true => "No member of the token can be read.".to_owned(),
            false => format!("The token has {}.", output::clean(&says.join(", "))),
        };
        let rows: Vec<Vec<String>> = self.issuers.iter().map(row).collect();
        let columns = ["ISSUER", "ISS", "AUD", "CLAIMS", "KEYS", "FETCHED"];
        let table = output::table(&columns, &rows);
        format!("{says}\n\n{table}")
    }
}

fn row(issuer: &IssuerSummary) -> Vec<String> {
    let keys = issuer.keys.iter().map(|key| {
        let algorithms: Vec<&str> = key.algorithms.iter().map(|one| one.as_str()).collect();
        let algorithms = algorithms.join("/");
        match &key.kid {
            Some(kid) => format!("{kid} ({algorithms})"),
            None => format!("({algorithms})"),
        }
    });
    let keys: Vec<String> = keys.collect();
    let claims = issuer.required_claims.iter();
    let claims: Vec<String> = claims
        .map(|(name, accepted)| format!("{name} {}", accepted.join("/")))
        .collect();
    let fetched = match &issuer.remote {
        None => "from a file".to_owned(),
        Some(remote) => match &remote.failure {
            Some(failure) => failure.clone(),
            None => "just now".to_owned(),
        },
    };
    let name = match issuer.opens_sessions {
        true => issuer.name.clone(),
        false => format!("{} (reports only)", issuer.name),
    };
    let any = || "any".to_owned();
    vec![
        name,
        issuer.issuer.clone().unwrap_or_else(any),
        issuer
            .audience
            .as_ref()
            .map_or_else(any, |audience| audience.join(", ")),
        match claims.is_empty() {
            true => any(),
            false => claims.join("; "),
        },
        match keys.is_empty() {
            true => "none".to_owned(),
            false => keys.join(", "),
        },
        fetched,
    ]
}

/// The claims of a token, unverified.
pub(crate) fn unverified(token: &str) -> Option<Map<String, Value>> {
    part(token, 1)
}

/// The JSON object in a part of a token. Part 0 is the header, and part 1 is the claims.
pub(crate) fn part(token: &str, at: usize) -> Option<Map<String, Value>> {
    let text = URL_SAFE_NO_PAD.decode(token.split('.').nth(at)?).ok()?;
    serde_json::from_slice(&text).ok()
}
