//! Calls of the program, and the files, servers and nodes that the tests need.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

use serde_json::Value;
use tempfile::TempDir;

pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";

pub(crate) const POLICY: &str = r#"
[[policy.rules]]
name = "members talk in their tenant's rooms"
channels = ["room:{tenant}:*"]
actions = ["subscribe", "publish"]
when = "claims.tenant == params.tenant && 'member' in claims.roles"
"#;

pub(crate) struct Output {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|_| panic!("stdout is not JSON: {}", self.stdout))
    }
}

/// The program, in an environment with only `env`.
pub(crate) fn command(arguments: &[&str], env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_curfew"));
    command
        .args(arguments)
        .env_clear()
        .envs(env.iter().copied())
        .stdin(Stdio::null());
    command
}

pub(crate) fn curfew_with(arguments: &[&str], env: &[(&str, &str)]) -> Output {
    let output = command(arguments, env).output().unwrap();
    Output {
        code: output.status.code().expect("a signal ended the program"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

pub(crate) fn curfew(arguments: &[&str]) -> Output {
    curfew_with(arguments, &[])
}

/// A folder with files for one test.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A path in the folder. The file need not exist.
    pub(crate) fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn file(&self, name: &str, content: &str) -> String {
        let path: PathBuf = self.0.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Writes a valid configuration that verifies tokens with [`SECRET`], followed by the settings
    /// in `more`. Returns the path of the file.
    pub(crate) fn config(&self, more: &str) -> String {
        let text = format!(
            "[backend]\nkind = \"memory\"\n[[auth.issuers]]\nname = \"main\"\nsecret = \"{SECRET}\"\n{more}"
        );
        self.file("curfew.toml", &text)
    }
}

/// A request that [`answering`] received.
pub(crate) struct RecordedRequest {
    pub(crate) line: String,
    pub(crate) headers: Vec<String>,
    pub(crate) body: String,
}

impl RecordedRequest {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|header| {
            let (found, value) = header.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Starts a server that gives each of these answers (status and body) to one request.
pub(crate) fn answering(
    answers: Vec<(&'static str, String)>,
) -> (SocketAddr, JoinHandle<Vec<RecordedRequest>>) {
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
                let mut request = RecordedRequest { line, headers: lines, body: String::new() };
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

/// A running `curfew dev`, which ends with the test.
pub(crate) struct Dev {
    child: std::process::Child,
    /// The text that the program printed at its start.
    banner: String,
}

impl Dev {
    pub(crate) fn start() -> Self {
        let mut child = command(
            &["dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"],
            &[],
        )
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
        let mut banner = String::new();
        let mut reader = BufReader::new(child.stdout.take().unwrap());
        while !banner.contains("Ctrl-C") {
            assert_ne!(
                reader.read_line(&mut banner).unwrap(),
                0,
                "curfew dev ended: {banner}"
            );
        }
        Self { child, banner }
    }

    /// The word of the banner that follows `before`.
    pub(crate) fn word(&self, before: &str) -> &str {
        let (_, rest) = self
            .banner
            .split_once(before)
            .unwrap_or_else(|| panic!("the banner lacks {before}"));
        rest.split_whitespace().next().unwrap()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A running `curfew serve`, which ends with the test.
pub(crate) struct Node {
    child: std::process::Child,
    /// The address of the node's public listener.
    pub(crate) address: String,
}

impl Node {
    pub(crate) fn start(config: &str) -> Self {
        let mut child = command(&["serve", "--config", config], &[])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let address = loop {
            let mut line = String::new();
            assert_ne!(
                log.read_line(&mut line).unwrap(),
                0,
                "curfew serve ended before it listened"
            );
            let entry: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
            if entry["message"] == "listening" && entry["listener"] == "public" {
                break entry["address"].as_str().unwrap().to_owned();
            }
        };
        // The rest of the log is read too, because the node would block on a full pipe.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, address }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
