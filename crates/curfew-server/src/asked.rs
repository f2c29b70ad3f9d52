//! A request to the public listener as its span tells it: by the semantic conventions for HTTP
//! servers. Neither the query nor a header that may hold a token.

use std::net::IpAddr;

use curfew_model::TraceContext;
use curfew_telemetry::{Origin, Span, Tracer, Whose};
use http::header::{HOST, USER_AGENT};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, Request, StatusCode, Version};

use crate::tracestate;

/// Longest name of a server, in bytes (RFC 1035 §2.3.4), and longest name of a client's program, that a
/// span holds.
const MAX_NAME_BYTES: usize = 255;

/// The client of a connection, as far as it is known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client {
    /// Who the client is, as far as that is known.
    pub(crate) address: Option<IpAddr>,
    /// The connection speaks TLS.
    pub(crate) is_secure: bool,
}

/// A request, as far as spans tell it.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// The trace that it says it comes from.
    pub(crate) origin: Origin,
    client: Option<Client>,
    /// Nothing of the rest is looked at while nothing is traced.
    told: Option<Box<Told>>,
}

#[derive(Debug, Clone)]
struct Told {
    path: String,
    version: Version,
    host: Option<Authority>,
    agent: Option<String>,
}

impl Asked {
    pub(crate) fn of<B>(tracer: &Tracer, request: &Request<B>) -> Self {
        let headers = request.headers();
        let told = || {
            Box::new(Told {
                path: request.uri().path().to_owned(),
                version: request.version(),
                host: text(headers, &HOST).and_then(|host| host.parse().ok()),
                agent: text(headers, &USER_AGENT).map(str::to_owned),
            })
        };
        Self {
            origin: Origin::client(traceparent(headers)),
            client: request.extensions().get().copied(),
            told: tracer.is_on().then(told),
        }
    }

    /// For its share of what is recorded.
    pub(crate) fn whose(&self) -> Whose<'static> {
        Whose::at(self.client.and_then(|client| client.address))
    }

    /// Tells the request, all but what became of it.
    pub(crate) fn describe(&self, span: &mut Span) {
        let Some(told) = self.told.as_deref().filter(|_| span.is_recorded()) else {
            return;
        };
        span.set("url.path", told.path.clone());
        span.set("network.protocol.name", "http");
        span.set(
            "network.protocol.version",
            match told.version {
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
        if let Some(host) = &told.host {
            span.set("server.address", host.host().to_owned());
            if let Some(port) = host.port_u16() {
                span.set("server.port", i64::from(port));
            }
        }
        if let Some(agent) = &told.agent {
            span.set("user_agent.original", agent.clone());
        }
    }
}

/// The one header of this name, if it is short and text.
fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let text = headers.get(name)?.to_str().ok()?;
    (text.len() <= MAX_NAME_BYTES).then_some(text)
}

/// The span that a request's headers say it comes from.
pub(crate) fn traceparent(headers: &HeaderMap) -> Option<TraceContext> {
    let mut values = headers.get_all("traceparent").iter();
    let value = values.next()?;
    match values.next() {
        None => TraceContext::parse(value.to_str().ok()?).map(|it| tracestate::of(it, headers)),
        // Several say nothing.
        Some(_) => None,
    }
}

/// By the semantic conventions for HTTP. Neither the query nor a header: they may hold a token.
pub(crate) fn describe(span: &mut Span, method: &'static str, route: &str, status: StatusCode) {
    if !span.is_recorded() {
        return;
    }
    span.set("http.request.method", method);
    span.set("http.route", route.to_owned());
    span.set("url.path", route.to_owned());
    span.set("http.response.status_code", i64::from(status.as_u16()));
}
