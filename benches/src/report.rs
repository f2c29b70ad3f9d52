//! Output of a measurement.

use serde::Serialize;
use serde_json::Value;

/// A measurement's result as JSON. Both output formats use it.
pub(crate) fn of(report: &impl Serialize) -> anyhow::Result<Value> {
    Ok(serde_json::to_value(report)?)
}

/// Prints the result as one line of JSON, or as one line for each figure.
pub(crate) fn print(report: &Value, json: bool) {
    if json {
        println!("{report}");
        return;
    }
    let mut lines = Vec::new();
    flatten("", report, &mut lines);
    let width = lines
        .iter()
        .map(|(name, _)| name.len())
        .max()
        .unwrap_or_default();
    for (name, value) in lines {
        println!("{name:width$}  {value}");
    }
}

fn flatten(prefix: &str, value: &Value, lines: &mut Vec<(String, String)>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let name = if prefix.is_empty() {
                    name.clone()
                } else {
                    format!("{prefix}.{name}")
                };
                flatten(&name, value, lines);
            }
        }
        Value::Number(number) if number.is_f64() => {
            let number = number.as_f64().unwrap_or_default();
            let digits = if number.abs() < 100.0 { 3 } else { 0 };
            lines.push((prefix.to_owned(), format!("{number:.digits$}")));
        }
        other => lines.push((prefix.to_owned(), other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_figure_has_a_line() {
        let mut lines = Vec::new();
        flatten(
            "",
            &json!({"a":{"b":1.23456,"c":12345.6},"d":null,"e":7}),
            &mut lines,
        );
        let lines: Vec<_> = lines
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(lines, ["a.b=1.235", "a.c=12346", "d=null", "e=7"]);
    }
}
