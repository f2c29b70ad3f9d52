//! Counts certain words in comments. The counts show at least whether sentences have subjects.

use std::fs;

use super::files::sources;

/// First words of sentences that have a clause or a pronoun, not a noun, as their subject.
const OPENERS: [&str; 12] = [
    "Whether", "What", "How", "Of", "Why", "When", "Where", "Those", "Which", "Who", "Whom",
    "Whose",
];

/// Pronouns that replace the technical term for a subject.
const VAGUE: [&str; 3] = ["whoever", "whatever", "whichever"];

/// Pronouns for a person, used where a technical term exists, such as client or session.
const PERSONS: [&str; 3] = ["somebody", "nobody", "anybody"];

/// Number of files that a failure names.
const WORST: usize = 10;

/// A habit of writing. `most` is the number of lines with this habit that 1,000 comment lines may
/// have. It is the highest number that mini-redis, linkerd2-proxy, iroh-relay, ripgrep or axum has.
struct Habit {
    name: &'static str,
    most: f64,
    has: fn(&str) -> bool,
}

const HABITS: [Habit; 4] = [
    Habit {
        name: "opens with a question word",
        most: 20.0,
        has: |line| OPENERS.contains(&line.split(' ').next().unwrap_or_default()),
    },
    Habit {
        name: "whoever, whatever, whichever",
        most: 2.0,
        has: |line| has_word(line, &VAGUE),
    },
    Habit {
        name: "somebody, nobody, anybody",
        most: 1.0,
        has: |line| has_word(line, &PERSONS),
    },
    Habit {
        name: "likewise alone",
        most: 0.0,
        has: |line| line.trim_end_matches('.').eq_ignore_ascii_case("likewise"),
    },
];

fn has_word(line: &str, words: &[&str]) -> bool {
    line.to_ascii_lowercase()
        .split(|c: char| !c.is_ascii_alphanumeric())
        .any(|word| words.contains(&word))
}

/// The text of each line that is only a comment, without its slashes.
fn comments(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let line = line.trim_start().strip_prefix("//")?;
        Some(line.trim_start_matches(['/', '!']).trim())
    })
}

#[test]
fn comments_are_recognised_and_habits_are_found() {
    let text = "//! What is it.\n  /// A fact, whatever comes.\nlet a = 1; // How it is\n//Nobody\n/// Likewise.";
    let lines: Vec<&str> = comments(text).collect();
    assert_eq!(
        lines,
        [
            "What is it.",
            "A fact, whatever comes.",
            "Nobody",
            "Likewise."
        ]
    );
    for (at, habit) in HABITS.iter().enumerate() {
        let found: Vec<bool> = lines.iter().map(|line| (habit.has)(line)).collect();
        let expect: Vec<bool> = (0..lines.len()).map(|line| line == at).collect();
        assert_eq!(found, expect, "{}", habit.name);
    }
    assert!(!(HABITS[0].has)("Whatsoever") && !(HABITS[0].has)("what follows"));
}

#[test]
fn comments_have_subjects() {
    let texts: Vec<(String, String)> = sources()
        .into_iter()
        .map(|(name, path)| (name, fs::read_to_string(path).unwrap()))
        .collect();
    let all: usize = texts.iter().map(|(_, text)| comments(text).count()).sum();
    assert!(all > 5_000, "only {all} comment lines were found");
    let mut failures = String::new();
    for habit in &HABITS {
        let mut files: Vec<(usize, &str)> = texts
            .iter()
            .map(|(name, text)| {
                let found = comments(text).filter(|line| (habit.has)(line)).count();
                (found, name.as_str())
            })
            .collect();
        let found: usize = files.iter().map(|(found, _)| found).sum();
        let share = found as f64 * 1000.0 / all as f64;
        if share <= habit.most {
            continue;
        }
        files.sort_unstable_by(|a, b| b.cmp(a));
        failures += &format!(
            "{}: {found} of {all} comment lines, {share:.1} of 1,000 (at most {})\n",
            habit.name, habit.most
        );
        for (found, name) in files.iter().take(WORST).take_while(|file| file.0 > 0) {
            failures += &format!("  {found:4} {name}\n");
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
}
