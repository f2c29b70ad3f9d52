use std::collections::{BTreeMap, BTreeSet};

use curfew_model::{GapReason, TraceContext};

use super::histogram::{Histogram, Histograms, NamedHistograms};
use super::labels::Unasked;
use super::registry::{Build, Registry};
use super::runtime::RuntimeMetrics;
use super::table::{Authentications, Counters, Named, NamedGauges};
use super::*;

/// Two bounds, which make three buckets.
const BOUNDS: &[f64] = &[2.0, 5.0];

crate::metrics! {
    /// At least one metric of each type.
    struct BakeryMetrics(loaves: Vec<&'static str>) {
        bakers: Gauge, "Bakers at work";
        flour_bytes: Counter, Bytes, "Flour used";
        baked: Counters<Unasked>, "Bread that was baked";
        ended: Counters<(GapReason, Unasked)>, "Bread by what became of it";
        sold: Named<&'static str, Unasked> = Named::new("loaf", loaves.clone()), "Bread that was sold";
        returned: Named<u16> = Named::new("code", vec![1000, 4401]), "Bread that came back";
        keys: NamedGauges = NamedGauges::new("alg", &["HS256"]), "Keys";
        bakers_known: Authentications = Authentications::new(vec!["expired"]), "Bakers at the door";
        wait: Histogram = Histogram::new(BOUNDS), Seconds, "From an order to its loaf";
        queue: Histogram = Histogram::new(BOUNDS), "Who waits";
        heat: Histograms<Unasked> = Histograms::new(BOUNDS), Seconds, "How long an oven is hot";
        proof: NamedHistograms = NamedHistograms::new("loaf", loaves, BOUNDS), Seconds, "How long dough rests";
    }
}

fn bakery() -> std::sync::Arc<BakeryMetrics> {
    let registry = Registry::new(Build {
        version: "1.2.3",
        revision: "abc",
        rustc: "1.88.0",
    });
    BakeryMetrics::register(&registry, vec!["rye", "oat"])
}

/// Checks that the text is OpenMetrics. Returns the value of each sample by its name and labels.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let body = text
        .strip_suffix("# EOF\n")
        .expect("the text must end with # EOF");
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
            let value = value.parse().expect("the value must be a number");
            assert!(
                samples.insert(series.to_owned(), value).is_none(),
                "the series of {line} is there twice"
            );
        }
    }
    samples
}

#[test]
fn every_series_is_there_from_the_start_at_zero() {
    let samples = parse(&bakery().registry().encode());
    for series in [
        "curfew_bakers",
        "curfew_flour_bytes_total",
        "curfew_baked_total{kind=\"failure\"}",
        "curfew_ended_total{reason=\"too_large\",kind=\"refusal\"}",
        "curfew_sold_total{loaf=\"oat\",kind=\"failure\"}",
        "curfew_sold_total{loaf=\"other\",kind=\"refusal\"}",
        "curfew_returned_total{code=\"4401\"}",
        "curfew_keys{alg=\"HS256\"}",
        "curfew_bakers_known_total{outcome=\"accepted\",reason=\"none\"}",
        "curfew_bakers_known_total{outcome=\"refused\",reason=\"other\"}",
        "curfew_wait_seconds_bucket{le=\"+Inf\"}",
        "curfew_queue_sum",
        "curfew_heat_seconds_count{kind=\"refusal\"}",
        "curfew_proof_seconds_bucket{le=\"2.0\",loaf=\"other\"}",
        "curfew_trace_spans_exported_total",
    ] {
        assert_eq!(samples.get(series), Some(&0.0), "{series}");
    }
    let build = "curfew_build_info{version=\"1.2.3\",revision=\"abc\",rustc=\"1.88.0\"}";
    assert_eq!(samples.get(build), Some(&1.0));
}

/// The second registration stands for a crate that declares a name of another crate.
#[test]
#[should_panic(expected = "curfew_runtime_workers is declared twice")]
fn a_name_is_declared_once() {
    let registry = Registry::default();
    RuntimeMetrics::register(&registry);
    RuntimeMetrics::register(&registry);
}

#[test]
fn counting_shows_and_adds_no_series() {
    let metrics = bakery();
    assert!(!metrics.tracer().is_on());
    let before = parse(&metrics.registry().encode());
    metrics.bakers.inc();
    metrics.flour_bytes.inc_by(7);
    metrics.baked.inc_by(Unasked::Failure, 3);
    metrics.ended.inc((GapReason::TooLarge, Unasked::Refusal));
    metrics.sold.inc("oat", Unasked::Refusal);
    metrics.sold.inc("made up", Unasked::Failure);
    metrics.returned.inc(4401, ());
    metrics.returned.inc(4999, ());
    metrics.keys.set("HS256", 2);
    metrics.keys.set("made up", 2);
    metrics.bakers_known.accepted();
    metrics.bakers_known.refused("expired");
    metrics.bakers_known.refused("made up");
    metrics.proof.of("rye").observe(0.0);
    metrics.proof.of("made up").observe(0.0);
    let after = parse(&metrics.registry().encode());
    let expected = [
        ("curfew_bakers", 1.0),
        ("curfew_flour_bytes_total", 7.0),
        ("curfew_baked_total{kind=\"failure\"}", 3.0),
        (
            "curfew_ended_total{reason=\"too_large\",kind=\"refusal\"}",
            1.0,
        ),
        ("curfew_sold_total{loaf=\"oat\",kind=\"refusal\"}", 1.0),
        ("curfew_sold_total{loaf=\"other\",kind=\"failure\"}", 1.0),
        ("curfew_returned_total{code=\"4401\"}", 1.0),
        ("curfew_returned_total{code=\"other\"}", 1.0),
        ("curfew_keys{alg=\"HS256\"}", 2.0),
        (
            "curfew_bakers_known_total{outcome=\"accepted\",reason=\"none\"}",
            1.0,
        ),
        (
            "curfew_bakers_known_total{outcome=\"refused\",reason=\"expired\"}",
            1.0,
        ),
        (
            "curfew_bakers_known_total{outcome=\"refused\",reason=\"other\"}",
            1.0,
        ),
        ("curfew_proof_seconds_count{loaf=\"rye\"}", 1.0),
        ("curfew_proof_seconds_count{loaf=\"other\"}", 1.0),
    ];
    for (series, value) in expected {
        assert_eq!(after.get(series), Some(&value), "{series}");
    }
    assert!(before.keys().eq(after.keys()));
    let changed = before
        .iter()
        .filter(|(name, _)| name.starts_with("curfew_") && !name.contains("_bucket{"))
        .filter(|(name, value)| after[*name] != **value)
        .count();
    assert_eq!(changed, expected.len());
}

#[test]
fn histograms_count_into_the_bucket_whose_bound_is_reached() {
    let metrics = bakery();
    for waiting in [0.0, 2.0, 3.0, 1e9, f64::NAN] {
        metrics.queue.observe(waiting);
    }
    let samples = parse(&metrics.registry().encode());
    let bucket = |le: &str| samples[&format!("curfew_queue_bucket{{le=\"{le}\"}}")];
    assert_eq!(
        (bucket("2.0"), bucket("5.0"), bucket("+Inf")),
        (3.0, 4.0, 5.0)
    );
    assert_eq!(samples["curfew_queue_count"], 5.0);
    assert_eq!(samples["curfew_queue_sum"], 1e9 + 5.0);
}

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The lines of the output that have an exemplar, each without the exemplar's time.
fn exemplars(metrics: &BakeryMetrics) -> Vec<String> {
    let text = metrics.registry().encode();
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
    let metrics = bakery();
    let sampled = TraceContext::parse(TRACE).unwrap();
    let not_sampled = TraceContext::parse(&TRACE.replace("-01", "-00")).unwrap();
    metrics.wait.observe_traced(0.002, None);
    metrics.wait.observe_traced(0.002, Some(&not_sampled));
    assert!(exemplars(&metrics).is_empty());
    let earlier = TraceContext::parse(&TRACE.replace("4bf9", "0000")).unwrap();
    for trace in [earlier, sampled.clone()] {
        metrics.wait.observe_traced(0.002, Some(&trace));
    }
    metrics.wait.observe_traced(0.002, None);
    metrics
        .heat
        .of(Unasked::Failure)
        .observe_traced(1e9, Some(&sampled));
    let trace_id = "{trace_id=\"4bf92f3577b34da6a3ce929d0e0e4736\"}";
    let mut shown = exemplars(&metrics);
    shown.sort();
    assert_eq!(
        shown,
        [
            format!(
                "curfew_heat_seconds_bucket{{le=\"+Inf\",kind=\"failure\"}} 1 # {trace_id} 1000000000.0"
            ),
            format!("curfew_wait_seconds_bucket{{le=\"2.0\"}} 5 # {trace_id} 0.002"),
        ]
    );
}

#[cfg(target_os = "linux")]
#[test]
fn the_process_describes_itself() {
    let samples = parse(&bakery().registry().encode());
    assert!(samples["process_cpu_seconds_total"] >= 0.0);
    assert!(samples["process_resident_memory_bytes"] > 100_000.0);
    assert!(samples["process_open_fds"] >= 3.0);
    assert!(samples["process_max_fds"] >= samples["process_open_fds"]);
    assert!(samples["process_start_time_seconds"] > 1.6e9);
}
