//! Differences between two transcripts, and the list of known differences.

use std::collections::BTreeMap;

use super::expected::Said;
use super::script::Encoding;

/// Lines of a difference: `- ` begins a line of the recorded transcript, and `+ ` a line of the
/// server to which the test plays the scripts.
pub(super) type Lines = Vec<String>;

/// A known difference.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The scripts in which the difference occurs.
    pub(super) scripts: Vec<String>,
    /// The encodings in which the difference occurs; empty for all encodings.
    pub(super) only: Vec<Encoding>,
    pub(super) lines: Lines,
    pub(super) why: String,
}

/// Reads `differences.txt`.
pub(super) fn parse(text: &str) -> Result<Vec<Known>, String> {
    let mut all: Vec<Known> = Vec::new();
    let mut complete = true;
    for line in text.lines() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        if complete {
            all.push(Known::default());
            complete = false;
        }
        let known = all.last_mut().ok_or("no entry")?;
        if let Some(script) = line.strip_prefix("== ") {
            known.scripts.push(script.to_owned());
        } else if let Some(only) = line.strip_prefix("only ") {
            let named = Encoding::BOTH
                .into_iter()
                .filter(|encoding| encoding.name() == only);
            known.only.extend(named);
        } else if line.starts_with("- ") || line.starts_with("+ ") {
            known.lines.push(line.to_owned());
        } else if let Some(why) = line.strip_prefix("why: ") {
            why.clone_into(&mut known.why);
            complete = true;
        } else {
            return Err(format!("{line:?} is no line of a difference"));
        }
    }
    for known in &all {
        if known.scripts.is_empty() || known.lines.is_empty() || known.why.is_empty() {
            return Err(format!("{known:?} lacks scripts, lines or a reason"));
        }
    }
    Ok(all)
}

/// The lines that differ, step by step. The texts of errors are not compared.
pub(super) fn between(expected: &Said, actual: &Said) -> Lines {
    let mut lines = Lines::new();
    for (expected, actual) in expected.iter().zip(actual) {
        let wordless = |lines: &[String]| lines.iter().map(|line| without_words(line)).collect();
        let (expected, actual): (Vec<_>, Vec<_>) = (wordless(expected), wordless(actual));
        if expected == actual {
            continue;
        }
        let (missing, new) = (without(&expected, &actual), without(&actual, &expected));
        let reordered = missing.is_empty() && new.is_empty();
        let (missing, new) = if reordered {
            (expected, actual)
        } else {
            (missing, new)
        };
        lines.extend(missing.iter().map(|line| format!("- {line}")));
        lines.extend(new.iter().map(|line| format!("+ {line}")));
    }
    lines
}

/// The line without the message of its error.
fn without_words(line: &str) -> String {
    const BEFORE: &str = r#","message":""#;
    if !line.contains(r#""error":{"code":"#) {
        return line.to_owned();
    }
    let Some((front, words)) = line.split_once(BEFORE) else {
        return line.to_owned();
    };
    let mut escaped = false;
    let end = words.find(|letter| {
        let ends = letter == '"' && !escaped;
        escaped = letter == '\\' && !escaped;
        ends
    });
    match end {
        Some(end) if end > 0 => format!("{front}{}", &words[end + 1..]),
        _ => line.to_owned(),
    }
}

/// The lines of `these` that `others` does not have.
fn without(these: &[String], others: &[String]) -> Vec<String> {
    let mut others = others.to_vec();
    let mut left = these.to_vec();
    left.retain(|line| match others.iter().position(|other| other == line) {
        Some(at) => {
            others.remove(at);
            false
        }
        None => true,
    });
    left
}

/// Removes known differences from the found ones. Returns the new differences, by script and
/// encoding, and the known entries that no longer apply.
pub(super) fn unexplained(
    mut found: BTreeMap<(String, Encoding), Lines>,
    known: &[Known],
) -> (BTreeMap<(String, Encoding), Lines>, Vec<String>) {
    let mut gone = Vec::new();
    for known in known {
        for script in &known.scripts {
            let told = found.iter_mut().filter(|((name, encoding), _)| {
                name == script && (known.only.is_empty() || known.only.contains(encoding))
            });
            let told: Vec<_> = told.collect();
            if told.is_empty() {
                gone.push(format!("no script is called {script}"));
            }
            for ((_, encoding), lines) in told {
                let left = without(lines, &known.lines);
                if left.len() + known.lines.len() == lines.len() {
                    *lines = left;
                } else {
                    gone.push(format!("{script} ({}): {}", encoding.name(), known.why));
                }
            }
        }
    }
    found.retain(|_, lines| !lines.is_empty());
    (found, gone)
}

/// The new differences as entries of `differences.txt`. Equal differences share an entry.
pub(super) fn report(found: &BTreeMap<(String, Encoding), Lines>) -> String {
    let mut groups: BTreeMap<(Vec<Encoding>, &Lines), Vec<&str>> = BTreeMap::new();
    for ((script, encoding), lines) in found {
        let same = |other: &Encoding| found.get(&(script.clone(), *other)) == Some(lines);
        let encodings: Vec<_> = Encoding::BOTH.into_iter().filter(same).collect();
        if encodings[0] == *encoding {
            groups.entry((encodings, lines)).or_default().push(script);
        }
    }
    let mut text = String::new();
    for ((encodings, lines), scripts) in groups {
        scripts
            .iter()
            .for_each(|script| text += &format!("== {script}\n"));
        if let [only] = encodings[..] {
            text += &format!("only {}\n", only.name());
        }
        lines.iter().for_each(|line| text += &format!("{line}\n"));
        text += "why: \n\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# A comment.\n\n== one\n== two\nonly json\n- < a\n+ < b\nwhy: It is so.\n";

    fn lines(lines: &[&str]) -> Lines {
        lines.iter().map(|&line| line.to_owned()).collect()
    }

    fn found(scripts: &[(&str, Encoding, &[&str])]) -> BTreeMap<(String, Encoding), Lines> {
        let entry = |(script, encoding, found): &(&str, Encoding, &[&str])| {
            (((*script).to_owned(), *encoding), lines(found))
        };
        scripts.iter().map(entry).collect()
    }

    #[test]
    fn steps_are_compared_one_by_one() {
        let said = |steps: &[&[&str]]| -> Said { steps.iter().map(|step| lines(step)).collect() };
        let expected = said(&[&["< a", "< b"], &["< c"], &["< d", "< e"]]);
        let actual = said(&[&["< a", "< x"], &["< c"], &["< e", "< d"]]);
        let order = ["- < d", "- < e", "+ < e", "+ < d"];
        let all = ["- < b", "+ < x"].into_iter().chain(order);
        assert_eq!(between(&expected, &actual), all.collect::<Vec<_>>());
        assert!(between(&expected, &expected).is_empty());
    }

    #[test]
    fn the_words_of_an_error_are_free_if_there_are_any() {
        let line =
            |words: &str| format!(r#"< {{"id":1,"error":{{"code":100,"message":"{words}"}}}}"#);
        let said = |words: &str| vec![vec![line(words)]];
        assert!(between(&said("a"), &said(r#"b \"c\" \\"#)).is_empty());
        assert_eq!(between(&said("a"), &said("")).len(), 2);
        let other = vec![vec![line("a").replace("100", "101")]];
        assert_eq!(between(&said("a"), &other).len(), 2);
    }

    #[test]
    fn what_is_known_is_taken_off_and_what_is_gone_is_told() {
        let known = parse(TEXT).unwrap();
        let one: &[&str] = &["- < a", "+ < b"];
        let more: &[&str] = &["- < a", "+ < b", "- < c"];
        let (new, gone) = unexplained(
            found(&[("one", Encoding::Json, one), ("two", Encoding::Json, more)]),
            &known,
        );
        assert_eq!(new, found(&[("two", Encoding::Json, &["- < c"])]));
        assert!(gone.is_empty(), "{gone:?}");

        let (new, gone) = unexplained(
            found(&[
                ("one", Encoding::Json, &[]),
                ("one", Encoding::Protobuf, one),
            ]),
            &known,
        );
        assert_eq!(new, found(&[("one", Encoding::Protobuf, one)]));
        assert_eq!(gone, ["one (json): It is so.", "no script is called two"]);
    }

    #[test]
    fn a_report_is_read_back_once_it_has_reasons() {
        let lines: &[&str] = &["- < a", "+ < b"];
        let found = found(&[
            ("one", Encoding::Json, lines),
            ("one", Encoding::Protobuf, lines),
            ("two", Encoding::Json, lines),
        ]);
        let report = report(&found).replace("why: ", "why: It is so.");
        let known = parse(&report).unwrap();
        let (new, gone) = unexplained(found, &known);
        assert!(
            new.is_empty() && gone.is_empty(),
            "{report}\n{new:?}\n{gone:?}"
        );
        assert!(parse("== one\n- < a\nwhy: \n").is_err());
    }
}
