//! The JavaScript client of the native protocol, which every node serves: a script and its type
//! declarations.

use curfew_model::digest;
use http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderName,
    IF_NONE_MATCH, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, Method, StatusCode};
use http_body_util::Full;

use crate::config::paths;
use crate::http::{Problem, Response};

/// The value of `Cache-Control`. A browser uses the file for 300 seconds without revalidation.
/// After an upgrade of the nodes, pages therefore have the new script within minutes.
const CACHE: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// The methods by which the files can be fetched, as a value of `Allow`.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD");

/// The header that states from which sites pages may embed an answer (Fetch §3.7).
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// The header that tells Deno the address of a module's type declarations.
const TYPES_HEADER: HeaderName = HeaderName::from_static("x-typescript-types");

/// A file of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientFile {
    /// The script, an ECMAScript module.
    Script,
    /// The module's type declarations for TypeScript.
    Types,
}

impl ClientFile {
    /// Returns the file at `path`, if there is one.
    pub(super) fn at(path: &str) -> Option<Self> {
        match path {
            paths::CLIENT => Some(Self::Script),
            paths::CLIENT_TYPES => Some(Self::Types),
            _ => None,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Script => include_str!("../../assets/client.js"),
            Self::Types => include_str!("../../assets/client.d.ts"),
        }
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Script => "text/javascript; charset=utf-8",
            Self::Types => "application/typescript; charset=utf-8",
        })
    }

    /// Answers a request for the file. `request` has the request's headers. Pages of all origins
    /// may load the file, because it contains nothing private.
    pub(super) fn answer(self, method: &Method, request: &HeaderMap) -> Response {
        if ![Method::GET, Method::HEAD].contains(method) {
            let detail = "the client script and its types can only be fetched with GET or HEAD";
            let status = StatusCode::METHOD_NOT_ALLOWED;
            let mut response = Problem::new(status, "bad_request", detail).into_response();
            response.headers_mut().insert(ALLOW, METHODS);
            return response;
        }
        let text = self.text();
        let tag = format!("\"{:016x}\"", digest(text.as_bytes()));
        let mut response = Response::default();
        match is_known(&tag, request) {
            true => *response.status_mut() = StatusCode::NOT_MODIFIED,
            false => *response.body_mut() = Full::from(text),
        }
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, self.content_type());
        if self == Self::Script {
            headers.insert(TYPES_HEADER, HeaderValue::from_static("./client.d.ts"));
        }
        headers.extend(HeaderValue::from_str(&tag).map(|tag| (ETAG, tag)));
        headers.insert(CACHE_CONTROL, CACHE);
        let any = HeaderValue::from_static("*");
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, any);
        headers.insert(RESOURCE_POLICY, HeaderValue::from_static("cross-origin"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }
}

/// True if the client already has the version of the file with this tag, as the headers of its
/// request state (RFC 9110 §13.1.2).
fn is_known(tag: &str, request: &HeaderMap) -> bool {
    let lines = request.get_all(IF_NONE_MATCH).iter();
    let mut tags = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    tags.any(|known| {
        let known = known.trim_ascii();
        known == b"*" || known.strip_prefix(b"W/").unwrap_or(known) == tag.as_bytes()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_is_known_is_found_in_any_list() {
        let tag = "\"1f\"";
        for (known, expected) in [
            (&["\"1f\""][..], true),
            (&["W/\"1f\""], true),
            (&["\"2f\" ,\t\"1f\""], true),
            (&["\"2f\"", "\"1f\""], true),
            (&["*"], true),
            (&["\"2f\""], false),
            (&["1f"], false),
            (&[""], false),
            (&[], false),
        ] {
            let values = known.iter().map(|value| HeaderValue::from_static(value));
            let headers = values.map(|value| (IF_NONE_MATCH, value)).collect();
            assert_eq!(is_known(tag, &headers), expected, "{known:?}");
        }
    }
}
