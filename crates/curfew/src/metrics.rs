//! The metrics of reloads of keys and of the configuration.

use std::sync::Arc;

use curfew_auth::Algorithm;
use curfew_telemetry::{Gauge, NamedGauges, Registry};

curfew_telemetry::metrics! {
    /// The metrics of reloads.
    pub(crate) struct ReloadMetrics {
        jwt_keys: NamedGauges = NamedGauges::new("alg", &algorithms()), "Keys for verifying tokens. A key counts once for each algorithm that it can be used with";
        jwt_keys_last_reload_successful: Gauge, "1 if the last reading of keys succeeded, else 0";
        jwt_keys_last_reload_success_timestamp: Gauge, Seconds, "Unix time of the last successful reading of keys";
        config_last_reload_successful: Gauge, "1 if the last reload of the configuration succeeded and revocations find every session by the reloaded settings, else 0";
        config_restart_required: Gauge, "1 if a changed setting takes effect only at the next start, else 0";
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
