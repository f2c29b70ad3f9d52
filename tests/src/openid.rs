//! An OpenID provider that follows the standard strictly: the package `oidc-provider`.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::browser::{Browser, between, code_of, encoded, post_form, text_of};

/// Redirect URL of all clients.
const REDIRECT: &str = "https://app.example.com/";

/// Audience of the provider's access tokens (RFC 8707).
const RESOURCE: &str = "https://rt.example.com";

/// File of the provider's error output, in its directory.
const LOG: &str = "log";

/// Deadline for a start, on a busy machine.
const START: Duration = Duration::from_secs(60);

/// Limit on redirects. No sign-in needs more.
const REDIRECTS: usize = 10;

/// A provider that runs until this value is dropped.
#[derive(Debug)]
pub struct OpenIdProvider {
    /// The line of input that configured the provider, in the form that the program documents.
    made_of: Mutex<Value>,
    address: SocketAddr,
    issuer: String,
    running: Mutex<Option<Running>>,
    process: Child,
    directory: TempDir,
}

#[derive(Debug)]
struct Running {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// Tokens of a sign-in.
#[derive(Debug, Clone)]
pub struct SignedIn {
    /// The access token, a JWT (RFC 9068).
    pub access: String,
    /// The ID token.
    pub id: String,
    client: String,
    browser: Browser,
}

impl OpenIdProvider {
    /// Starts a provider. Its issuer identifier ends in `path`. The provider has a key for each of
    /// `algorithms`, and a client for each name and metadata in `clients`.
    pub async fn start(path: &str, algorithms: &[&str], clients: &[(&str, Value)]) -> Self {
        let clients: Vec<Value> = clients.iter().map(client).collect();
        let made_of = json!({"path":path,"keys":algorithms,"clients":clients,"rotates":true});
        let directory = tempfile::tempdir().expect("a directory");
        let log = directory.path().join(LOG);
        let mut process = Command::new("node")
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tools/oidc_provider.mjs"
            ))
            .env("CURFEW_TOOLS", tools())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).expect("a file can be made"))
            .spawn()
            .expect("node is installed");
        let running = Running {
            input: process.stdin.take().expect("standard input is piped"),
            output: BufReader::new(process.stdout.take().expect("standard output is piped")),
        };
        let (running, issuer) = tell(running, made_of.clone())
            .await
            .unwrap_or_else(|| panic!("{}", std::fs::read_to_string(&log).unwrap_or_default()));
        let address = issuer.trim_start_matches("http://").trim_end_matches(path);
        Self {
            made_of: Mutex::new(made_of),
            address: address.parse().expect("the issuer contains the address"),
            issuer,
            running: Mutex::new(Some(running)),
            process,
            directory,
        }
    }

    /// The provider's issuer identifier.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Replaces all keys by new keys, in the same order.
    pub async fn rotate(&self) {
        self.change("rotates", json!(true)).await;
    }

    /// Replaces the metadata of the clients.
    pub async fn register(&self, clients: &[(&str, Value)]) {
        let clients: Vec<Value> = clients.iter().map(client).collect();
        self.change("clients", json!(clients)).await;
    }

    async fn change(&self, member: &str, value: Value) {
        let made_of = {
            let mut made_of = self.made_of.lock();
            made_of["rotates"] = json!(false);
            made_of[member] = value;
            made_of.clone()
        };
        let running = self
            .running
            .lock()
            .take()
            .expect("no other change is in progress");
        let told = tell(running, made_of).await;
        let (running, _) = told.unwrap_or_else(|| panic!("{}", self.log()));
        *self.running.lock() = Some(running);
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join(LOG)).unwrap_or_default()
    }

    /// Signs in a user at a client, in a new browser.
    pub async fn login(&self, client: &str, user: &str) -> SignedIn {
        let query = [("login_hint", user)];
        self.login_with(client, &query, Browser::new(self.address))
            .await
    }

    /// Like [`OpenIdProvider::login`], but requests the claim `sid` (OpenID Connect Core §5.5).
    /// Without this request, only a client whose logout tokens have `sid` gets the claim.
    pub async fn login_with_sid(&self, client: &str, user: &str) -> SignedIn {
        let sid = json!({"id_token":{"sid":null}}).to_string();
        let query = [("login_hint", user), ("claims", &sid)];
        self.login_with(client, &query, Browser::new(self.address))
            .await
    }

    /// Signs in at another client, with the user and the browser of `earlier`.
    pub async fn login_beside(&self, client: &str, earlier: &SignedIn) -> SignedIn {
        self.login_with(client, &[], earlier.browser.clone()).await
    }

    /// Runs the authorization code flow for a resource (RFC 6749 §4.1, RFC 8707).
    async fn login_with(
        &self,
        client: &str,
        query: &[(&str, &str)],
        mut browser: Browser,
    ) -> SignedIn {
        let all = [
            ("client_id", client),
            ("redirect_uri", REDIRECT),
            ("response_type", "code"),
            ("scope", "openid"),
            ("resource", RESOURCE),
        ];
        let mut path = format!("/auth?{}", encoded(&[&all, query].concat()));
        let mut redirects = 0;
        let answer = loop {
            let answer = browser.get(&path).await;
            let to = answer.header("location").unwrap_or_default();
            let ours = to.trim_start_matches(&format!("http://{}", self.address));
            if !ours.starts_with('/') {
                break answer;
            }
            path = ours.to_owned();
            redirects += 1;
            assert!(redirects < REDIRECTS, "{path}");
        };
        let code = code_of(&answer);
        let form = [
            ("grant_type", "authorization_code"),
            ("client_id", client),
            ("redirect_uri", REDIRECT),
            ("code", &code),
        ];
        let answer = post_form(self.address, "/token", &form, &[]).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let tokens = answer.json();
        SignedIn {
            access: text_of(&tokens, "access_token"),
            id: text_of(&tokens, "id_token"),
            client: client.to_owned(),
            browser,
        }
    }

    /// Logs the user out at the request of a client (OpenID Connect RP-Initiated Logout 1.0), and
    /// confirms the logout for all clients of the browser. When the call returns, each client has
    /// received or refused its logout token.
    pub async fn log_out(&self, login: &SignedIn) {
        let mut browser = login.browser.clone();
        let query = encoded(&[("client_id", &login.client), ("id_token_hint", &login.id)]);
        let page = browser.get(&format!("/session/end?{query}")).await;
        assert_eq!(page.status, 200, "{}", page.text());
        let page = page.text();
        let secret = between(&page, "name=\"xsrf\" value=\"", "\"");
        let form = [("xsrf", secret), ("logout", "yes")];
        let answer = browser.post("/session/end/confirm", &form).await;
        assert_eq!(answer.status, 303, "{}", answer.text());
    }
}

impl Drop for OpenIdProvider {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Sends the configuration to the process. Returns the issuer identifier.
async fn tell(mut running: Running, made_of: Value) -> Option<(Running, String)> {
    let asked = spawn_blocking(move || {
        writeln!(running.input, "{made_of}").ok()?;
        let mut line = String::new();
        running.output.read_line(&mut line).ok()?;
        let answer: Value = serde_json::from_str(&line).ok()?;
        Some((running, text_of(&answer, "issuer")))
    });
    let told = timeout(START, asked).await.ok()?;
    told.ok()?
}

/// The metadata of a client without a secret (RFC 7591 §2).
fn client((name, more): &(&str, Value)) -> Value {
    let mut client = json!({
        "client_id": name, "token_endpoint_auth_method": "none", "redirect_uris": [REDIRECT],
        "grant_types": ["authorization_code"], "response_types": ["code"],
    });
    for (name, value) in more.as_object().expect("metadata is an object") {
        client[name] = value.clone();
    }
    client
}

/// The folder in which the package is installed.
fn tools() -> PathBuf {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/tools");
    let tools = std::env::var_os("CURFEW_TOOLS").map_or_else(|| default.into(), PathBuf::from);
    let package = tools.join("node_modules/oidc-provider");
    assert!(
        package.exists(),
        "{} is missing: run .ci/run, which installs it",
        package.display()
    );
    tools
}
