//! The programs that `.ci/run` installs for these tests.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// The full path of a file, from its path in the repository.
pub(super) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The text of a file of the repository.
pub(super) fn text_of(path: &str) -> String {
    std::fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A program's output. `content` is true if the program succeeded.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) content: bool,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Said {
    /// Fails unless the program succeeded. Returns the program's output.
    #[track_caller]
    pub(super) fn content(self) -> Self {
        assert!(self.content, "{}\n{}", self.stdout, self.stderr);
        self
    }
}

/// The folder `CURFEW_TOOLS`, or the folder that `.ci/run` uses by default.
pub(super) fn tools() -> PathBuf {
    std::env::var_os("CURFEW_TOOLS").map_or_else(|| repository("target/tools"), PathBuf::from)
}

/// A program that is installed from PyPI.
pub(super) fn python_tool(name: &str) -> Command {
    let path = tools().join("venv/bin").join(name);
    assert!(
        path.exists(),
        "{} is missing: run .ci/run, which installs it",
        path.display()
    );
    Command::new(path)
}

/// A program that is installed from Debian. Some programs are in folders that only root's path has.
pub(super) fn system_tool(name: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let found = std::env::split_paths(&format!("{path}:/usr/sbin:/sbin"))
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
        .unwrap_or_else(|| panic!("{name} is missing: run .ci/run, which installs it"));
    Command::new(found)
}

/// Runs a program to its end.
pub(super) fn run(command: &mut Command) -> Said {
    run_on(command, "")
}

/// Runs a program to its end, with `input` on its standard input.
pub(super) fn run_on(command: &mut Command, input: &str) -> Said {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let input = input.to_owned();
    // A separate thread writes the input. Otherwise the program could wait for the test to read its
    // output while the test waits for the program to read its input.
    let writing = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child
        .wait_with_output()
        .expect("the program can be waited for");
    writing.join().expect("writing does not panic");
    Said {
        content: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The documents in a YAML text. The data of Secrets is decoded, and stands in `stringData`.
pub(super) fn yaml(text: &str) -> Vec<Value> {
    let mut python = python_tool("python");
    let said = run_on(python.arg(repository("tests/tools/documents.py")), text).content();
    serde_json::from_str(&said.stdout).expect("documents.py prints JSON")
}

/// The only document of a YAML file in the repository.
pub(super) fn yaml_file(path: &str) -> Value {
    let mut documents = yaml(&text_of(path));
    assert_eq!(documents.len(), 1, "{path}");
    documents.remove(0)
}

/// Every file below a folder of the repository whose name ends in `ending`.
pub(super) fn files_below(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![repository(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
