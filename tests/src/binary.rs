//! The binary under test: its build, and commands that run to their end.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::timeout;

/// Deadline for a command. No command of the tests takes longer.
const LONGEST_COMMAND: Duration = Duration::from_secs(30);

/// The path of the `curfew` binary: `CURFEW_BIN` if it is set. Otherwise each test process builds
/// the binary once, in the target directory of the tests.
pub fn curfew_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("CURFEW_BIN") {
            return path.into();
        }
        let tests = std::env::current_exe().expect("a test binary has a path");
        // The test program, such as target/debug/deps/it-0123, is two levels below target/debug.
        let profile = tests
            .parent()
            .and_then(Path::parent)
            .expect("the test program is inside the target directory");
        let mut cargo = Command::new(option_env!("CARGO").unwrap_or("cargo"));
        cargo
            .args(["build", "--quiet", "--package", "curfew"])
            .arg("--target-dir")
            .arg(
                profile
                    .parent()
                    .expect("a profile lies in the target directory"),
            )
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        let status = cargo.status().expect("cargo runs");
        assert!(status.success(), "the binary does not build");
        profile.join("curfew")
    })
}

/// A command that has ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The command's exit code; -1 if a signal ended the command.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error, which includes the log.
    pub stderr: String,
}

/// Runs `curfew` with these arguments to its end.
pub async fn curfew(arguments: &[&str]) -> Finished {
    curfew_with(arguments, &[]).await
}

/// Runs `curfew` with these arguments and environment variables to its end.
pub async fn curfew_with(arguments: &[&str], environment: &[(&str, &str)]) -> Finished {
    let running = tokio::process::Command::new(curfew_binary())
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the binary runs")
        .wait_with_output();
    let output = timeout(LONGEST_COMMAND, running)
        .await
        .unwrap_or_else(|_| panic!("curfew {arguments:?} does not end"))
        .expect("the binary can be waited for");
    Finished {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
