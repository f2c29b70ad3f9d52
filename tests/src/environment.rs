//! A gateway with variables in its environment.

use std::path::PathBuf;

use crate::{Gateway, Settings};

impl Gateway {
    /// Like [`Gateway::start_with`], with these environment variables in addition to those that
    /// every test sets.
    pub async fn start_with_variables(settings: &Settings, variables: &[(&str, &str)]) -> Self {
        let environment: Vec<_> = variables
            .iter()
            .map(|(name, value)| (*name, PathBuf::from(value)))
            .collect();
        let directory = tempfile::tempdir().expect("a directory");
        Self::spawn(directory, &settings.to_toml(), &environment).await
    }
}
