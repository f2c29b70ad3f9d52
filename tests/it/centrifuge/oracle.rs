//! Curfew's Centrifuge protocol, compared with the original server, Centrifugo.
//!
//! `tests/centrifuge` has scripts for clients, and the transcripts of Centrifugo's answers. By
//! default the test plays the scripts to Curfew, and `differences.txt` must list every difference
//! from the transcripts. If `CURFEW_ORACLE` is the path of a Centrifugo binary, the test plays the
//! scripts to that server. If `CURFEW_ORACLE_RECORD=1` is set as well, the test writes new
//! transcripts. `CURFEW_ORACLE_ONLY` selects scripts by a part of their name.

mod differences;
mod expected;
mod fossil;
mod line;
mod protobuf;
mod schema;
mod script;
mod server;
mod talk;
mod value;
mod vectors;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use expected::Transcript;
use script::Script;
use server::Server;

/// Environment variable with the path of a Centrifugo binary that the scripts are played to.
const ORACLE: &str = "CURFEW_ORACLE";

/// Environment variable that, if set, makes the test write transcripts instead of comparing them.
const RECORD: &str = "CURFEW_ORACLE_RECORD";

/// Environment variable with a part of the names of the scripts to play.
const ONLY: &str = "CURFEW_ORACLE_ONLY";

/// Number of scripts that run at the same time.
const AT_ONCE: usize = 16;

/// Minimum number of scripts in the folder.
const AT_LEAST: usize = 150;

#[tokio::test]
async fn every_script_ends_as_at_centrifugo_or_as_the_differences_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("centrifuge");
    let oracle = std::env::var_os(ORACLE).map(PathBuf::from);
    let only = std::env::var(ONLY).unwrap_or_default();
    let mut files = scripts(&folder);
    let count: usize = files.values().map(Vec::len).sum();
    assert!(count >= AT_LEAST, "only {count} scripts were found");
    for scripts in files.values_mut() {
        scripts.retain(|script| script.name.contains(&only));
    }

    let recording = oracle.is_some() && std::env::var_os(RECORD).is_some();
    let recorded = if recording {
        BTreeMap::new()
    } else {
        recorded(&folder, &files)
    };
    let told = tell_all(&folder, oracle.as_deref(), &files, &recorded).await;
    if recording {
        assert!(
            only.is_empty(),
            "{ONLY} is set, so the transcripts of all other scripts would be lost"
        );
        return write(&folder.join("expected"), &files, &told);
    }
    write(
        &Path::new(env!("CARGO_TARGET_TMPDIR")).join("centrifuge"),
        &files,
        &told,
    );
    let mut found = BTreeMap::new();
    for (name, transcript) in &told {
        for (encoding, said) in transcript {
            let lines = differences::between(&recorded[name][encoding], said);
            found.insert((name.clone(), *encoding), lines);
        }
    }
    let mut known = match oracle {
        Some(_) => Vec::new(),
        None => differences::parse(&read(&folder.join("differences.txt"))).unwrap(),
    };
    if !only.is_empty() {
        known
            .iter_mut()
            .for_each(|known| known.scripts.retain(|script| script.contains(&only)));
    }
    let (new, gone) = differences::unexplained(found, &known);
    assert!(
        new.is_empty() && gone.is_empty(),
        "differences that are not in differences.txt:\n\n{}\ndifferences that no longer occur:\n{}\n",
        differences::report(&new),
        gone.join("\n")
    );
}

/// A file's text.
fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The scripts by the name of their file.
fn scripts(folder: &Path) -> BTreeMap<String, Vec<Script>> {
    let mut files = BTreeMap::new();
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder.join("scripts")).unwrap() {
        let path = entry.unwrap().path();
        let scripts = Script::parse_all(&read(&path))
            .unwrap_or_else(|problem| panic!("{}: {problem}", path.display()));
        for script in &scripts {
            assert!(
                names.insert(script.name.clone()),
                "two scripts are called {}",
                script.name
            );
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        files.insert(name, scripts);
    }
    files
}

/// The recorded transcripts by the name of their script.
fn recorded(folder: &Path, files: &BTreeMap<String, Vec<Script>>) -> BTreeMap<String, Transcript> {
    let mut recorded = BTreeMap::new();
    for (file, scripts) in files {
        let text = read(&folder.join("expected").join(file));
        let transcripts = expected::by_name(&text);
        for script in scripts {
            let lines = transcripts.get(script.name.as_str());
            let lines = lines.unwrap_or_else(|| panic!("{} is not recorded", script.name));
            recorded.insert(script.name.clone(), expected::read(script, lines).unwrap());
        }
    }
    recorded
}

/// Plays every script in each of its encodings, to a server with the configuration that the script
/// names.
async fn tell_all(
    folder: &Path,
    oracle: Option<&Path>,
    files: &BTreeMap<String, Vec<Script>>,
    recorded: &BTreeMap<String, Transcript>,
) -> BTreeMap<String, Transcript> {
    let folder = folder.join("servers");
    let mut servers: BTreeMap<String, Arc<Server>> = BTreeMap::new();
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut talks = JoinSet::new();
    for script in files.values().flatten() {
        if !servers.contains_key(&script.servers) {
            let server = match oracle {
                Some(binary) => Server::centrifugo(binary, &folder, &script.servers).await,
                None => Server::curfew(&folder, &script.servers).await,
            };
            servers.insert(script.servers.clone(), Arc::new(server));
        }
        for &encoding in &script.encodings {
            let (server, places) = (servers[&script.servers].clone(), places.clone());
            let said = recorded
                .get(&script.name)
                .map(|transcript| transcript[&encoding].clone());
            let script = script.clone();
            talks.spawn(async move {
                let _place = places.acquire().await.unwrap();
                let said = talk::tell(&server, &script, encoding, said.as_deref()).await;
                (script.name, encoding, said)
            });
        }
    }
    let mut told: BTreeMap<String, Transcript> = BTreeMap::new();
    while let Some(talk) = talks.join_next().await {
        let (name, encoding, said) = talk.unwrap();
        told.entry(name).or_default().insert(encoding, said);
    }
    told
}

/// Writes the transcripts to `folder`, with one file for each file of scripts.
fn write(
    folder: &Path,
    files: &BTreeMap<String, Vec<Script>>,
    told: &BTreeMap<String, Transcript>,
) {
    fs::create_dir_all(folder).unwrap();
    for (file, scripts) in files {
        let texts = scripts
            .iter()
            .map(|script| expected::write(script, &told[&script.name]));
        let text: Vec<String> = texts.collect();
        fs::write(folder.join(file), text.join("\n")).unwrap();
    }
}
