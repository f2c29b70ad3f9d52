//! The table of the standard variables, with one row for each variable. The documentation of the
//! variables is generated from the table.

use std::ops::RangeInclusive;
use std::time::Duration;

use curfew_model::percent_decode_str;

use super::{GivenSetting, Sampler, StandardVariables};

pub(super) const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
pub(super) const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";
pub(super) const QUEUE: &str = "OTEL_BSP_MAX_QUEUE_SIZE";
pub(super) const BATCH: &str = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE";

/// Maximum value of the variables that set a timeout, in milliseconds.
const MAX_TIMEOUT_MS: u64 = 600_000;

/// Maximum value of `OTEL_BSP_SCHEDULE_DELAY`, in milliseconds.
const MAX_DELAY_MS: u64 = 60_000;

/// Maximum capacity of the export queue, in spans. A span takes about 1 KiB of memory.
const MAX_QUEUE: u64 = 1_000_000;

/// One standard variable.
#[derive(Debug)]
pub struct Variable {
    /// The variable's name.
    pub name: &'static str,
    /// The accepted values, in Markdown; empty if every value is refused.
    pub takes: &'static str,
    /// The variable's effect, in Markdown.
    pub effect: &'static str,
    /// Checks the value and stores it. The error is the reason of the refusal, and does not contain
    /// the value.
    pub(super) read: fn(&mut StandardVariables, &'static str, &str) -> Result<(), String>,
}

const TLS: &str = "Refused: TLS to a collector is not supported. Send spans to a collector near the node, which forwards them over TLS.";
const COUNT_LIMIT: &str =
    "Refused: the number of attributes, events and links of a span is fixed by design.";
const PROTOCOL: &str = "No effect: spans are always sent by OTLP over gRPC. `http/protobuf` and `http/json` are refused.";
const COMPRESSION: &str = "No effect: spans are never compressed. `gzip` and `zstd` are refused.";
const INSECURE: &str = "No effect: spans are never sent over TLS. `false` is refused.";
const HEADERS: &str = "Sent with every export, as gRPC metadata. Values are secrets: they are in no log line, no error and not in `curfew print-config`.";
const TIMEOUT: &str = "The timeout of one export, including its retries. Default 5000.";
const ENDPOINT: &str =
    "Sets `telemetry.otlp_endpoint`, unless a setting gives it. The same rules apply.";

/// Every standard variable that is accepted or refused. A variable for traces comes after the
/// variable for all signals, because the later value replaces the earlier.
pub const VARIABLES: &[Variable] = &[
    Variable {
        name: "OTEL_SDK_DISABLED",
        takes: "`true`, `false`",
        effect: "`true`: nothing is recorded or exported, regardless of other settings.",
        read: |read, _, value| {
            read.standard.disabled |= boolean(value)?;
            Ok(())
        },
    },
    Variable {
        name: "OTEL_TRACES_EXPORTER",
        takes: "`otlp`, `none`",
        effect: "`none` has the effect of `OTEL_SDK_DISABLED=true`. Other values are refused.",
        read: |read, _, value| match value {
            "otlp" => Ok(()),
            "none" => {
                read.standard.disabled = true;
                Ok(())
            }
            _ => Err("must be otlp or none: spans are exported only by OTLP".to_owned()),
        },
    },
    Variable {
        name: "OTEL_SERVICE_NAME",
        takes: "text",
        effect: "The resource attribute `service.name`. Default `curfew`.",
        read: |read, _, value| {
            read.standard.service_name = Some(value.to_owned());
            Ok(())
        },
    },
    Variable {
        name: "OTEL_RESOURCE_ATTRIBUTES",
        takes: "`key=value,…`, percent-encoded",
        effect: "Added to the resource attributes of every span; `service.version` and `service.instance.id` replace Curfew's own. The node's id is also in `curfew.node.id`, which cannot be replaced.",
        read: |read, _, value| {
            read.standard.resource = pairs(value)?;
            match read
                .standard
                .resource
                .iter()
                .any(|(key, _)| key == "curfew.node.id")
            {
                true => Err("cannot set curfew.node.id, which is always the node's id".to_owned()),
                false => Ok(()),
            }
        },
    },
    Variable {
        name: "OTEL_EXPORTER_OTLP_ENDPOINT",
        takes: "a URL",
        effect: ENDPOINT,
        read: endpoint,
    },
    Variable {
        name: "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        takes: "a URL",
        effect: ENDPOINT,
        read: endpoint,
    },
    Variable {
        name: "OTEL_EXPORTER_OTLP_HEADERS",
        takes: "`name=value,…`, percent-encoded",
        effect: HEADERS,
        read: headers,
    },
    Variable {
        name: "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
        takes: "`name=value,…`, percent-encoded",
        effect: HEADERS,
        read: headers,
    },
    Variable {
        name: "OTEL_EXPORTER_OTLP_PROTOCOL",
        takes: "`grpc`",
        effect: PROTOCOL,
        read: protocol,
    },
    Variable {
        name: "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        takes: "`grpc`",
        effect: PROTOCOL,
        read: protocol,
    },
    Variable {
        name: "OTEL_EXPORTER_OTLP_COMPRESSION",
        takes: "`none`",
        effect: COMPRESSION,
        read: compression,
    },
    Variable {
        name: "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
        takes: "`none`",
        effect: COMPRESSION,
        read: compression,
    },
    Variable {
        name: "OTEL_EXPORTER_OTLP_TIMEOUT",
        takes: "milliseconds, 1 to 600000",
        effect: TIMEOUT,
        read: timeout,
    },
    Variable {
        name: "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
        takes: "milliseconds, 1 to 600000",
        effect: TIMEOUT,
        read: timeout,
    },
    Variable {
        name: "OTEL_EXPORTER_OTLP_INSECURE",
        takes: "`true`",
        effect: INSECURE,
        read: insecure,
    },
    Variable {
        name: "OTEL_EXPORTER_OTLP_TRACES_INSECURE",
        takes: "`true`",
        effect: INSECURE,
        read: insecure,
    },
    refused("OTEL_EXPORTER_OTLP_CERTIFICATE", TLS, no_tls),
    refused("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", TLS, no_tls),
    refused("OTEL_EXPORTER_OTLP_CLIENT_KEY", TLS, no_tls),
    refused("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", TLS, no_tls),
    refused("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", TLS, no_tls),
    refused("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", TLS, no_tls),
    Variable {
        name: SAMPLER,
        takes: "`always_on`, `always_off`, `traceidratio`, each also with `parentbased_` before it",
        effect: "Sets `telemetry.trace_sample_ratio`, unless a setting gives it: to 1, 0 or `OTEL_TRACES_SAMPLER_ARG`. With or without `parentbased_`, the rules of that setting on parents apply. Spans that are always recorded are still recorded.",
        read: |read, _, value| {
            read.sampler = Some(match value.strip_prefix("parentbased_").unwrap_or(value) {
                "always_on" => Sampler::On,
                "always_off" => Sampler::Off,
                "traceidratio" => Sampler::Ratio,
                _ => return Err(
                    "must be always_on, always_off or traceidratio, or one of these with parentbased_ before it: there is no other sampler".to_owned(),
                ),
            });
            Ok(())
        },
    },
    Variable {
        name: SAMPLER_ARG,
        takes: "a number, 0 to 1",
        effect: "The ratio of `traceidratio`, default 1. Refused with any other sampler, or without a sampler.",
        read: |read, _, value| {
            read.sampler_arg = Some(value.to_owned());
            Ok(())
        },
    },
    Variable {
        name: "OTEL_PROPAGATORS",
        takes: "`tracecontext`, alone or with `baggage`",
        effect: "No effect: `traceparent` and `tracestate` are always read and passed on. Baggage is not passed on, and `baggage` causes a warning. Other values are refused, `none` too.",
        read: propagators,
    },
    Variable {
        name: "OTEL_BSP_SCHEDULE_DELAY",
        takes: "milliseconds, 0 to 60000",
        effect: "The longest time that a span waits for other spans of the same export. Default 500.",
        read: |read, _, value| {
            read.standard.delay = Some(milliseconds(value, 0..=MAX_DELAY_MS)?);
            Ok(())
        },
    },
    Variable {
        name: "OTEL_BSP_EXPORT_TIMEOUT",
        takes: "milliseconds, 1 to 600000",
        effect: "The longest time of one export, regardless of `OTEL_EXPORTER_OTLP_TIMEOUT`.",
        read: |read, _, value| {
            read.standard.export_timeout = Some(milliseconds(value, 1..=MAX_TIMEOUT_MS)?);
            Ok(())
        },
    },
    Variable {
        name: QUEUE,
        takes: "1 to 1000000",
        effect: "The capacity of the export queue, in spans. Further spans are dropped and counted. Default 4096.",
        read: |read, _, value| {
            read.standard.queue = Some(size(value)?);
            Ok(())
        },
    },
    Variable {
        name: BATCH,
        takes: "1 to `OTEL_BSP_MAX_QUEUE_SIZE`",
        effect: "The largest number of spans in one export. Default 512.",
        read: |read, _, value| {
            read.standard.batch = Some(size(value)?);
            Ok(())
        },
    },
    refused("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", COUNT_LIMIT, by_design),
    refused("OTEL_SPAN_EVENT_COUNT_LIMIT", COUNT_LIMIT, by_design),
    refused("OTEL_SPAN_LINK_COUNT_LIMIT", COUNT_LIMIT, by_design),
];

const fn refused(
    name: &'static str,
    effect: &'static str,
    read: fn(&mut StandardVariables, &'static str, &str) -> Result<(), String>,
) -> Variable {
    Variable {
        name,
        takes: "",
        effect,
        read,
    }
}

fn no_tls(_: &mut StandardVariables, _: &'static str, _: &str) -> Result<(), String> {
    Err("is not supported, because the node sends spans without TLS: leave it out, and send spans to a collector near this node that forwards them over TLS".to_owned())
}

fn by_design(_: &mut StandardVariables, _: &'static str, _: &str) -> Result<(), String> {
    Err("cannot be changed: leave it out".to_owned())
}

fn endpoint(
    read: &mut StandardVariables,
    variable: &'static str,
    value: &str,
) -> Result<(), String> {
    read.settings.push(GivenSetting {
        variable,
        key: "otlp_endpoint",
        value: value.to_owned(),
    });
    Ok(())
}

fn headers(_: &mut StandardVariables, _: &'static str, value: &str) -> Result<(), String> {
    const FORM: &str = "must be name=value pairs separated by commas, values percent-encoded";
    // The pairs are only checked, because the exporter reads the variable itself. The exporter
    // would ignore malformed pairs.
    for (name, value) in pairs(value).map_err(|_| FORM.to_owned())? {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !name.bytes().all(is_name) || value.is_empty() {
            return Err(FORM.to_owned());
        }
        if !value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return Err("has a value that is not allowed in a header".to_owned());
        }
    }
    Ok(())
}

fn protocol(_: &mut StandardVariables, _: &'static str, value: &str) -> Result<(), String> {
    match value {
        "grpc" => Ok(()),
        _ => Err(
            "must be grpc: OTLP over HTTP is not supported; collectors usually accept gRPC at port 4317"
                .to_owned(),
        ),
    }
}

fn compression(_: &mut StandardVariables, _: &'static str, value: &str) -> Result<(), String> {
    match value {
        "none" => Ok(()),
        _ => Err("must be none: spans are not compressed".to_owned()),
    }
}

fn timeout(read: &mut StandardVariables, _: &'static str, value: &str) -> Result<(), String> {
    read.standard.timeout = Some(milliseconds(value, 1..=MAX_TIMEOUT_MS)?);
    Ok(())
}

fn insecure(_: &mut StandardVariables, _: &'static str, value: &str) -> Result<(), String> {
    match boolean(value)? {
        true => Ok(()),
        false => Err("must be true: the node sends spans without TLS".to_owned()),
    }
}

fn propagators(
    read: &mut StandardVariables,
    variable: &'static str,
    value: &str,
) -> Result<(), String> {
    let mut reads_traces = false;
    for name in value.split(',').map(str::trim) {
        match name {
            "tracecontext" => reads_traces = true,
            "baggage" => read.warnings.push((
                variable.to_owned(),
                "lists baggage, which is not passed on".to_owned(),
            )),
            _ => reads_traces = false,
        }
        if !matches!(name, "tracecontext" | "baggage") {
            return Err("must be tracecontext: no other format is read or written".to_owned());
        }
    }
    match reads_traces {
        true => Ok(()),
        false => Err("must list tracecontext, which is always read".to_owned()),
    }
}

fn boolean(value: &str) -> Result<bool, String> {
    if value.eq_ignore_ascii_case("true") {
        Ok(true)
    } else if value.eq_ignore_ascii_case("false") {
        Ok(false)
    } else {
        Err("must be true or false".to_owned())
    }
}

fn milliseconds(value: &str, range: RangeInclusive<u64>) -> Result<Duration, String> {
    let (least, most) = (*range.start(), *range.end());
    match value.parse() {
        Ok(number) if range.contains(&number) => Ok(Duration::from_millis(number)),
        _ => Err(format!(
            "must be a number of milliseconds from {least} to {most}"
        )),
    }
}

fn size(value: &str) -> Result<usize, String> {
    value
        .parse()
        .ok()
        .filter(|number| (1..=MAX_QUEUE).contains(number))
        .and_then(|number| usize::try_from(number).ok())
        .ok_or_else(|| format!("must be a number from 1 to {MAX_QUEUE}"))
}

/// Parses `key=value` pairs separated by commas, and percent-decodes the values.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    const FORM: &str = "must be key=value pairs separated by commas, values percent-encoded";
    let mut pairs = Vec::new();
    for pair in text
        .split(',')
        .map(str::trim)
        .filter(|pair| !pair.is_empty())
    {
        let (key, value) = pair.split_once('=').ok_or(FORM)?;
        let key = key.trim();
        if key.is_empty() {
            return Err(FORM.to_owned());
        }
        let value = percent_decode_str(value.trim()).ok_or(FORM)?;
        pairs.push((key.to_owned(), value.into_owned()));
    }
    Ok(pairs)
}
