//! A real Keycloak that all tests of a process share, with a realm for each test.

mod home;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use curfew_testkit::http::{self, Response};
use serde_json::{Value, json};
use tokio::sync::{Mutex, OnceCell};
use tokio::time::sleep;

use crate::browser::{Browser, between, code_of, encoded, post_form, request, text_of};
use crate::free_port;

/// The client that the recipe in the documentation configures.
pub const CLIENT: &str = "web-app";

/// Redirect URL of [`CLIENT`].
const REDIRECT: &str = "https://app.example.com/";

/// The password of every user.
const PASSWORD: &str = "correct horse battery staple";

/// Deadline for a first start, which includes Keycloak's own build, on a busy machine.
const START: Duration = Duration::from_secs(180);

/// Options of the JVM that bound Keycloak's heap to 320 MiB.
const JAVA_OPTS: &str =
    "-Xms64m -Xmx320m -XX:MaxMetaspaceSize=224m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC";

/// Script that runs Keycloak in its own process group until standard input ends. Standard input
/// ends when the test process ends, even by a crash. The script then stops Keycloak and removes its
/// files.
const KEEPER: &str = r#"
trap '' INT TERM HUP
set -m
bash "$1/bin/kc.sh" "${@:2}" </dev/null >"$1/log" 2>&1 &
read -r _
exec 2>/dev/null
kill -KILL -- -$!
wait
rm -rf -- "$1"
"#;

/// A running Keycloak; see [`Keycloak::shared`].
#[derive(Debug)]
pub struct Keycloak {
    address: SocketAddr,
    home: PathBuf,
    admin_token: String,
    /// Dropping this value ends Keycloak.
    _keeper: (Child, ChildStdin),
}

/// A realm for one test, in which each user has the role `member`.
#[derive(Debug)]
pub struct Realm {
    /// The realm's name.
    pub name: String,
    keycloak: &'static Keycloak,
    /// Address to which requests are sent: Keycloak's own, or a proxy in front of Keycloak.
    address: SocketAddr,
}

/// Tokens of one sign-in of a user.
#[derive(Debug, Clone)]
pub struct Login {
    /// The access token.
    pub access: String,
    /// The refresh token.
    pub refresh: String,
    /// The ID token.
    pub id: String,
    browser: Browser,
}

impl Keycloak {
    /// The Keycloak of this process. The first call starts it.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Keycloak> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    async fn start() -> Self {
        let home = home::make();
        let (port, management) = (free_port(), free_port());
        let mut keeper = Command::new("bash")
            .args(["-c", KEEPER, "keycloak"])
            .arg(&home)
            .args(["start-dev", "--db=dev-mem", "--cache=local"])
            .args(["--health-enabled=true", "--http-host=127.0.0.1"])
            .arg(format!("--http-port={port}"))
            .arg(format!("--http-management-port={management}"))
            .env("JAVA_OPTS", JAVA_OPTS)
            .env("KC_BOOTSTRAP_ADMIN_USERNAME", "admin")
            .env("KC_BOOTSTRAP_ADMIN_PASSWORD", PASSWORD)
            .stdin(Stdio::piped())
            .spawn()
            .expect("bash is installed");
        let held = keeper.stdin.take().expect("standard input is piped");
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut keycloak = Self {
            address: local(port),
            home,
            admin_token: String::new(),
            _keeper: (keeper, held),
        };
        keycloak.until_ready(local(management)).await;
        keycloak.admin_token = keycloak.sign_in_admin().await;
        // By default the administrator's token is valid only for a minute.
        let patience = json!({"accessTokenLifespan":36_000}).to_string();
        keycloak.admin("PUT", "", Some(&patience), "master").await;
        keycloak.admin_token = keycloak.sign_in_admin().await;
        keycloak
    }

    async fn until_ready(&self, management: SocketAddr) {
        let deadline = Instant::now() + START;
        let ready = b"GET /health/ready HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        while Instant::now() < deadline {
            if let Ok(answer) = http::exchange(management, ready).await
                && answer.status == 200
            {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
        let log = fs::read_to_string(self.home.join("log")).unwrap_or_default();
        panic!("Keycloak does not start:\n{log}");
    }

    async fn sign_in_admin(&self) -> String {
        let form = [
            ("grant_type", "password"),
            ("client_id", "admin-cli"),
            ("username", "admin"),
            ("password", PASSWORD),
        ];
        let path = "/realms/master/protocol/openid-connect/token";
        let answer = post_form(self.address, path, &form, &[]).await;
        text_of(&answer.json(), "access_token")
    }

    async fn admin(&self, method: &str, path: &str, body: Option<&str>, realm: &str) -> Response {
        let authorization = format!("Bearer {}", self.admin_token);
        let headers = [
            ("Authorization", authorization.as_str()),
            ("Content-Type", "application/json"),
        ];
        let path = format!(
            "/admin/realms{}{realm}{path}",
            if realm.is_empty() { "" } else { "/" }
        );
        let body = body.unwrap_or_default().as_bytes();
        let answer = request(self.address, method, &path, &headers, body).await;
        let done = (200..300).contains(&answer.status);
        assert!(done, "{method} {path}: {} {}", answer.status, answer.text());
        answer
    }

    /// A new realm.
    pub async fn realm(&'static self) -> Realm {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("acme-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.realm_at(&name, self.address).await
    }

    /// A new realm with this name. `address` is Keycloak's own address, or the address of a proxy
    /// that forwards requests to Keycloak. The issuer in the realm's tokens contains `address`.
    pub async fn realm_at(&'static self, name: &str, address: SocketAddr) -> Realm {
        static ONE_BY_ONE: Mutex<()> = Mutex::const_new(());
        // Realms are made one at a time. If several realms were made at once, each of them would
        // take as long as all of them together.
        let _turn = ONE_BY_ONE.lock().await;
        let realm = json!({"realm":name,"enabled":true});
        self.admin("POST", "", Some(&realm.to_string()), "").await;
        Realm {
            name: name.to_owned(),
            keycloak: self,
            address,
        }
    }

    /// Keycloak's own address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Realm {
    /// The realm's issuer identifier.
    pub fn issuer(&self) -> String {
        format!("{}/realms/{}", self.origin(), self.name)
    }

    /// The scheme, host and port of the realm's URLs.
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Calls the admin REST API below the realm's path. Fails unless the call succeeds.
    pub async fn admin(&self, method: &str, path: &str, body: Value) -> Value {
        let body = (!body.is_null()).then(|| body.to_string());
        let keycloak = self.keycloak;
        let answer = keycloak
            .admin(method, path, body.as_deref(), &self.name)
            .await;
        match answer.body.is_empty() {
            true => Value::Null,
            false => answer.json(),
        }
    }

    /// Runs commands of the recipe unchanged, except that the addresses of this realm and of
    /// `gateway`, a URL, replace the addresses in the recipe. Fails unless the commands succeed.
    pub async fn run(&self, commands: &str, gateway: &str) {
        let mut commands = commands.to_owned();
        for (written, meant) in [
            ("https://id.example.com", self.origin().as_str()),
            ("REALM=acme", &format!("REALM={}", self.name)),
            ("https://rt.example.com", gateway),
        ] {
            assert!(commands.contains(written), "no {written} in {commands}");
            commands = commands.replace(written, meant);
        }
        let output = tokio::process::Command::new("bash")
            .args(["-euo", "pipefail", "-c", &commands])
            .env("PASSWORD", PASSWORD)
            .stdin(Stdio::null())
            .output()
            .await
            .expect("bash is installed");
        assert!(output.status.success(), "{commands}\n{output:?}");
    }

    /// Adds a user with the role `member`. Returns the id, which is `sub` in tokens.
    pub async fn user(&self, name: &str) -> String {
        let user = json!({
            "username": name, "enabled": true, "emailVerified": true,
            "email": format!("{name}@example.com"), "firstName": name, "lastName": "Example",
            "credentials": [{"type":"password","value":PASSWORD,"temporary":false}],
        });
        self.admin("POST", "/users", user).await;
        let found = format!("/users?exact=true&username={name}");
        let found = self.admin("GET", &found, Value::Null).await;
        let id = text_of(&found[0], "id");
        let role = self.admin("GET", "/roles/member", Value::Null).await;
        let path = format!("/users/{id}/role-mappings/realm");
        self.admin("POST", &path, json!([role])).await;
        id
    }

    /// The internal id of a client.
    pub async fn client(&self, client_id: &str) -> String {
        let path = format!("/clients?clientId={client_id}");
        let found = self.admin("GET", &path, Value::Null).await;
        text_of(&found[0], "id")
    }

    /// Signs in a user at the recipe's client, in a new browser.
    pub async fn login(&self, user: &str) -> Login {
        self.login_at(CLIENT, user, Browser::new(self.address))
            .await
    }

    /// Like [`Realm::login`], but at another client and in the browser of `earlier`, so Keycloak
    /// asks for no password.
    pub async fn login_beside(&self, client: &str, earlier: &Login) -> Login {
        self.login_at(client, "", earlier.browser.clone()).await
    }

    /// Runs the authorization code flow (RFC 6749 §4.1), with the steps of a browser.
    async fn login_at(&self, client: &str, user: &str, mut browser: Browser) -> Login {
        let query = encoded(&[
            ("client_id", client),
            ("redirect_uri", REDIRECT),
            ("response_type", "code"),
            ("scope", "openid"),
        ]);
        let mut answer = browser.get(&self.path(&format!("auth?{query}"))).await;
        if answer.status == 200 {
            let page = answer.text();
            let action = between(&page, "action=\"", "\"").replace("&amp;", "&");
            let path = action.trim_start_matches(&self.origin()).to_owned();
            let form = [("username", user), ("password", PASSWORD)];
            answer = browser.post(&path, &form).await;
        }
        let code = code_of(&answer);
        let form = [
            ("grant_type", "authorization_code"),
            ("client_id", client),
            ("redirect_uri", REDIRECT),
            ("code", &code),
        ];
        self.tokens(&form, browser).await
    }

    /// Gets new tokens for a sign-in. The error is an answer of Keycloak that has no tokens.
    pub async fn refresh(&self, login: &Login) -> Result<Login, Value> {
        let form = [
            ("grant_type", "refresh_token"),
            ("client_id", CLIENT),
            ("refresh_token", login.refresh.as_str()),
        ];
        let answer = post_form(self.address, &self.path("token"), &form, &[]).await;
        match answer.status {
            200 => Ok(Login::new(&answer.json(), login.browser.clone())),
            _ => Err(answer.json()),
        }
    }

    async fn tokens(&self, form: &[(&str, &str)], browser: Browser) -> Login {
        let answer = post_form(self.address, &self.path("token"), form, &[]).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        Login::new(&answer.json(), browser)
    }

    /// Logs the user out of one sign-in.
    pub async fn log_out(&self, login: &Login) {
        let form = [("client_id", CLIENT), ("refresh_token", &login.refresh)];
        let answer = post_form(self.address, &self.path("logout"), &form, &[]).await;
        assert_eq!(answer.status, 204, "{}", answer.text());
    }

    /// Signs the user out of every other device, as the account console does.
    pub async fn sign_out_others(&self, login: &Login) {
        let path = format!("/realms/{}/account/sessions?current=false", self.name);
        let authorization = format!("Bearer {}", login.access);
        // Without the `Accept` header the answer is the page of the account console.
        let headers = [
            ("Authorization", authorization.as_str()),
            ("Accept", "application/json"),
        ];
        let answer = request(self.address, "DELETE", &path, &headers, b"").await;
        assert_eq!(answer.status, 204, "{}", answer.text());
    }

    /// Revokes a token at Keycloak, as the user's page does (RFC 7009).
    pub async fn revoke_token(&self, token: &str) {
        let form = [("client_id", CLIENT), ("token", token)];
        let answer = post_form(self.address, &self.path("revoke"), &form, &[]).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    fn path(&self, endpoint: &str) -> String {
        format!("/realms/{}/protocol/openid-connect/{endpoint}", self.name)
    }
}

impl Login {
    fn new(answer: &Value, browser: Browser) -> Self {
        Self {
            access: text_of(answer, "access_token"),
            refresh: text_of(answer, "refresh_token"),
            id: text_of(answer, "id_token"),
            browser,
        }
    }
}
