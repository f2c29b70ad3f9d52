//! Transcripts in files: Centrifugo's answers to each step.

use std::collections::BTreeMap;

use super::script::{Encoding, Script};

/// The answers to each step of a script.
pub(super) type Said = Vec<Vec<String>>;

/// A script's transcript in each encoding.
pub(super) type Transcript = BTreeMap<Encoding, Said>;

/// The transcript as text. Lines that are equal in both encodings appear once.
pub(super) fn write(script: &Script, transcript: &Transcript) -> String {
    let mut text = format!("== {}\n", script.name);
    for (at, step) in script.steps.iter().enumerate() {
        step.lines
            .iter()
            .for_each(|line| text += &format!("{line}\n"));
        let said: Vec<_> = transcript.values().map(|said| &said[at]).collect();
        if said.iter().all(|other| *other == said[0]) {
            said[0].iter().for_each(|line| text += &format!("{line}\n"));
            continue;
        }
        for (encoding, said) in transcript {
            for line in &said[at] {
                text += &format!("{} {line}\n", encoding.name());
            }
        }
    }
    text
}

/// The transcripts of a file as lines, by the names of their scripts.
pub(super) fn by_name(text: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut transcripts = BTreeMap::new();
    let mut name = "";
    for line in text.lines().filter(|line| !line.is_empty()) {
        match line.strip_prefix("== ") {
            Some(new) => name = new,
            None => transcripts.entry(name).or_insert_with(Vec::new).push(line),
        }
    }
    transcripts
}

/// Reads a script's transcript. An error means that it belongs to another version of the script.
pub(super) fn read(script: &Script, lines: &[&str]) -> Result<Transcript, String> {
    let silence = vec![Vec::new(); script.steps.len()];
    let mut transcript: Transcript = script
        .encodings
        .iter()
        .map(|&encoding| (encoding, silence.clone()))
        .collect();
    let mut lines = lines.iter().peekable();
    for (at, step) in script.steps.iter().enumerate() {
        for line in &step.lines {
            if lines.next() != Some(&line.as_str()) {
                return Err(format!(
                    "{}: {line:?} is not in the transcript; record anew",
                    script.name
                ));
            }
        }
        while let Some(line) = lines.next_if(|line| is_said(line)) {
            for (encoding, said) in &mut transcript {
                let only = Encoding::BOTH.iter().find_map(|only| {
                    let line = line.strip_prefix(only.name())?.strip_prefix(' ')?;
                    Some((*only, line))
                });
                match only {
                    Some((only, line)) if only == *encoding => said[at].push(line.to_owned()),
                    Some(_) => {}
                    None => said[at].push((*line).to_owned()),
                }
            }
        }
    }
    match lines.next() {
        Some(line) => Err(format!(
            "{}: the script has no {line:?}; record anew",
            script.name
        )),
        None => Ok(transcript),
    }
}

/// True for a line that the server has sent, false for a line of a step.
fn is_said(line: &str) -> bool {
    let name = line.split_once("< ").map(|(name, _)| name);
    name.is_some_and(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == ' '))
}
