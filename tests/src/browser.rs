//! A browser that signs in at an identity provider: cookies, forms, pages.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use curfew_testkit::http::{self, Response};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

/// Deadline for an answer on a busy machine.
const ANSWER: Duration = Duration::from_secs(60);

/// A browser with its cookies at one provider. The paths of cookies are ignored.
#[derive(Debug, Clone)]
pub(crate) struct Browser {
    address: SocketAddr,
    cookies: BTreeMap<String, String>,
}

impl Browser {
    /// A browser without cookies.
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            cookies: BTreeMap::new(),
        }
    }

    /// Requests a page.
    pub(crate) async fn get(&mut self, path: &str) -> Response {
        let cookies = self.cookies();
        let headers = [("Cookie", cookies.as_str())];
        let answer = request(self.address, "GET", path, &headers, b"").await;
        self.keep(&answer);
        answer
    }

    /// Sends a form.
    pub(crate) async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Response {
        let cookies = self.cookies();
        let headers = [("Cookie", cookies.as_str())];
        let answer = post_form(self.address, path, fields, &headers).await;
        self.keep(&answer);
        answer
    }

    fn cookies(&self) -> String {
        let pair = |(name, value): (&String, &String)| format!("{name}={value}");
        self.cookies.iter().map(pair).collect::<Vec<_>>().join("; ")
    }

    fn keep(&mut self, answer: &Response) {
        let set = answer
            .headers
            .iter()
            .filter(|(name, _)| name == "set-cookie");
        for (_, cookie) in set {
            let pair = cookie.split(';').next().unwrap_or_default();
            if let Some((name, value)) = pair.split_once('=') {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
    }
}

/// Sends a request, with a deadline long enough for a provider on a busy machine.
pub(crate) async fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Response {
    http::request_within(ANSWER, address, method, path, headers, body).await
}

pub(crate) async fn post_form(
    address: SocketAddr,
    path: &str,
    fields: &[(&str, &str)],
    headers: &[(&str, &str)],
) -> Response {
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let headers = [&[form], headers].concat();
    let body = encoded(fields);
    request(address, "POST", path, &headers, body.as_bytes()).await
}

/// Encodes fields for a form or a query.
pub(crate) fn encoded(fields: &[(&str, &str)]) -> String {
    let field = |(name, value): &(&str, &str)| {
        format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC))
    };
    let fields: Vec<String> = fields.iter().map(field).collect();
    fields.join("&")
}

/// The authorization code in a provider's redirect (RFC 6749 §4.1.2).
pub(crate) fn code_of(answer: &Response) -> String {
    let location = answer
        .header("location")
        .unwrap_or_else(|| panic!("the user is not signed in: {}", answer.text()));
    between(&format!("{location}&"), "code=", "&").to_owned()
}

pub(crate) fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    text.split_once(before)
        .and_then(|(_, rest)| rest.split_once(after))
        .map(|(between, _)| between)
        .unwrap_or_else(|| panic!("no {before:?} before {after:?} in {text}"))
}

pub(crate) fn text_of(object: &Value, member: &str) -> String {
    let text = object[member].as_str();
    text.unwrap_or_else(|| panic!("no {member} in {object}"))
        .to_owned()
}
