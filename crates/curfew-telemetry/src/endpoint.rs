//! Checks the address of a collector, which has the form `http://host:port`.

use std::net::Ipv6Addr;

/// The port of OTLP over gRPC, by convention.
pub(crate) const GRPC_PORT: u16 = 4317;

/// The port of OTLP over HTTP, by convention.
pub(crate) const HTTP_PORT: u16 = 4318;

/// The only supported scheme.
const SCHEME: &str = "http://";

/// Checks that `endpoint` is a usable address of a collector for OTLP over gRPC without TLS.
/// Returns the port. The error says which form is required, and does not quote `endpoint`, which
/// may contain a password.
pub(crate) fn check(endpoint: &str) -> Result<u16, String> {
    let Some(rest) = strip_scheme(endpoint) else {
        return Err(match endpoint.split_once("://") {
            Some(("https", _)) => format!(
                "https is not supported: set the URL of a collector near this node that forwards spans over TLS, such as http://127.0.0.1:{GRPC_PORT}"
            ),
            _ => format!(
                "must be the URL of a collector that takes OTLP over gRPC, such as http://127.0.0.1:{GRPC_PORT}"
            ),
        });
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.contains('@') {
        return Err(
            "the user and password in the URL would not be sent: leave them out, and put the credentials that the collector needs into OTEL_EXPORTER_OTLP_HEADERS"
                .to_owned(),
        );
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if !is_host(host) {
        return Err(format!(
            "names no host: write http://, a host name or an IP address (IPv6 in brackets) and a port, as in http://127.0.0.1:{GRPC_PORT}"
        ));
    }
    let Some(port) = port else {
        return Err(format!(
            "has no port: OTLP over gRPC usually uses {GRPC_PORT}, as in http://{host}:{GRPC_PORT}"
        ));
    };
    let number = port
        .parse::<u16>()
        .ok()
        .filter(|number| *number != 0 && port.bytes().all(|byte| byte.is_ascii_digit()));
    let Some(number) = number else {
        return Err(format!(
            "has a port that is no number from 1 to 65535: OTLP over gRPC usually uses {GRPC_PORT}, as in http://{host}:{GRPC_PORT}"
        ));
    };
    if !path.is_empty() && path != "/" {
        return Err(format!(
            "has a path, but only OTLP over HTTP has paths: for OTLP over gRPC leave the path out, as in http://{host}:{GRPC_PORT}"
        ));
    }
    Ok(number)
}

/// Returns a hint for the operator: the server at `port` may not be a collector for OTLP over gRPC.
pub(crate) fn doubt(port: u16) -> String {
    match port {
        HTTP_PORT => format!(
            "port {HTTP_PORT} is usually OTLP over HTTP; the node sends OTLP over gRPC, whose usual port is {GRPC_PORT}"
        ),
        _ => format!(
            "the server at this port may not speak OTLP over gRPC, whose usual port is {GRPC_PORT} ({HTTP_PORT} is usually OTLP over HTTP)"
        ),
    }
}

/// Removes `http://`, in upper or lower case; `None` if `endpoint` begins otherwise.
fn strip_scheme(endpoint: &str) -> Option<&str> {
    let (scheme, rest) = endpoint.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then_some(rest)
}

fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[') {
        return address
            .strip_suffix(']')
            .is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    !host.is_empty()
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usable_endpoint_has_a_host_and_a_port() {
        for (endpoint, port) in [
            ("http://jaeger:4317", 4317),
            ("http://[::1]:4317/", 4317),
            ("HTTP://127.0.0.1:80", 80),
            ("http://otel-collector.tracing.svc:65535", 65535),
        ] {
            assert_eq!(check(endpoint), Ok(port), "{endpoint}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_what_to_write() {
        for (endpoint, expect) in [
            ("jaeger:4317", "such as http://127.0.0.1:4317"),
            ("grpc://jaeger:4317", "such as http://127.0.0.1:4317"),
            ("https://jaeger:4317", "https is not supported"),
            ("", "must be the URL"),
            ("http://", "names no host"),
            ("http://:4317", "names no host"),
            ("http:// x:4317", "names no host"),
            ("http://::1:4317", "names no host"),
            ("http://[::1:4317", "names no host"),
            ("http://[::1]", "as in http://[::1]:4317"),
            ("http://jaeger", "as in http://jaeger:4317"),
            ("http://127.0.0.1:43a7", "as in http://127.0.0.1:4317"),
            ("http://jaeger:", "no number from 1 to 65535"),
            ("http://jaeger:0", "no number from 1 to 65535"),
            ("http://jaeger:65536", "no number from 1 to 65535"),
            ("http://jaeger:+4317", "no number from 1 to 65535"),
            ("http://jaeger:4318/v1/traces", "as in http://jaeger:4317"),
            ("http://jaeger:4317?x", "has a path"),
        ] {
            let told = check(endpoint).unwrap_err();
            assert!(told.contains(expect), "{endpoint}: {told}");
        }
        let told = check("http://me:canary@jaeger:4317").unwrap_err();
        assert!(!told.contains("canary"), "{told}");
    }
}
