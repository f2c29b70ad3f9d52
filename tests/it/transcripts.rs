//! Replays every file of `tests/transcripts/native`.

use std::fs;
use std::path::Path;

use curfew_testkit::mint::Key;
use curfew_testkit::transcript::Script;
use curfew_tests::{Gateway, Settings};

#[tokio::test]
async fn every_transcript_comes_true() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("transcripts/native");
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    assert!(files.len() >= 6, "{files:?}");
    let mut failed = Vec::new();
    for path in files {
        let script = Script::parse(&fs::read_to_string(&path).unwrap())
            .unwrap_or_else(|problem| panic!("{}: {problem}", path.display()));
        let mut settings = Settings::default();
        for setting in &script.settings {
            settings = settings.with(setting);
        }
        if !script.rules.is_empty() {
            settings = settings.rules(&script.rules);
        }
        let replay = tokio::task::LocalSet::new();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // Each transcript runs in a separate task, so that a failure does not hide the results of
        // the others.
        let outcome = replay
            .run_until(async move {
                tokio::task::spawn_local(async move {
                    let gateway = Gateway::start_with(&settings).await;
                    script.run(gateway.address(), &Key::default_secret()).await;
                })
                .await
            })
            .await;
        if outcome.is_err() {
            failed.push(name);
        }
    }
    assert!(
        failed.is_empty(),
        "these transcripts failed, with the lines above: {failed:?}"
    );
}
