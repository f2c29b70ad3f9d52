//! `[backend]`: the choice of the backend, and its settings.

use std::time::Duration;

use curfew_backend_redis::{OnDataLoss, RedisConfig};
use curfew_model::Problems;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bounds of `backend.lease`. With a shorter lease, a slow round trip stops delivery. With a longer
/// lease, a revoked session continues for too long while the node is cut off from Redis.
const LEASE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// Longest `backend.grace`. After a longer time without deliveries, clients have given up.
const MAX_GRACE: Duration = Duration::from_secs(3600);

/// Largest value of `backend.max_admissions`.
const MAX_ADMISSIONS: usize = 1_000_000;

/// `[backend]`: the backend that nodes share, and the reaction of a node to an outage of the
/// backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Backend {
    /// The backend. `redis`: shared by all nodes. `memory`: for one node alone; the sessions,
    /// revocations and publications are lost when the process ends. Default `redis`.
    pub(crate) kind: BackendKind,
    /// Time for which a node continues to deliver and to accept commands after its last proof that
    /// it knows every revocation. A revoked session outlives its revocation by at most this time. 1
    /// s to 60 s; default `3s`. Has no effect on `memory`.
    #[serde(with = "curfew_model::setting::duration")]
    #[schemars(with = "String")]
    pub(crate) lease: Duration,
    /// Time for which a node without its backend keeps its connections open, without delivering,
    /// before it closes them with 4503. From `backend.lease` to 1 h; default `30s`. Has no effect
    /// on `memory`.
    #[serde(with = "curfew_model::setting::duration")]
    #[schemars(with = "String")]
    pub(crate) grace: Duration,
    /// Reaction to a backend that returns without its data. `reassert`: live nodes write back the
    /// revocations that they know. `reauth`: in addition, every token issued before the loss must
    /// be renewed. Default `reassert`. Has no effect on `memory`.
    pub(crate) on_data_loss: OnDataLoss,
    /// Maximum number of opening sessions that wait for the backend's answers at the same time.
    /// Further sessions wait up to a second for their turn and are then answered 503 with
    /// `Retry-After`. 0: no limit; at most 1000000; default `1000`. Takes effect at the next start.
    pub(crate) max_admissions: usize,
    /// The Redis server.
    pub(crate) redis: RedisConfig,
}

/// The kind of backend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BackendKind {
    /// Redis, shared by all nodes.
    #[default]
    Redis,
    /// The memory of this process, for one node.
    Memory,
}

impl Default for Backend {
    fn default() -> Self {
        let curfew_backend_redis::RedisBackendConfig {
            lease,
            grace,
            on_data_loss,
            redis,
        } = curfew_backend_redis::RedisBackendConfig::default();
        Self {
            kind: BackendKind::default(),
            lease,
            grace,
            on_data_loss,
            max_admissions: 1000,
            redis,
        }
    }
}

impl Backend {
    /// Reports every problem of the section.
    pub(crate) fn check(&self, problems: &mut Problems) {
        let [shortest, longest] = LEASE;
        if !(shortest..=longest).contains(&self.lease) {
            problems.report("lease", "must be from 1s to 60s");
        }
        if self.grace < self.lease || self.grace > MAX_GRACE {
            problems.report("grace", "must be from backend.lease to 1h");
        }
        if self.max_admissions > MAX_ADMISSIONS {
            problems.report("max_admissions", "must be at most 1000000");
        }
        problems.within("redis", |problems| {
            self.redis.check(problems);
            if self.kind == BackendKind::Redis {
                self.redis.check_files(problems);
            }
        });
    }

    /// The settings of the backend over Redis.
    pub(crate) fn of_redis(&self) -> curfew_backend_redis::RedisBackendConfig {
        curfew_backend_redis::RedisBackendConfig {
            lease: self.lease,
            grace: self.grace,
            on_data_loss: self.on_data_loss,
            redis: self.redis.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(config: &Backend) -> Vec<String> {
        let mut problems = Problems::new();
        problems.within("backend", |problems| config.check(problems));
        problems.into_vec().into_iter().map(|p| p.key).collect()
    }

    #[test]
    fn each_problem_is_reported_with_its_key() {
        let memory = Backend {
            kind: BackendKind::Memory,
            ..Backend::default()
        };
        assert_eq!(problems(&memory), [""; 0]);
        assert_eq!(problems(&Backend::default()), [""; 0]);
        let config = Backend {
            lease: Duration::from_millis(999),
            grace: Duration::from_millis(500),
            redis: RedisConfig {
                prefix: String::new(),
                ..RedisConfig::default()
            },
            max_admissions: 1_000_001,
            ..Backend::default()
        };
        let expect = [
            "backend.lease",
            "backend.grace",
            "backend.max_admissions",
            "backend.redis.prefix",
        ];
        assert_eq!(problems(&config), expect);
    }
}
