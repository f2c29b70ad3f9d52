use std::collections::{BTreeMap, BTreeSet};

use curfew_model::TraceContext;

use super::runtime::RuntimeMetrics;
use super::*;

fn names() -> Names {
    Names {
        protocols: vec!["curfew.v1"],
        commands: vec!["publish", "ping"],
        algorithms: vec!["HS256"],
        auth_failures: vec!["expired"],
        close_codes: vec![1000, 4401],
    }
}

/// Sample lines by name and labels, after checking that the text is OpenMetrics.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let body = text.strip_suffix("# EOF\n").expect("ends with # EOF");
    let mut helped = BTreeSet::new();
    let mut types = BTreeMap::new();
    let mut samples = BTreeMap::new();
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(help.ends_with('.') && helped.insert(name), "{line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(types.insert(name, kind).is_none(), "{line}");
        } else if let Some(rest) = line.strip_prefix("# UNIT ") {
            let (name, unit) = rest.split_once(' ').unwrap();
            assert!(name.ends_with(&format!("_{unit}")), "{line}");
        } else {
            let sample = line.split_once(" # ").map_or(line, |(sample, _)| sample);
            let (series, value) = sample.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            let (family, kind) = types
                .iter()
                .find(|(family, kind)| match **kind {
                    "counter" => name == format!("{family}_total"),
                    "info" => name == format!("{family}_info"),
                    "histogram" => ["_sum", "_count", "_bucket"]
                        .iter()
                        .any(|suffix| name == format!("{family}{suffix}")),
                    _ => name == **family,
                })
                .unwrap_or_else(|| panic!("{line} has no TYPE"));
            assert!(helped.contains(family), "{line} has no HELP");
            assert!(["counter", "gauge", "histogram", "info"].contains(kind));
            let value = value.parse().expect("a number");
            assert!(
                samples.insert(series.to_owned(), value).is_none(),
                "{line} twice"
            );
        }
    }
    samples
}

#[test]
fn every_series_is_there_from_the_start_at_zero() {
    let registry = Registry::new(Build {
        version: "1.2.3",
        revision: "abc",
        rustc: "1.88.0",
    });
    let _all = (
        Metrics::of(&registry, &names()),
        RuntimeMetrics::register(&registry),
    );
    let samples = parse(&registry.encode());
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
        assert_eq!(samples.get(series), Some(&0.0), "{series}");
    }
    for series in [
        "curfew_build_info{version=\"1.2.3\",revision=\"abc\",rustc=\"1.88.0\"}",
        "curfew_config_last_reload_successful",
        "curfew_jwt_keys_last_reload_successful",
    ] {
        assert_eq!(samples.get(series), Some(&1.0), "{series}");
    }
}

/// Its kind: two crates that count under one name.
#[test]
#[should_panic(expected = "curfew_runtime_workers is declared twice")]
fn a_name_is_declared_once() {
    let registry = Registry::default();
    RuntimeMetrics::register(&registry);
    RuntimeMetrics::register(&registry);
}

#[test]
fn counting_shows_and_adds_no_series() {
    let metrics = Metrics::new(&names());
    let before = parse(&metrics.encode());
    metrics.connections.inc();
    metrics.connections_accepted.inc("curfew.v1", ());
    metrics.connections_accepted.inc("made up", ());
    metrics.connections_closed.inc(4401, Initiator::Server);
    metrics.connections_closed.inc(4999, Initiator::Client);
    metrics.frames_received.inc_by(Opcode::Pong, 3);
    metrics.commands.inc("ping", CommandOutcome::Error);
    metrics
        .publishes
        .inc((PublishOutcome::Error, PublishSource::Api));
    metrics.authentications.accepted();
    metrics.authentications.refused("expired");
    metrics.authentications.refused("made up");
    metrics.revocation_applied("tenant", 4);
    metrics.received_bytes.inc_by(7);
    metrics.command_duration.of("ping").observe(0.0);
    metrics.command_duration.of("made up").observe(0.0);
    metrics.jwt_keys.set("HS256", 2);
    let after = parse(&metrics.encode());
    for (series, value) in [
        ("curfew_connections", 1.0),
        (
            "curfew_connections_accepted_total{protocol=\"curfew.v1\"}",
            1.0,
        ),
        ("curfew_connections_accepted_total{protocol=\"other\"}", 1.0),
        (
            "curfew_connections_closed_total{code=\"4401\",initiator=\"server\"}",
            1.0,
        ),
        (
            "curfew_connections_closed_total{code=\"other\",initiator=\"client\"}",
            1.0,
        ),
        ("curfew_frames_received_total{opcode=\"pong\"}", 3.0),
        (
            "curfew_commands_total{command=\"ping\",outcome=\"error\"}",
            1.0,
        ),
        (
            "curfew_publishes_total{outcome=\"error\",source=\"api\"}",
            1.0,
        ),
        (
            "curfew_authentications_total{outcome=\"accepted\",reason=\"none\"}",
            1.0,
        ),
        (
            "curfew_authentications_total{outcome=\"refused\",reason=\"expired\"}",
            1.0,
        ),
        (
            "curfew_authentications_total{outcome=\"refused\",reason=\"other\"}",
            1.0,
        ),
        ("curfew_revocations_applied_total{kind=\"claim\"}", 1.0),
        ("curfew_sessions_revoked_total", 4.0),
        ("curfew_received_bytes_total", 7.0),
        (
            "curfew_command_duration_seconds_count{command=\"ping\"}",
            1.0,
        ),
        (
            "curfew_command_duration_seconds_count{command=\"other\"}",
            1.0,
        ),
        ("curfew_jwt_keys{alg=\"HS256\"}", 2.0),
    ] {
        assert_eq!(after.get(series), Some(&value), "{series}");
    }
    assert!(before.keys().eq(after.keys()));
    let changed = before
        .iter()
        .filter(|(name, _)| name.starts_with("curfew_") && !name.contains("_bucket{"))
        .filter(|(name, value)| after[*name] != **value)
        .count();
    assert_eq!(changed, 17);
}

#[test]
fn histograms_count_into_the_bucket_whose_bound_is_reached() {
    let metrics = Metrics::new(&names());
    for recipients in [0.0, 1.0, 2.0, 1e9, f64::NAN] {
        metrics.fanout_recipients.observe(recipients);
    }
    let samples = parse(&metrics.encode());
    let bucket = |le: &str| samples[&format!("curfew_fanout_recipients_bucket{{le=\"{le}\"}}")];
    assert_eq!(
        (bucket("0.0"), bucket("1.0"), bucket("3.0")),
        (2.0, 3.0, 4.0)
    );
    assert_eq!((bucket("100000.0"), bucket("+Inf")), (4.0, 5.0));
    assert_eq!(samples["curfew_fanout_recipients_count"], 5.0);
    assert_eq!(samples["curfew_fanout_recipients_sum"], 1e9 + 3.0);
}

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The lines of `/metrics` that have an exemplar, each without its time.
fn exemplars(metrics: &Metrics) -> Vec<String> {
    let text = metrics.encode();
    parse(&text);
    let lines = text.lines().filter(|line| line.contains(" # {"));
    lines
        .map(|line| {
            let (exemplar, at) = line.rsplit_once(' ').unwrap();
            assert!(at.parse::<f64>().unwrap() > 1.6e9, "{line}");
            exemplar.to_owned()
        })
        .collect()
}

#[test]
fn a_bucket_shows_the_trace_of_its_last_observation() {
    let metrics = Metrics::new(&names());
    let sampled = TraceContext::parse(TRACE).unwrap();
    let not_sampled = TraceContext::parse(&TRACE.replace("-01", "-00")).unwrap();
    metrics.publish_duration.observe_traced(0.002, None);
    metrics
        .publish_duration
        .observe_traced(0.002, Some(&not_sampled));
    assert!(exemplars(&metrics).is_empty());
    let earlier = TraceContext::parse(&TRACE.replace("4bf9", "0000")).unwrap();
    for trace in [earlier, sampled.clone()] {
        metrics.publish_duration.observe_traced(0.002, Some(&trace));
    }
    metrics.publish_duration.observe_traced(0.002, None);
    metrics
        .delivery_duration
        .of(DeliveryPath::Broker)
        .observe_traced(1e9, Some(&sampled));
    let trace_id = "{trace_id=\"4bf92f3577b34da6a3ce929d0e0e4736\"}";
    let mut shown = exemplars(&metrics);
    shown.sort();
    assert_eq!(
        shown,
        [
            format!(
                "curfew_delivery_duration_seconds_bucket{{le=\"+Inf\",path=\"broker\"}} 1 # {trace_id} 1000000000.0"
            ),
            format!("curfew_publish_duration_seconds_bucket{{le=\"0.0025\"}} 5 # {trace_id} 0.002"),
        ]
    );
}

#[cfg(target_os = "linux")]
#[test]
fn the_process_describes_itself() {
    let samples = parse(&Metrics::new(&names()).encode());
    assert!(samples["process_cpu_seconds_total"] >= 0.0);
    assert!(samples["process_resident_memory_bytes"] > 100_000.0);
    assert!(samples["process_open_fds"] >= 3.0);
    assert!(samples["process_max_fds"] >= samples["process_open_fds"]);
    assert!(samples["process_start_time_seconds"] > 1.6e9);
}
