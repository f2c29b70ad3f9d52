//! The issuers for people.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::LoadedIssuer;
use crate::keys::Key;
use crate::{Algorithm, LastReport, RemoteStatus, StreamStatus};

/// What is known about an issuer's keys, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct IssuerSummary {
    /// The configured name.
    pub name: String,
    /// What `iss` must be; absent: not checked.
    pub issuer: Option<String>,
    /// What `aud` must be or hold one of; absent: not checked.
    pub audience: Option<Vec<String>>,
    /// What other claims must be or hold one of.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub required_claims: BTreeMap<String, Vec<String>>,
    /// Every algorithm some key of the issuer can be used with.
    pub algorithms: Vec<Algorithm>,
    /// The keys.
    pub keys: Vec<KeySummary>,
    /// Where they are fetched and how that goes; absent for keys in files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemoteStatus>,
    /// Whether its access tokens open sessions; `false` for one that only reports.
    pub opens_sessions: bool,
    /// What it has reported last, to this node; absent: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_report: Option<LastReport>,
    /// The last of those without effect; absent: there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<LastReport>,
    /// Its reports that wait for its keys on this node, or a stranger's in its name.
    #[serde(skip_serializing_if = "is_zero")]
    pub waiting_reports: usize,
    /// How its stream of events is, as far as this node was told; absent: it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamStatus>,
}

/// One key, without its material.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct KeySummary {
    /// Its id; absent for a secret or a PEM file, which any `kid` of a token fits.
    pub kid: Option<String>,
    /// What it can be used with.
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
