//! Findings, and how they are told.

use serde::Serialize;

use crate::output;

/// One comparison.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    /// All is well as far as this goes.
    well: bool,
    /// The event that would follow.
    finding: String,
    /// The change to make, or what else there is to know.
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<String>,
}

/// All of them, in order.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    pub(super) fn good(&mut self, finding: impl Into<String>) {
        self.0.push(Finding {
            well: true,
            finding: finding.into(),
            change: None,
        });
    }

    /// All is well, and there is more to know.
    pub(super) fn note(&mut self, finding: impl Into<String>, more: impl Into<String>) {
        self.0.push(Finding {
            well: true,
            finding: finding.into(),
            change: Some(more.into()),
        });
    }

    pub(super) fn bad(&mut self, finding: impl Into<String>, change: impl Into<String>) {
        self.0.push(Finding {
            well: false,
            finding: finding.into(),
            change: Some(change.into()),
        });
    }

    pub(super) fn are_well(&self) -> bool {
        self.0.iter().all(|finding| finding.well)
    }

    pub(super) fn all(&self) -> &[Finding] {
        &self.0
    }

    /// One in a line, and below it the change to make.
    pub(super) fn to_text(&self) -> String {
        let mut text = String::new();
        for finding in &self.0 {
            text += &output::verdict(finding.well, &finding.finding);
            if let Some(change) = &finding.change {
                text += &format!("      {}\n", output::clean(change));
            }
        }
        text
    }
}
