//! The metrics of reloads of keys and of the configuration.

use std::sync::Arc;

use curfew_auth::Algorithm;
use curfew_telemetry::{Gauge, NamedGauges, Registry};

curfew_telemetry::metrics! {
    /// The metrics of reloads.
    pub(crate) struct ReloadMetrics {
        jwt_keys: NamedGauges = NamedGauges::new("alg", &algorithms()), "Keys that tokens are verified with, under each algorithm that a key can be used with";
        jwt_keys_last_reload_successful: Gauge, "Whether the last reading of keys succeeded";
        jwt_keys_last_reload_success_timestamp: Gauge, Seconds, "When keys were last read with success, Unix time";
        config_last_reload_successful: Gauge, "Whether the last reading of the configuration succeeded, and every session is found by it";
        config_restart_required: Gauge, "Whether a changed setting waits for the next start";
    }
}

impl ReloadMetrics {
    /// Registers the metrics. At the start, keys and configuration count as read.
    pub(crate) fn start(registry: &Registry) -> Arc<Self> {
        let metrics = Self::register(registry);
        metrics.jwt_keys_last_reload_successful.set(1);
        metrics.config_last_reload_successful.set(1);
        metrics
    }

    /// Records that keys were read successfully at the time `now`, in Unix seconds.
    pub(crate) fn keys_reloaded(&self, now: u64) {
        self.jwt_keys_last_reload_successful.set(1);
        self.jwt_keys_last_reload_success_timestamp
            .set(i64::try_from(now).unwrap_or(i64::MAX));
    }

    /// Records that keys could not be read again.
    pub(crate) fn keys_not_reloaded(&self) {
        self.jwt_keys_last_reload_successful.set(0);
    }
}

fn algorithms() -> Vec<&'static str> {
    let all = Algorithm::ALL.iter();
    all.map(|algorithm| algorithm.as_str()).collect()
}

#[cfg(test)]
mod tests;
