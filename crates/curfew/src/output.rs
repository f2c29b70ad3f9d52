//! Output of commands: text and aligned tables, to a stdout that may be closed.

use std::io::{self, Write as _};

/// Prints `text` to stdout. A closed stdout is an error, where `println!` would panic.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Prints one JSON value and a line break.
pub(crate) fn print_json(value: &impl serde::Serialize) -> Result<(), crate::failure::Failure> {
    let mut text = serde_json::to_string(value)?;
    text.push('\n');
    Ok(print(&text)?)
}

/// Formats `rows` as lines with aligned columns under `heads`.
pub(crate) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let cells = |row: &[String]| row.iter().map(|cell| clean(cell)).collect::<Vec<_>>();
    let mut lines = vec![
        heads
            .iter()
            .map(|&head| head.to_owned())
            .collect::<Vec<_>>(),
    ];
    lines.extend(rows.iter().map(|row| cells(row)));
    let widths: Vec<usize> = (0..heads.len())
        .map(|column| {
            lines
                .iter()
                .map(|line| width(line, column))
                .max()
                .unwrap_or_default()
        })
        .collect();
    let mut text = String::new();
    for line in &lines {
        let mut written = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            written.push_str(cell);
            let padding = width.saturating_sub(cell.chars().count()) + 2;
            written.extend(std::iter::repeat_n(' ', padding));
        }
        text.push_str(written.trim_end());
        text.push('\n');
    }
    text
}

fn width(line: &[String], column: usize) -> usize {
    line.get(column).map_or(0, |cell| cell.chars().count())
}

/// A line with the verdict `ok` or `FAIL`, and `text`.
pub(crate) fn verdict(well: bool, text: &str) -> String {
    let mark = if well { "ok  " } else { "FAIL" };
    format!("{mark}  {}\n", clean(text))
}

/// Escapes control characters, because text from outside, such as a user's name, could otherwise
/// control the terminal. Characters that change the direction of text are escaped too.
pub(crate) fn clean(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let steers = c.is_control()
                || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            let escaped = steers.then(|| c.escape_default());
            let plain = (!steers).then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_control_characters_escaped() {
        let rows = [
            vec!["alice".to_owned(), "1".to_owned()],
            vec!["zoë\u{1b}[2J".to_owned(), "23".to_owned()],
        ];
        assert_eq!(
            table(&["USER", "SESSIONS"], &rows),
            "USER          SESSIONS\nalice         1\nzoë\\u{1b}[2J  23\n"
        );
    }
}
