//! The reference of the metrics: its table is equal to the metrics that the binary prints.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use curfew_tests::Gateway;

/// Path of the page in the repository.
const PAGE: &str = "crates/curfew/METRICS.md";

/// The head of the page's table.
const HEAD: &str = "| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n";

/// A metric family in `/metrics`.
#[derive(Default)]
struct Family {
    kind: String,
    help: String,
    /// The names of labels, each with its values, in the order of the output.
    labels: Vec<(String, Vec<String>)>,
}

impl Family {
    fn add(&mut self, series: &str) {
        let inside = series.split_once('{').map_or("", |(_, rest)| rest);
        let inside = inside.split_once('}').map_or("", |(inside, _)| inside);
        let pairs = inside.split(',').filter_map(|pair| pair.split_once('='));
        for (label, value) in pairs.filter(|(label, _)| *label != "le") {
            let known = self.labels.iter().position(|(name, _)| name == label);
            let at = known.unwrap_or_else(|| {
                self.labels.push((label.to_owned(), Vec::new()));
                self.labels.len() - 1
            });
            let (value, values) = (value.trim_matches('"').to_owned(), &mut self.labels[at].1);
            if !values.contains(&value) {
                values.push(value);
            }
        }
    }

    fn row(&self, name: &str) -> String {
        let suffix = match self.kind.as_str() {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        let labels: Vec<String> = self
            .labels
            .iter()
            .map(|(label, values)| match self.kind.as_str() {
                // The values of `info` differ between builds.
                "info" => format!("`{label}`"),
                _ => format!("`{label}`: {}", values.join(", ")),
            })
            .collect();
        let (kind, labels) = (&self.kind, labels.join("; "));
        format!("| `{name}{suffix}` | {kind} | {labels} | {} |\n", self.help)
    }
}

fn families(text: &str) -> BTreeMap<String, Family> {
    let (mut found, mut last) = (BTreeMap::<String, Family>::new(), String::new());
    for line in text.lines() {
        let said = |what: &str| line.strip_prefix(what)?.split_once(' ');
        if let Some((name, help)) = said("# HELP ") {
            last = name.to_owned();
            let before = found.insert(last.clone(), Family::default());
            assert!(before.is_none(), "{name} has two HELP lines");
            found.get_mut(&last).unwrap().help = help.to_owned();
        } else if let Some((name, kind)) = said("# TYPE ") {
            assert_eq!(
                name, last,
                "TYPE does not follow the HELP line of the same metric"
            );
            found.get_mut(&last).unwrap().kind = kind.to_owned();
        } else if let Some((name, unit)) = said("# UNIT ") {
            assert!(name == last && name.ends_with(unit), "{line}");
        } else if !line.starts_with('#') {
            assert!(line.starts_with(&last), "{line} does not belong to {last}");
            found.get_mut(&last).unwrap().add(line);
        }
    }
    found
}

/// Regression: no test noticed a change of the code that renamed a metric, or changed its labels,
/// help or type.
#[tokio::test]
async fn the_reference_says_what_the_binary_counts() {
    let gateway = Gateway::start_default().await;
    let families = families(&gateway.metrics().await);
    let rows: String = families
        .iter()
        .map(|(name, family)| family.row(name))
        .collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(PAGE);
    let page = fs::read_to_string(path).unwrap();
    let (_, table) = page.split_once(HEAD).expect("the page has the table");
    assert!(
        table == rows,
        "the table in {PAGE} differs from the binary's metrics, which make this table:\n\n{rows}"
    );
}
