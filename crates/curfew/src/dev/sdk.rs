//! The Centrifuge SDK of the demo page: the file of `--centrifuge-sdk`, or the address of the
//! published file.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use curfew_server::Response;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::failure::Failure;

/// The path at which the node serves the file of `--centrifuge-sdk`.
pub(super) const PATH: &str = "/centrifuge.js";

/// The address of the file in the published npm package.
const PUBLISHED: &str = "https://unpkg.com/centrifuge@5.8.0/dist/centrifuge.js";

/// The digest of the published file. A browser refuses to run a file with another digest.
const INTEGRITY: &str = "sha384-Hc/rqOA60dxGHNnO+nCm7KQ1yc4I121B7eeuuZ9vJMHEq6vVV4onLLtrwG8L79xQ";

/// A source of `centrifuge-js` for the page.
#[derive(Debug)]
pub(super) struct Sdk {
    file: Option<Bytes>,
}

impl Sdk {
    /// Reads the file at `path`, if one is given.
    pub(super) fn read(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path else {
            return Ok(Self { file: None });
        };
        let file = fs::read(path).map_err(|error| {
            Failure::usage(format!(
                "--centrifuge-sdk {}: {error}; give it dist/centrifuge.js of the npm package centrifuge",
                path.display()
            ))
        })?;
        Ok(Self {
            file: Some(file.into()),
        })
    }

    /// The address from which the page loads the SDK, and the digest that the file must have.
    pub(super) fn config(&self) -> Value {
        match self.file {
            Some(_) => json!({ "address": PATH }),
            None => json!({ "address": PUBLISHED, "integrity": INTEGRITY }),
        }
    }

    /// The answer with the unchanged file; `None` if no file is given.
    pub(super) fn response(&self) -> Option<Response> {
        let mut response = Response::new(Full::new(self.file.clone()?));
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/javascript; charset=utf-8"),
        );
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(
            "cross-origin-resource-policy",
            HeaderValue::from_static("same-origin"),
        );
        headers.insert(
            "x-content-type-options",
            HeaderValue::from_static("nosniff"),
        );
        Some(response)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use http_body_util::BodyExt as _;
    use tempfile::NamedTempFile;

    use super::*;

    #[tokio::test]
    async fn a_file_that_is_given_is_served_as_it_is() {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(b"\"use strict\";\n\xff").unwrap();
        let sdk = Sdk::read(Some(file.path())).unwrap();
        assert_eq!(sdk.config(), json!({ "address": "/centrifuge.js" }));
        let body = sdk.response().unwrap().into_body().collect().await;
        assert_eq!(body.unwrap().to_bytes(), &b"\"use strict\";\n\xff"[..]);
    }

    #[test]
    fn without_one_the_page_requires_the_published_file() {
        let sdk = Sdk::read(None).unwrap();
        assert!(sdk.response().is_none());
        let config = sdk.config();
        assert!(config["address"].as_str().unwrap().starts_with("https://"));
        assert!(config["integrity"].as_str().unwrap().starts_with("sha384-"));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let Err(Failure::Usage(message)) = Sdk::read(Some(Path::new("/no/such/file.js"))) else {
            panic!("the result is not a usage error");
        };
        assert!(message.contains("--centrifuge-sdk /no/such/file.js: "));
        assert!(message.contains("dist/centrifuge.js"), "{message}");
    }
}
