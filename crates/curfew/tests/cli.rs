//! The commands as a shell sees them: arguments in, text and an exit code out.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

use serde_json::{Value, json};
use tempfile::TempDir;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

const POLICY: &str = r#"
[[policy.rules]]
name = "members talk in their tenant's rooms"
channels = ["room:{tenant}:*"]
actions = ["subscribe", "publish"]
when = "claims.tenant == params.tenant && 'member' in claims.roles"
"#;

struct Output {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Output {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("no JSON: {}", self.stdout))
    }
}

/// The program, in an environment of nothing but `env`.
fn command(arguments: &[&str], env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_curfew"));
    command.args(arguments).env_clear().envs(env.iter().copied()).stdin(Stdio::null());
    command
}

fn curfew_with(arguments: &[&str], env: &[(&str, &str)]) -> Output {
    let output = command(arguments, env).output().unwrap();
    Output {
        code: output.status.code().expect("it was not killed"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn curfew(arguments: &[&str]) -> Output {
    curfew_with(arguments, &[])
}

/// A folder with files for one test.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path: PathBuf = self.0.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// A valid configuration that verifies with [`SECRET`], and `more`.
    fn config(&self, more: &str) -> String {
        let text = format!(
            "[backend]\nkind = \"memory\"\n[[auth.issuers]]\nname = \"main\"\nsecret = \"{SECRET}\"\n{more}"
        );
        self.file("curfew.toml", &text)
    }
}

/// A request that [`answering`] got.
struct Request {
    line: String,
    headers: Vec<String>,
    body: String,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|header| {
            let (found, value) = header.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// A server that gives one request each of these answers (status and body).
fn answering(answers: Vec<(&'static str, String)>) -> (SocketAddr, JoinHandle<Vec<Request>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let served = std::thread::spawn(move || {
        answers
            .iter()
            .map(|(status, body)| {
                let (stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream);
                let mut lines = Vec::new();
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    match line.trim_end() {
                        "" => break,
                        line => lines.push(line.to_owned()),
                    }
                }
                let line = lines.remove(0);
                let mut request = Request { line, headers: lines, body: String::new() };
                let length = request.header("content-length").map_or(0, |n| n.parse().unwrap());
                let mut content = vec![0; length];
                reader.read_exact(&mut content).unwrap();
                request.body = String::from_utf8(content).unwrap();
                let head = format!(
                    "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                reader.get_mut().write_all(format!("{head}{body}").as_bytes()).unwrap();
                request
            })
            .collect()
    });
    (address, served)
}

#[test]
fn exit_codes_tell_usage_from_failure() {
    let folder = Folder::new();
    let config = folder.config("");
    let secret = folder.file("secret", SECRET);
    let short = folder.file("short", "tooshort");
    let cases: &[(&[&str], i32)] = &[
        (&[], 2),
        (&["--help"], 0),
        (&["--version"], 0),
        (&["serve", "--help"], 0),
        (&["frobnicate"], 2),
        (&["serve", "--frobnicate"], 2),
        (&["serve", "--config", "/nonexistent/curfew.toml"], 2),
        (&["serve", "--set", "server.listne=x"], 2),
        (&["check-config", "--config", &config], 0),
        (&["check-config"], 2),
        (&["dev", "--listen", "0.0.0.0:0"], 2),
        (&["dev", "--admin", "192.0.2.1:0"], 2),
        (&["token", "--user", "a", "--key-file", &secret], 0),
        (&["token", "--user", "a", "--key-file", &short], 1),
        (&["token", "--user", "a", "--key-file", "/nonexistent"], 1),
        (&["token", "--user", "a", "--key-file", &secret, "--alg", "none"], 2),
        (&["token", "--user", "a", "--key-file", &secret, "--claim", "x=y"], 2),
        (&["token", "--user", "a", "--key-file", &secret, "--ttl", "60"], 2),
        (&["nodes", "--url", "https://127.0.0.1:9090"], 2),
        (&["nodes", "--url", "http://127.0.0.1:1"], 1),
        (&["nodes", "--key-file", "/nonexistent"], 1),
        (&["revoke", "user"], 2),
        (&["revoke", "all", "alice"], 2),
        (&["revoke", "user", "alice", "--before", "yesterday"], 2),
        (&["publish", "room:1", "hello"], 2),
        (&["explain", "--action", "publish", "--channel", "a"], 2),
        (&["connect", "http://127.0.0.1:1/ws"], 2),
        (&["connect", "ws://127.0.0.1:1/ws"], 1),
    ];
    for (arguments, expect) in cases {
        let output = curfew(arguments);
        assert_eq!(output.code, *expect, "{arguments:?}: {}{}", output.stdout, output.stderr);
        if *expect != 0 {
            assert!(!output.stderr.is_empty(), "{arguments:?} failed silently");
        }
    }
}

#[test]
fn check_config_reports_every_problem_with_file_and_key() {
    let folder = Folder::new();
    let config = folder.config("[limits]\nmessage_bytes = \"x\"\nsubscription = 1\n[session]\nmax_per_user = -1\n");
    let env = [("CURFEW__TELEMETRY__LOG_FORMAT", "xml")];
    let output = curfew_with(&["check-config", "--config", &config, "--set", "drain.window=1"], &env);
    assert_eq!(output.code, 2);
    for expect in [
        &format!("{config}:7: limits.message_bytes: "),
        &format!("{config}:8: limits.subscription: unknown key, did you mean subscriptions?"),
        &format!("{config}:10: session.max_per_user: "),
        "CURFEW__TELEMETRY__LOG_FORMAT: telemetry.log_format: ",
        "--set: drain.window: ",
        "5 problems",
    ] {
        assert!(output.stderr.contains(expect), "{expect} in {}", output.stderr);
    }
    let output = curfew_with(&["check-config", "--config", &config, "--json"], &env);
    assert_eq!(output.code, 2);
    assert_eq!(output.json()["valid"], false);
    assert_eq!(output.json()["problems"].as_array().unwrap().len(), 4);
    assert_eq!(output.json()["problems"][0]["source"], config.as_str());
    let config = folder.config("");
    let output = curfew(&["check-config", "--config", &config, "--json"]);
    assert_eq!(output.json(), json!({ "valid": true, "problems": [] }));
}

#[test]
fn a_key_file_that_is_missing_is_invalid_configuration() {
    let folder = Folder::new();
    let config = folder.config("secret_file = \"/nonexistent/secret\"\n[admin]\nkey_file = \"/nonexistent/key\"\n");
    for command in ["serve", "check-config"] {
        let output = curfew(&[command, "--config", &config]);
        assert_eq!(output.code, 2, "{}", output.stderr);
        assert!(output.stderr.contains("admin.key_file: "), "{}", output.stderr);
    }
}

#[test]
fn print_config_shows_effective_values_and_no_secret() {
    let folder = Folder::new();
    let config = folder.config(
        "[backend.redis]\nurl = \"redis://me:canary1@127.0.0.1:6379\"\n[session]\nmax_per_user = 4\n",
    );
    let env = [("CURFEW__ADMIN__KEY", "canary2-canary2-canary2-canary2-canary2")];
    let arguments = ["print-config", "--config", &config, "--set", "limits.subscriptions=7"];
    let output = curfew_with(&arguments, &env);
    assert_eq!(output.code, 0, "{}", output.stderr);
    for expect in [
        "max_per_user = 4  # ",
        "subscriptions = 7  # --set\n",
        "key = \"[redacted]\"  # CURFEW__ADMIN__KEY\n",
        "secret = \"[redacted]\"  # ",
        "leeway = \"5s\"\n",
        "[[auth.issuers]]\n",
    ] {
        assert!(output.stdout.contains(expect), "{expect} in {}", output.stdout);
    }
    for json in [false, true] {
        let mut arguments = arguments.to_vec();
        arguments.extend(json.then_some("--json"));
        let output = curfew_with(&arguments, &env);
        for secret in [SECRET, "canary1", "canary2"] {
            assert!(!output.stdout.contains(secret), "{secret} in {}", output.stdout);
        }
    }
    let reference = curfew(&["print-config", "--reference"]);
    assert!(reference.stdout.starts_with("# Configuration reference"), "{}", reference.stdout);
}

#[test]
fn print_config_shows_what_is_invalid_and_says_so() {
    let folder = Folder::new();
    let config = folder.config("[limits]\noutbound_bytes = 1\n");
    let output = curfew(&["print-config", "--config", &config]);
    assert_eq!(output.code, 2);
    assert!(output.stdout.contains("outbound_bytes = 1 "), "{}", output.stdout);
    assert!(output.stderr.contains("limits.outbound_bytes: "), "{}", output.stderr);
}

#[test]
fn a_minted_token_is_verified_and_its_decision_explained() {
    let folder = Folder::new();
    let config = folder.config(POLICY);
    let secret = folder.file("secret", &format!("{SECRET}\n"));
    let other = folder.file("other", "another secret of 32 bytes or so");
    let mint = |key: &str, more: &[&str]| {
        let mut arguments = vec![
            "token", "--user", "alice", "--role", "member", "--claim", "tenant=\"acme\"",
            "--key-file", key,
        ];
        arguments.extend(more);
        let output = curfew(&arguments);
        assert_eq!(output.code, 0, "{}", output.stderr);
        output.stdout.trim().to_owned()
    };
    let explain = |token: &str, channel: &str, more: &[&str]| {
        let mut arguments = vec![
            "explain", "--config", &config, "--token", token, "--action", "publish", "--channel", channel,
        ];
        arguments.extend(more);
        curfew(&arguments)
    };
    let token = mint(&secret, &[]);
    assert_ne!(token, mint(&secret, &[]), "each token has its own id");

    let output = explain(&token, "room:acme:1", &["--json"]);
    assert_eq!((output.code, output.json()["allowed"].as_bool()), (0, Some(true)), "{}", output.stderr);
    assert_eq!(output.json()["rule"], "members talk in their tenant's rooms");
    let output = explain(&token, "room:other:1", &[]);
    assert_eq!(output.code, 0);
    assert!(output.stdout.starts_with("denied: no rule allows publish on room:other:1\n"), "{}", output.stdout);
    assert!(output.stdout.contains("members talk"), "{}", output.stdout);

    let forged = mint(&other, &[]);
    let output = explain(&forged, "room:acme:1", &[]);
    assert_eq!(output.code, 1);
    assert!(output.stdout.contains("bad_signature"), "{}", output.stdout);
    let output = explain(&forged, "room:acme:1", &["--unverified", "--json"]);
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert_eq!(output.json()["allowed"], true);
    assert_eq!(output.json()["refused"]["reason"], "bad_signature");
    let early = mint(&secret, &["--not-before", "+10m"]);
    assert_eq!(explain(&early, "room:acme:1", &["--json"]).json()["refused"]["reason"], "not_yet_valid");

    let claims = r#"{"sub":"bob","tenant":"acme","roles":["member"]}"#;
    let output = curfew(&[
        "explain", "--config", &config, "--claims", claims, "--action", "subscribe", "--channel", "room:acme:1",
    ]);
    assert!(output.stdout.starts_with("allowed: "), "{}{}", output.stdout, output.stderr);
}

#[test]
fn revoking_sends_the_key_and_prints_the_receipt() {
    let receipt = json!({"key":"user:a b","nodes":{"live":1,"confirmed":1},"closed":2,"took_ms":4});
    let answers = vec![("200 OK", receipt.to_string()), ("200 OK", receipt.to_string()), ("200 OK", "{\"restored\":true}".to_owned())];
    let (address, served) = answering(answers);
    let url = format!("http://{address}");
    let env = [("CURFEW_ADMIN_KEY", "the admin key"), ("CURFEW_ADMIN_URL", url.as_str())];
    let output = curfew_with(&["revoke", "user", "a b", "--reason", "left"], &env);
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert_eq!(output.stdout, "revoked user:a b: 2 sessions closed, confirmed by 1 of 1 node in 4 ms\n");
    let output = curfew_with(&["revoke", "all", "--before", "1764000000", "--ttl", "10m", "--json"], &env);
    assert_eq!(output.json(), receipt);
    let output = curfew_with(&["restore", "user", "a/b"], &env);
    assert_eq!(output.code, 0, "{}", output.stderr);

    let requests = served.join().unwrap();
    assert_eq!(requests[0].line, "POST /v1/revocations HTTP/1.1");
    assert_eq!(requests[0].header("authorization"), Some("Bearer the admin key"));
    let body = |at: usize| serde_json::from_str::<Value>(&requests[at].body).unwrap();
    assert_eq!(body(0), json!({"kind":"user","value":"a b","ttl":86400,"reason":"left"}));
    assert_eq!(body(1), json!({"kind":"all","value":"all","ttl":600,"before":1_764_000_000}));
    assert_eq!(requests[2].line, "DELETE /v1/revocations/user/a%2Fb HTTP/1.1");
}

#[test]
fn sessions_are_listed_page_by_page() {
    let session = |id: &str| json!({"session":id,"user":"al\u{1b}ice","node":"n1","connected_at":1,"expires_at":4_000_000_000_u64});
    let pages = |_| {
        vec![
            ("200 OK", json!({"sessions":[session("s1")],"cursor":"s1"}).to_string()),
            ("200 OK", json!({"sessions":[session("s2")],"cursor":null}).to_string()),
        ]
    };
    let (address, served) = answering([0, 1].into_iter().flat_map(pages).collect());
    let url = format!("http://{address}");
    let output = curfew(&["sessions", "--user", "al&ice", "--url", &url]);
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert!(lines.len() == 3 && lines[0].starts_with("SESSION  USER"), "{}", output.stdout);
    assert!(!output.stdout.contains('\u{1b}'), "{}", output.stdout);
    let output = curfew(&["sessions", "--json", "--url", &url]);
    assert_eq!(output.json(), json!({"sessions":[session("s1"), session("s2")],"cursor":null}));
    let requests = served.join().unwrap();
    assert_eq!(requests[0].line, "GET /v1/sessions?limit=500&user=al%26ice HTTP/1.1");
    assert_eq!(requests[1].line, "GET /v1/sessions?limit=500&user=al%26ice&cursor=s1 HTTP/1.1");
}

#[test]
fn the_admin_apis_refusals_say_what_to_do() {
    let problem = |status: u16, detail: &str| json!({"status":status,"title":"No","detail":detail}).to_string();
    let (address, served) = answering(vec![
        ("401 Unauthorized", problem(401, "an admin key is required")),
        ("403 Forbidden", problem(403, "no admin key is configured")),
        ("503 Service Unavailable", "not JSON".to_owned()),
    ]);
    let url = format!("http://{address}");
    for expect in [["an admin key is required", "--key-file"], ["no admin key is configured", "admin.key_file"], ["503", "503"]] {
        let output = curfew(&["nodes", "--url", &url]);
        assert_eq!(output.code, 1);
        for expect in expect {
            assert!(output.stderr.contains(expect), "{expect} in {}", output.stderr);
        }
    }
    served.join().unwrap();
}

#[test]
fn published_data_goes_byte_for_byte() {
    let (address, served) = answering(vec![("200 OK", "{\"published\":1}".to_owned())]);
    let data = r#"{"b": 1.0,  "a":1e5}"#;
    let output = curfew(&["publish", "room:1", data, "--url", &format!("http://{address}")]);
    assert_eq!((output.code, output.stdout.as_str()), (0, ""), "{}", output.stderr);
    let body = format!(r#"{{"channel":"room:1","data":{data}}}"#);
    assert_eq!(served.join().unwrap()[0].body, body);
}

#[test]
fn connect_shows_why_an_upgrade_is_refused_and_no_token() {
    let body = json!({"type":"auth_failed","reason":"expired","message":"the token has expired"});
    let (address, served) = answering(vec![("401 Unauthorized", body.to_string())]);
    let url = format!("ws://{address}/ws?token=canary");
    let output = curfew_with(&["connect", &url], &[("CURFEW_TOKEN", "a.b.c")]);
    assert_eq!(output.code, 1);
    assert!(output.stderr.contains("401") && output.stderr.contains("expired: the token"), "{}", output.stderr);
    assert!(!output.stderr.contains("canary") && !output.stderr.contains("a.b.c"), "{}", output.stderr);
    assert_eq!(served.join().unwrap()[0].header("authorization"), Some("Bearer a.b.c"));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut child = command(&["print-config", "--reference"], &[])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

/// A running `curfew dev`, ended with the test.
struct Dev {
    child: std::process::Child,
    /// What it printed at its start.
    banner: String,
}

impl Dev {
    fn start() -> Self {
        let mut child = command(&["dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"], &[])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut banner = String::new();
        let mut reader = BufReader::new(child.stdout.take().unwrap());
        while !banner.contains("Ctrl-C") {
            assert_ne!(reader.read_line(&mut banner).unwrap(), 0, "it ended: {banner}");
        }
        Self { child, banner }
    }

    /// The word of the banner that follows `before`.
    fn word(&self, before: &str) -> &str {
        let (_, rest) = self.banner.split_once(before).unwrap_or_else(|| panic!("no {before}"));
        rest.split_whitespace().next().unwrap()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn the_commands_that_dev_prints_work() {
    let dev = Dev::start();
    let (url, token) = (dev.word("connect "), dev.word("--token "));
    let env = [
        ("CURFEW_ADMIN_URL", dev.word("CURFEW_ADMIN_URL=")),
        ("CURFEW_ADMIN_KEY", dev.word("CURFEW_ADMIN_KEY=")),
    ];
    let mut client = command(&["connect", url, "--token", token, "--subscribe", "room:1"], &[])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut frames = BufReader::new(client.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&frames.next().unwrap().unwrap()).unwrap();
    assert_eq!(next()["type"], "connected");
    assert_eq!(next(), json!({"type":"ok","id":1}));

    let output = curfew_with(&["publish", "room:1", "{\"text\":\"hello\"}"], &env);
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert_eq!(next()["data"], json!({"text":"hello"}));
    let output = curfew_with(&["sessions"], &env);
    assert!(output.stdout.contains(" alice "), "{}{}", output.stdout, output.stderr);
    let output = curfew_with(&["nodes", "--json"], &env);
    assert_eq!(output.json()["nodes"][0]["sessions"], 1, "{}", output.stdout);

    let output = curfew_with(&["revoke", "user", "alice"], &env);
    let receipt = "revoked user:alice: 1 session closed, confirmed by 1 of 1 node in ";
    assert!(output.stdout.contains(" 1 session closed, confirmed by 1 of 1 node in "), "{receipt}{}", output.stdout);
    assert_eq!(next()["type"], "closing");
    let ended = client.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&ended.stderr);
    assert!(told.contains("closed: 4403 revoked: access was revoked"), "{told}");
    assert_eq!(ended.status.code(), Some(1));

    let output = curfew_with(&["revocations"], &env);
    assert!(output.stdout.contains("user") && output.stdout.contains("alice"), "{}", output.stdout);
    for (code, says) in [(0, "lifted"), (1, "no such revocation")] {
        let output = curfew_with(&["restore", "user", "alice"], &env);
        assert_eq!(output.code, code, "{}", output.stderr);
        assert!(format!("{}{}", output.stdout, output.stderr).contains(says), "{}", output.stderr);
    }
}

#[test]
fn what_is_piped_into_connect_is_sent_and_the_end_closes_normally() {
    let dev = Dev::start();
    let (url, token) = (dev.word("connect "), dev.word("--token "));
    for source in ["header", "subprotocol", "query", "message"] {
        let arguments = ["connect", url, "--token", token, "--token-in", source, "--subscribe", "a", "--json"];
        let mut client = command(&arguments, &[])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = "/pub a {\"z\":1.0}\n/nothing\n{\"type\":\"ping\"}\n";
        client.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        let output = client.wait_with_output().unwrap();
        let frames = String::from_utf8(output.stdout).unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{source}: {frames}{told}");
        for expect in ["\"connected\"", "{\"type\":\"ok\"", "\"data\":{\"z\":1.0}", "{\"type\":\"pong\"}"] {
            assert!(frames.contains(expect), "{source}: no {expect} in {frames}{told}");
        }
        assert!(told.contains("no short form /nothing") && told.contains("closed: 1000"), "{told}");
        assert!(!told.contains(token), "{told}");
    }
}
