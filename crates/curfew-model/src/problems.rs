//! The problems of a configuration, collected and reported together.

use std::fmt;

/// One problem of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// The key's full path, for example `auth.issuers[0].secret_file`.
    pub key: String,
    /// The problem and its solution, in one sentence.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

/// Collects [`Problem`]s while a configuration is checked section by section.
#[derive(Debug, Default)]
pub struct Problems {
    /// The names of the sections that enclose the current check, the outermost first.
    path: Vec<String>,
    found: Vec<Problem>,
    /// The warnings.
    doubts: Vec<Problem>,
}

impl Problems {
    /// Creates an empty collection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `check`. While `check` runs, `section` is the last part of the current path. The
    /// problems that `check` reports are below this path.
    pub fn within(&mut self, section: impl Into<String>, check: impl FnOnce(&mut Self)) {
        self.path.push(section.into());
        check(self);
        self.path.pop();
    }

    /// Reports that `key`, below the current path, is invalid. An empty `key` means the section
    /// itself.
    pub fn report(&mut self, key: &str, message: impl Into<String>) {
        let problem = self.problem(key, message);
        self.found.push(problem);
    }

    /// Warns that `key`, below the current path, may not have its intended effect. The
    /// configuration stays valid.
    pub fn warn(&mut self, key: &str, message: impl Into<String>) {
        let problem = self.problem(key, message);
        self.doubts.push(problem);
    }

    /// A problem of `key` below the current path.
    fn problem(&self, key: &str, message: impl Into<String>) -> Problem {
        let mut path = self.path.join(".");
        if !key.is_empty() {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(key);
        }
        Problem {
            key: path,
            message: message.into(),
        }
    }

    /// True if no problem was reported.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Takes the warnings, in order.
    pub fn take_warnings(&mut self) -> Vec<Problem> {
        std::mem::take(&mut self.doubts)
    }

    /// The reported problems, in order.
    pub fn into_vec(self) -> Vec<Problem> {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_nest() {
        let mut problems = Problems::new();
        problems.within("auth", |p| {
            p.within("issuers[0]", |p| p.report("secret", "too short"));
            p.report("", "no issuers");
        });
        let text: Vec<String> = problems
            .into_vec()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            text,
            ["auth.issuers[0].secret: too short", "auth: no issuers"]
        );
    }
}
