//! The grants a token carries: `{"subscribe":["room:*"],"publish":["room:1"]}`.

use curfew_model::{Action, Channel};
use serde_json::Value;

use curfew_model::pattern;

/// Returns true if `grants`, the claim's value, allows `action` on `channel`. Malformed parts grant
/// nothing: a claim that is not an object, an action without a list, or an entry that is not a
/// string or not a pattern. An entry with braces grants nothing either. Braces capture a segment
/// for the condition of a policy rule, and a grant has no condition.
pub(crate) fn allow(grants: &Value, action: Action, channel: &Channel) -> bool {
    let Some(entries) = grants.get(action.as_str()).and_then(Value::as_array) else {
        return false;
    };
    entries.iter().filter_map(Value::as_str).any(|entry| {
        !entry.contains(['{', '}'])
            && pattern::check(entry).is_ok()
            && pattern::matches(entry, channel.as_str(), |_, _| {})
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_grants_allow() {
        for (grants, channel, expect) in [
            (r#"{"publish":["room:1"]}"#, "room:1", true),
            (r#"{"publish":["room:1"]}"#, "room:2", false),
            (r#"{"publish":["a","room:*"]}"#, "room:2:x", true),
            (r#"{"publish":["*"]}"#, "any", true),
            (r#"{"subscribe":["room:1"]}"#, "room:1", false),
            (r#"{"Publish":["room:1"]}"#, "room:1", false),
            (r#"{"publish":["room:{id}"]}"#, "room:1", false),
            (r#"{"publish":["room:{id}"]}"#, "room:{id}", false),
            (r#"{"publish":["room*"]}"#, "room1", false),
            (r#"{"publish":["room*"]}"#, "room*", false),
            (r#"{"publish":["*:1"]}"#, "room:1", false),
            (r#"{"publish":["",7,null,["room:1"]]}"#, "room:1", false),
            (r#"{"publish":[7,"room:1"]}"#, "room:1", true),
            (r#"{"publish":"room:1"}"#, "room:1", false),
            (r#"{"publish":{"0":"room:1"}}"#, "room:1", false),
            (r#"["room:1"]"#, "room:1", false),
            (r#""room:1""#, "room:1", false),
            ("true", "room:1", false),
            ("null", "room:1", false),
        ] {
            let claim: Value = serde_json::from_str(grants).unwrap();
            let channel = Channel::parse(channel).unwrap();
            assert_eq!(
                allow(&claim, Action::Publish, &channel),
                expect,
                "{grants} on {channel}"
            );
        }
    }
}
