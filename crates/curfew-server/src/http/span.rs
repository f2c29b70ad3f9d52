//! The span of a request, by the semantic conventions for HTTP servers, and the parts of an answer
//! that name the span. A span has neither the query nor a header that may hold a token.

use std::net::IpAddr;

use bytes::{BufMut as _, BytesMut};
use curfew_model::{TraceContext, TraceId};
use curfew_telemetry::{Origin, Span, Tracer, Whose};
use http::header::{HOST, USER_AGENT};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Version};
use http_body_util::Full;

use super::{JsonBody, Response};

/// Maximum length, in bytes, of the server's name (RFC 1035 §2.3.4) and of the client program's
/// name in a span.
const MAX_NAME_BYTES: usize = 255;

/// The header in which an answer names its span (W3C Trace Context Level 2, a draft). Its format is
/// that of `traceparent`: version, trace, span and flags.
const TRACE_RESPONSE: HeaderName = HeaderName::from_static("traceresponse");

/// The client of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientInfo {
    /// The address, if it is known.
    pub(crate) address: Option<IpAddr>,
    /// The connection speaks TLS.
    pub(crate) is_secure: bool,
}

/// The parts of a request that its span shows.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// The client's trace, as the headers state it.
    pub(crate) origin: Origin,
    client: Option<ClientInfo>,
    /// Present only while tracing is on.
    parts: Option<Box<RequestParts>>,
}

#[derive(Debug, Clone)]
struct RequestParts {
    path: String,
    version: Version,
    host: Option<Authority>,
    agent: Option<String>,
}

impl Asked {
    pub(crate) fn of<B>(tracer: &Tracer, request: &Request<B>) -> Self {
        let headers = request.headers();
        let parts = || {
            Box::new(RequestParts {
                path: request.uri().path().to_owned(),
                version: request.version(),
                host: text(headers, &HOST).and_then(|host| host.parse().ok()),
                agent: text(headers, &USER_AGENT).map(str::to_owned),
            })
        };
        Self {
            origin: Origin::client(traceparent(headers)),
            client: request.extensions().get().copied(),
            parts: tracer.is_on().then(parts),
        }
    }

    /// The client whose budget of recorded spans this request counts against.
    pub(crate) fn whose(&self) -> Whose<'static> {
        Whose::at(self.client.and_then(|client| client.address))
    }

    /// Sets the attributes of the request on its span; [`describe`] adds the outcome.
    pub(crate) fn describe(&self, span: &mut Span) {
        let Some(parts) = self.parts.as_deref().filter(|_| span.is_recorded()) else {
            return;
        };
        span.set("url.path", parts.path.clone());
        span.set("network.protocol.name", "http");
        span.set(
            "network.protocol.version",
            match parts.version {
                Version::HTTP_10 => "1.0",
                _ => "1.1",
            },
        );
        if let Some(client) = self.client {
            let scheme = match client.is_secure {
                true => "https",
                false => "http",
            };
            span.set("url.scheme", scheme);
            if let Some(address) = client.address {
                span.set("client.address", address.to_string());
            }
        }
        if let Some(host) = &parts.host {
            span.set("server.address", host.host().to_owned());
            if let Some(port) = host.port_u16() {
                span.set("server.port", i64::from(port));
            }
        }
        if let Some(agent) = &parts.agent {
            span.set("user_agent.original", agent.clone());
        }
    }
}

/// The first header of this name, if it is short text.
fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let text = headers.get(name)?.to_str().ok()?;
    (text.len() <= MAX_NAME_BYTES).then_some(text)
}

/// The caller's span, as the headers of a request state it.
pub(crate) fn traceparent(headers: &HeaderMap) -> Option<TraceContext> {
    let mut values = headers.get_all("traceparent").iter();
    let value = values.next()?;
    match values.next() {
        None => TraceContext::parse(value.to_str().ok()?).map(|trace| with_state(trace, headers)),
        // Several headers contradict each other, so none is used.
        Some(_) => None,
    }
}

/// The trace with the `tracestate` of a request's headers. Other participants of the trace write
/// this state, and it is passed on unchanged. If it cannot be read, the trace is used without it.
fn with_state(trace: TraceContext, headers: &HeaderMap) -> TraceContext {
    // Several headers form one list (W3C Trace Context §3.3.1).
    let lines = headers.get_all("tracestate").iter();
    let lines: Result<Vec<&str>, _> = lines.map(HeaderValue::to_str).collect();
    match lines {
        Ok(lines) if !lines.is_empty() => trace.with_state(&lines.join(",")),
        _ => trace,
    }
}

/// Sets the outcome of a request on its span. The span shows the route instead of the URL, because
/// the query may hold a token.
pub(crate) fn describe(span: &mut Span, method: &'static str, route: &str, status: StatusCode) {
    if !span.is_recorded() {
        return;
    }
    span.set("http.request.method", method);
    span.set("http.route", route.to_owned());
    span.set("url.path", route.to_owned());
    span.set("http.response.status_code", i64::from(status.as_u16()));
}

/// Names the span in the header `traceresponse`, if the span is recorded.
pub(crate) fn name_span(headers: &mut HeaderMap, span: &Span) {
    if let Some(context) = span.context()
        && let Ok(value) = HeaderValue::from_str(&context.to_string())
    {
        headers.insert(TRACE_RESPONSE, value);
    }
}

/// Names the trace of a refusal in its JSON, and its span in `traceresponse`.
pub(crate) fn name_trace(response: &mut Response, span: &Span) {
    name_span(response.headers_mut(), span);
    let status = response.status();
    if let Some(trace) = span.trace()
        && (status.is_client_error() || status.is_server_error())
    {
        add_trace(response, trace, None);
    }
}

/// Adds the member `trace`, and `trace_url` if there is a `link`, to an answer that is a JSON
/// object.
pub(crate) fn add_trace(response: &mut Response, trace: TraceId, link: Option<String>) {
    let Some(JsonBody(json)) = response.extensions_mut().remove() else {
        return;
    };
    let Some(members) = json.strip_suffix(b"}") else {
        return;
    };
    let mut body = BytesMut::from(members);
    if !members.ends_with(b"{") {
        body.put_u8(b',');
    }
    body.extend_from_slice(format!("\"trace\":\"{trace}\"").as_bytes());
    if let Some(link) = link {
        let link = serde_json::Value::from(link);
        body.extend_from_slice(format!(",\"trace_url\":{link}").as_bytes());
    }
    body.put_u8(b'}');
    *response.body_mut() = Full::new(body.freeze());
}
