//! Descriptions of the issuers for operators.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::LoadedIssuer;
use crate::keys::Key;
use crate::{Algorithm, LastReport, RemoteStatus, StreamStatus};

/// The keys and reports of an issuer, for operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct IssuerSummary {
    /// The configured name.
    pub name: String,
    /// The required `iss`; absent if it is not checked.
    pub issuer: Option<String>,
    /// The accepted audiences; absent if `aud` is not checked.
    pub audience: Option<Vec<String>>,
    /// The accepted values of other claims.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub required_claims: BTreeMap<String, Vec<String>>,
    /// Every algorithm that at least one key of the issuer can be used with.
    pub algorithms: Vec<Algorithm>,
    /// The keys.
    pub keys: Vec<KeySummary>,
    /// The source and state of fetched keys; absent for keys in files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemoteStatus>,
    /// True if its access tokens open sessions; `false` if the issuer only reports.
    pub opens_sessions: bool,
    /// The last report that it sent to this node; absent if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_report: Option<LastReport>,
    /// The last report without effect; absent if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<LastReport>,
    /// The number of reports on this node that wait for the issuer's keys. A stranger may have sent
    /// some of these reports in the issuer's name.
    #[serde(skip_serializing_if = "is_zero")]
    pub waiting_reports: usize,
    /// The state of the issuer's event stream, as last reported to this node; absent without a
    /// report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamStatus>,
}

/// One key, without its material.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct KeySummary {
    /// The key's `kid`; absent for a secret or a PEM file, which fits any `kid`.
    pub kid: Option<String>,
    /// The algorithms that can use the key.
    pub algorithms: Vec<Algorithm>,
}

impl LoadedIssuer {
    pub(crate) fn summary(&self) -> IssuerSummary {
        let mut algorithms = Vec::new();
        for algorithm in self.keys.iter().flat_map(Key::algorithms) {
            if !algorithms.contains(algorithm) {
                algorithms.push(*algorithm);
            }
        }
        IssuerSummary {
            name: self.name.to_string(),
            issuer: self.issuer.clone(),
            audience: self.audience.clone(),
            required_claims: self.needs.required.clone(),
            algorithms,
            keys: self
                .keys
                .iter()
                .map(|key| KeySummary {
                    kid: key.kid().map(str::to_owned),
                    algorithms: key.algorithms().to_vec(),
                })
                .collect(),
            remote: self.remote.as_ref().map(|remote| remote.status()),
            opens_sessions: self.opens_sessions,
            last_report: None,
            waiting_reports: 0,
            last_failure: None,
            stream: None,
        }
    }
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}
