//! The tables and examples of a Markdown page.

use std::fs;
use std::path::{Path, PathBuf};

/// The full path of a file, from its path in the repository.
pub(super) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// A page, and its path from the root of the repository.
pub(super) struct Page {
    path: &'static str,
    text: String,
}

impl Page {
    pub(super) fn read(path: &'static str) -> Self {
        let text = fs::read_to_string(repository(path))
            .unwrap_or_else(|error| panic!("{path} cannot be read: {error}"));
        Self { path, text }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The rows of the only table with the headings `columns`. Each row is a list of cells.
    pub(super) fn table(&self, columns: &[&str]) -> Vec<Vec<&str>> {
        let mut found = Vec::new();
        let mut lines = self.text.lines();
        while let Some(line) = lines.next() {
            if line.starts_with('|') && cells(line) == columns {
                lines.next();
                let rows = lines.by_ref().take_while(|line| line.starts_with('|'));
                found.push(rows.map(cells).collect::<Vec<_>>());
            }
        }
        assert_eq!(
            found.len(),
            1,
            "{} does not have exactly one table {columns:?}",
            self.path
        );
        let rows = found.remove(0);
        for row in &rows {
            assert_eq!(row.len(), columns.len(), "{}: {row:?}", self.path);
        }
        rows
    }

    /// The lines of all code blocks in `language`.
    pub(super) fn examples(&self, language: &str) -> Vec<&str> {
        let (start, mut inside, mut found) = (format!("```{language}"), false, Vec::new());
        for line in self.text.lines() {
            if line == start {
                inside = true;
            } else if line.starts_with("```") {
                inside = false;
            } else if inside {
                found.push(line);
            }
        }
        found
    }
}

fn cells(line: &str) -> Vec<&str> {
    let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
    inner.split('|').map(str::trim).collect()
}

/// The parts of `text` that stand in backticks.
pub(super) fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}
