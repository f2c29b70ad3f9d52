//! The attributes of a request's span, by the semantic conventions for HTTP servers, and the parts
//! of an answer that name the span. A span has neither the query nor a header that may hold a
//! token.

use std::net::IpAddr;

use bytes::{BufMut as _, BytesMut};
use curfew_model::{TraceContext, TraceId};
use curfew_telemetry::{Origin, Span, Tracer, Whose};
use http::header::{HOST, USER_AGENT};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Version};
use http_body_util::Full;

use super::{JsonBody, Response};

/// Maximum length, in bytes, of the headers `Host` and `User-Agent` in a span. It is the maximum
/// length of a host name (RFC 1035 §2.3.4).
const MAX_NAME_BYTES: usize = 255;

/// The header in which an answer names its span (W3C Trace Context Level 2, a draft). The header
/// has the format of `traceparent`: version, trace, span and flags.
const TRACE_RESPONSE: HeaderName = HeaderName::from_static("traceresponse");

/// The client of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientInfo {
    /// The address, if it is known.
    pub(crate) address: Option<IpAddr>,
    /// True if the connection uses TLS.
    pub(crate) is_secure: bool,
}

/// The parts of a request that its span shows.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// The trace that the client states in the headers.
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

    /// Returns the client that caused this request's span. The number of spans that are recorded
    /// for refusals is limited per client.
    pub(crate) fn whose(&self) -> Whose<'static> {
        Whose::at(self.client.and_then(|client| client.address))
    }

    /// Sets the attributes of the request on its span. The function [`describe`] adds the outcome.
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

/// Returns the value of the first header with this name, if the value is visible ASCII of at most
/// [`MAX_NAME_BYTES`] bytes.
fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let text = headers.get(name)?.to_str().ok()?;
    (text.len() <= MAX_NAME_BYTES).then_some(text)
}

/// Returns the caller's span, as the headers of a request state it; `None` if the header
/// `traceparent` is absent, repeated or invalid.
pub(crate) fn traceparent(headers: &HeaderMap) -> Option<TraceContext> {
    let mut values = headers.get_all("traceparent").iter();
    let value = values.next()?;
    match values.next() {
        None => TraceContext::parse(value.to_str().ok()?).map(|trace| with_state(trace, headers)),
        // Several `traceparent` headers contradict each other, so none of them is used.
        Some(_) => None,
    }
}

/// Adds the `tracestate` of a request's headers to `trace`. If this state is not visible ASCII,
/// `trace` is returned without a state.
fn with_state(trace: TraceContext, headers: &HeaderMap) -> TraceContext {
    // Several `tracestate` headers form one list (W3C Trace Context §3.3.1).
    let lines = headers.get_all("tracestate").iter();
    let lines: Result<Vec<&str>, _> = lines.map(HeaderValue::to_str).collect();
    match lines {
        Ok(lines) if !lines.is_empty() => trace.with_state(&lines.join(",")),
        _ => trace,
    }
}

/// Sets the method, the route and the status of a request on its span. The attribute `url.path` is
/// the route.
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

/// Names the span in the header `traceresponse`. If the answer is a refusal, also names the trace
/// in the JSON of the answer.
pub(crate) fn name_trace(response: &mut Response, span: &Span) {
    name_span(response.headers_mut(), span);
    let status = response.status();
    if let Some(trace) = span.trace()
        && (status.is_client_error() || status.is_server_error())
    {
        add_trace(response, trace, None);
    }
}

/// Adds the member `trace` to an answer that is a JSON object, and the member `trace_url` if there
/// is a `link`. Other answers are not changed.
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
