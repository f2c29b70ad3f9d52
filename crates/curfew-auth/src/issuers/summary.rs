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
    /// The required `iss`; null if `iss` is not checked.
    pub issuer: Option<String>,
    /// The accepted audiences; null if `aud` is not checked.
    pub audience: Option<Vec<String>>,
    /// The accepted values of each claim in `required_claims`; absent if there is no such claim.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub required_claims: BTreeMap<String, Vec<String>>,
    /// The algorithms of all keys of the issuer, each algorithm once.
    pub algorithms: Vec<Algorithm>,
    /// The keys in force.
    pub keys: Vec<KeySummary>,
    /// The source and the state of fetched keys; absent if the keys are not fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemoteStatus>,
    /// True if the issuer's access tokens open sessions; false if the issuer only sends reports.
    pub opens_sessions: bool,
    /// The last report that the issuer sent to this node; absent before the first report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_report: Option<LastReport>,
    /// The issuer's last report to this node that had no effect; absent if there was no such
    /// report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<LastReport>,
    /// The number of reports on this node that wait for the issuer's keys. A stranger may have sent
    /// some of these reports in the issuer's name.
    #[serde(skip_serializing_if = "is_zero")]
    pub waiting_reports: usize,
    /// The state of the issuer's event stream, as the issuer last reported it to this node; absent
    /// if the issuer has reported no state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamStatus>,
}

/// The description of one key, without the key material.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct KeySummary {
    /// The key's `kid`; null for a key without `kid`, such as a secret or the key of a PEM file.
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
