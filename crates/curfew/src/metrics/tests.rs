use curfew_backend_redis::RedisMetrics;
use curfew_hub::HubMetrics;
use curfew_hub::{Wire, Wires};
use curfew_node::NodeMetrics;
use curfew_protocol::native::Native;
use curfew_server::ServerMetrics;
use curfew_session::SessionMetrics;
use curfew_telemetry::RuntimeMetrics;

use super::*;

/// The value of a series in the text of the metrics.
fn value(text: &str, series: &str) -> Option<f64> {
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value?.parse().ok()
}

/// The fault that this test prevents: a series is missing until its first event, so a monitor does
/// not notice the first rise.
#[test]
fn every_series_is_there_from_the_start_at_zero() {
    let registry = Registry::default();
    let wires = Wires::new(vec![Wire::websocket(Native)]);
    let _all = (
        HubMetrics::register(&registry),
        NodeMetrics::register(&registry),
        SessionMetrics::register(&registry),
        ServerMetrics::register(&registry, &wires.names()),
        RedisMetrics::register(&registry),
        ReloadMetrics::start(&registry),
        RuntimeMetrics::register(&registry),
    );
    let text = registry.encode();
    for series in [
        "curfew_connections",
        "curfew_connections_limit",
        "curfew_connections_accepted_total{protocol=\"curfew.v1\"}",
        "curfew_connections_rejected_total{reason=\"timeout\"}",
        "curfew_http_answers_total{listener=\"admin\",reason=\"head_too_large\"}",
        "curfew_connections_closed_total{code=\"4401\",initiator=\"server\"}",
        "curfew_connections_closed_total{code=\"other\",initiator=\"network\"}",
        "curfew_connection_duration_seconds_count",
        "curfew_handshake_duration_seconds_bucket{le=\"+Inf\"}",
        "curfew_draining",
        "curfew_subscriptions",
        "curfew_channels",
        "curfew_sessions",
        "curfew_frames_received_total{opcode=\"text\"}",
        "curfew_frames_sent_total{opcode=\"pong\"}",
        "curfew_received_bytes_total",
        "curfew_sent_bytes_total",
        "curfew_commands_total{command=\"publish\",outcome=\"error\"}",
        "curfew_publishes_total{outcome=\"denied\",source=\"api\"}",
        "curfew_messages_delivered_total",
        "curfew_messages_dropped_total{reason=\"slow_consumer\"}",
        "curfew_fanout_recipients_sum",
        "curfew_send_queue_bytes",
        "curfew_authentications_total{outcome=\"accepted\",reason=\"none\"}",
        "curfew_authentications_total{outcome=\"refused\",reason=\"expired\"}",
        "curfew_tickets_total{outcome=\"not_found\"}",
        "curfew_authorizations_total{outcome=\"allowed\"}",
        "curfew_jwt_keys{alg=\"HS256\"}",
        "curfew_jwt_keys_last_reload_success_timestamp_seconds",
        "curfew_command_duration_seconds_count{command=\"ping\"}",
        "curfew_command_duration_seconds_bucket{le=\"+Inf\",command=\"other\"}",
        "curfew_ping_rtt_seconds_count",
        "curfew_publish_duration_seconds_count",
        "curfew_delivery_duration_seconds_sum{path=\"local\"}",
        "curfew_delivery_duration_seconds_count{path=\"broker\"}",
        "curfew_send_queue_messages_count",
        "curfew_revocation_propagation_seconds_count",
        "curfew_revocation_last_sync_timestamp_seconds",
        "curfew_broker_errors_total{error=\"timeout\"}",
        "curfew_redis_command_duration_seconds_count{command=\"publish\"}",
        "curfew_runtime_workers",
        "curfew_runtime_queue_depth",
        "curfew_runtime_stall_seconds_count",
        "curfew_revocations_applied_total{kind=\"claim\"}",
        "curfew_sessions_revoked_total",
        "curfew_config_restart_required",
        "curfew_unauthenticated_connections",
    ] {
        assert_eq!(value(&text, series), Some(0.0), "{series}");
    }
    for series in [
        "curfew_build_info{version=\"\",revision=\"\",rustc=\"\"}",
        "curfew_config_last_reload_successful",
        "curfew_jwt_keys_last_reload_successful",
    ] {
        assert_eq!(value(&text, series), Some(1.0), "{series}");
    }
}
