//! The client's types, for TypeScript.

use std::fs;

use curfew_testkit::http;
use curfew_tests::Gateway;
use tokio::process::Command;

use crate::clients::{installed, program};

/// The types that the node serves must compile, and the script must have the members that they
/// declare.
#[tokio::test]
async fn a_strict_program_compiles_against_the_types() {
    let node = Gateway::start_default().await;
    let folder = tempfile::tempdir().unwrap();
    for name in ["client.js", "client.d.ts"] {
        let answer = http::request(node.address(), "GET", &format!("/{name}"), &[], b"").await;
        assert_eq!(answer.status, 200, "{name}");
        fs::write(folder.path().join(name), &answer.body).unwrap();
    }
    let source = folder.path().join("program.ts");
    fs::copy(program("curfew_types.ts"), &source).unwrap();
    let compiled = Command::new(installed("node_modules/.bin/tsc"))
        .args(["--strict", "--noEmit", "--exactOptionalPropertyTypes"])
        .args(["--module", "es2022", "--moduleResolution", "bundler"])
        .args(["--target", "es2022", "--lib", "es2022,dom", "--types", ""])
        .arg(&source)
        .current_dir(folder.path())
        .output()
        .await
        .expect("tsc runs");
    let told = String::from_utf8_lossy(&compiled.stdout);
    assert!(compiled.status.success(), "{told}");

    // The public members that the types declare are compared with the members of an actual
    // instance.
    let types = fs::read_to_string(folder.path().join("client.d.ts")).unwrap();
    let (_, class) = types.split_once("export class Curfew {").expect("a class");
    let script = format!(
        "import {{ Curfew }} from {:?};\n\
         const client = new Curfew('ws://127.0.0.1/ws', {{ WebSocket: class {{}} }});\n\
         console.log(Object.keys(client).sort().join());",
        folder.path().join("client.js").display().to_string()
    );
    let run = folder.path().join("members.mjs");
    fs::write(folder.path().join("package.json"), r#"{"type":"module"}"#).unwrap();
    fs::write(&run, script).unwrap();
    let members = Command::new("node").arg(&run).output().await.unwrap();
    let members = String::from_utf8(members.stdout).unwrap();
    let mut promised: Vec<&str> = class
        .lines()
        .filter_map(|line| line.strip_prefix("  "))
        .filter(|line| !line.starts_with(['/', ' ', '*']) && !line.starts_with("constructor"))
        .filter_map(|line| {
            let name = line.trim_start_matches("readonly ");
            name.split(['<', '(', ':']).next()
        })
        .collect();
    promised.sort_unstable();
    assert_eq!(members.trim(), promised.join(","));
}
