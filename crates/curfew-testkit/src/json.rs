//! Comparison of JSON with an expectation.
//!
//! In the expectation, `"<any>"` stands for any value. `"<string>"`, `"<number>"` and `"<bool>"`
//! stand for any value of the named type. A member named `"*"` in an object of the expectation
//! allows the compared object to have further members.

use serde_json::Value;

/// True if `value` is as `expect` describes, with exactly the same members.
pub fn matches(expect: &Value, value: &Value) -> bool {
    compare(expect, value, false)
}

/// True if `value` is as `expect` describes; objects may have more members, at every depth.
pub fn contains(expect: &Value, value: &Value) -> bool {
    compare(expect, value, true)
}

fn compare(expect: &Value, value: &Value, subset: bool) -> bool {
    match (expect, value) {
        (Value::String(placeholder), _) if placeholder == "<any>" => true,
        (Value::String(placeholder), _) if placeholder == "<string>" => value.is_string(),
        (Value::String(placeholder), _) if placeholder == "<number>" => value.is_number(),
        (Value::String(placeholder), _) if placeholder == "<bool>" => value.is_boolean(),
        (Value::Object(expect), Value::Object(value)) => {
            let open = subset || expect.contains_key("*");
            let named = || expect.iter().filter(|(name, _)| *name != "*");
            named().all(|(name, expect)| {
                value
                    .get(name)
                    .is_some_and(|value| compare(expect, value, subset))
            }) && (open || named().count() == value.len())
        }
        (Value::Array(expect), Value::Array(value)) => {
            expect.len() == value.len()
                && expect
                    .iter()
                    .zip(value)
                    .all(|(expect, value)| compare(expect, value, subset))
        }
        _ => expect == value,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn placeholders_and_open_objects_match() {
        for (expect, value, exactly, as_subset) in [
            (json!({"a":1}), json!({"a":1}), true, true),
            (json!({"a":1}), json!({"a":1,"b":2}), false, true),
            (json!({"a":1,"*":0}), json!({"a":1,"b":2}), true, true),
            (json!({"a":"<any>"}), json!({"a":[{}]}), true, true),
            (json!({"a":"<any>"}), json!({}), false, false),
            (json!({"a":"<number>"}), json!({"a":"1"}), false, false),
            (json!([{"a":1}]), json!([{"a":1,"b":2}]), false, true),
            (json!([1]), json!([1, 2]), false, false),
        ] {
            assert_eq!(matches(&expect, &value), exactly, "{expect} {value}");
            assert_eq!(contains(&expect, &value), as_subset, "{expect} {value}");
        }
    }
}
