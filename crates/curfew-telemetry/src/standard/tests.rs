use super::*;

fn read(environment: &[(&str, &str)]) -> StandardVariables {
    StandardVariables::from(
        environment
            .iter()
            .map(|(name, value)| (OsString::from(name), OsString::from(value))),
    )
}

/// Reads `environment`, and returns the resulting settings. A later value of a setting replaces an
/// earlier value.
fn settings(environment: &[(&str, &str)]) -> BTreeMap<&'static str, String> {
    let read = read(environment);
    assert_eq!(read.problems, [], "{environment:?}");
    let settings = read.settings.into_iter();
    settings.map(|stand| (stand.key, stand.value)).collect()
}

#[test]
fn a_variable_for_traces_wins_over_one_for_all_signals() {
    let both = [
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://a:1"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://b:1"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "7"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "8"),
    ];
    assert_eq!(settings(&both)["otlp_endpoint"], "http://a:1");
    assert_eq!(read(&both).standard.timeout, Some(Duration::from_millis(7)));
}

#[test]
fn samplers_are_ratios() {
    for (sampler, arg, ratio) in [
        ("always_on", None, "1"),
        ("always_off", None, "0"),
        ("traceidratio", Some("0.25"), "0.25"),
        ("parentbased_traceidratio", Some("0.5"), "0.5"),
        ("parentbased_always_on", None, "1"),
        ("traceidratio", None, "1"),
    ] {
        let mut given = vec![("OTEL_TRACES_SAMPLER", sampler)];
        given.extend(arg.map(|arg| ("OTEL_TRACES_SAMPLER_ARG", arg)));
        assert_eq!(settings(&given)["trace_sample_ratio"], ratio, "{sampler}");
    }
}

#[test]
fn what_would_have_no_effect_is_refused_by_its_name_and_not_repeated() {
    for (name, value) in [
        ("OTEL_SDK_DISABLED", "canary"),
        ("OTEL_TRACES_EXPORTER", "canary"),
        ("OTEL_RESOURCE_ATTRIBUTES", "canary"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=%zz"),
        ("OTEL_RESOURCE_ATTRIBUTES", "curfew.node.id=canary"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "canary"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x=%0acanary"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "canary=\u{e9}"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
        ("OTEL_EXPORTER_OTLP_INSECURE", "false"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/canary"),
        ("OTEL_TRACES_SAMPLER", "canary"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.5"),
        ("OTEL_PROPAGATORS", "b3"),
        ("OTEL_PROPAGATORS", "tracecontext,b3"),
        ("OTEL_PROPAGATORS", "baggage"),
        ("OTEL_PROPAGATORS", "none"),
        ("OTEL_BSP_SCHEDULE_DELAY", "-1"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4097"),
        ("OTEL_SPAN_LINK_COUNT_LIMIT", "1"),
    ] {
        let problems = read(&[(name, value)]).problems;
        let [(named, why)] = problems.as_slice() else {
            panic!("{name}={value}: {problems:?}");
        };
        assert_eq!(named, name);
        assert!(!why.contains("canary"), "{why}");
    }
    let both = [
        ("OTEL_TRACES_SAMPLER", "traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "2"),
    ];
    assert_eq!(read(&both).problems[0].0, "OTEL_TRACES_SAMPLER_ARG");
}

#[test]
fn empty_ones_are_none_and_unknown_ones_are_told() {
    let read = read(&[
        ("OTEL_EXPORTER_OTLP_PROTOCOL", ""),
        ("OTEL_METRICS_EXPORTER", "otlp"),
        ("OTEL_PROPAGATORS", "tracecontext,baggage"),
        ("HOME", "/"),
    ]);
    assert_eq!(read.problems, []);
    let told: Vec<_> = read
        .warnings
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(told, ["OTEL_PROPAGATORS", "OTEL_METRICS_EXPORTER"]);
}

#[test]
fn the_resource_is_decoded() {
    let resource = "deployment.environment.name=a%2Cb , service.namespace=x";
    let standard = read(&[("OTEL_RESOURCE_ATTRIBUTES", resource)]).standard;
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(
        standard.resource,
        [
            pair("deployment.environment.name", "a,b"),
            pair("service.namespace", "x")
        ]
    );
}
