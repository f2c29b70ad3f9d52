//! The claims of a principal, which are parsed when a decision first needs them, and at most once.

use std::collections::HashMap;
use std::sync::OnceLock;

use cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelMap, CelNull, CelString, CelUInt,
};
use cel::common::value::Val;
use curfew_model::Claims;
use serde_json::{Map, Value};

/// Claims as text or parsed JSON, and other forms of them that are computed on demand.
pub(crate) struct LazyClaims<'a> {
    source: Source<'a>,
    parsed: OnceLock<Map<String, Value>>,
    converted: OnceLock<Converted>,
}

/// Claims in the form that conditions read.
pub(crate) struct Converted {
    pub(crate) map: CelMap<'static>,
    /// The number of values in the map, counted at every depth. The work of one operation on claims
    /// is at most proportional to this number.
    pub(crate) values: usize,
}

enum Source<'a> {
    Text(&'a Claims),
    Parsed(&'a Map<String, Value>),
}

impl<'a> LazyClaims<'a> {
    pub(crate) fn from_text(claims: &'a Claims) -> Self {
        Self::new(Source::Text(claims))
    }

    pub(crate) fn from_parsed(claims: &'a Map<String, Value>) -> Self {
        Self::new(Source::Parsed(claims))
    }

    fn new(source: Source<'a>) -> Self {
        Self {
            source,
            parsed: OnceLock::new(),
            converted: OnceLock::new(),
        }
    }

    /// The claims as JSON, for grants.
    pub(crate) fn json(&self) -> &Map<String, Value> {
        match self.source {
            Source::Parsed(claims) => claims,
            Source::Text(claims) => self.parsed.get_or_init(|| claims.parse()),
        }
    }

    #[cfg(test)]
    pub(crate) fn is_parsed(&self) -> bool {
        self.parsed.get().is_some() || self.converted.get().is_some()
    }

    /// The claims as a CEL map, for conditions.
    pub(crate) fn cel(&self) -> &Converted {
        self.converted.get_or_init(|| {
            let mut values = 0;
            let map = convert_object(self.json(), &mut values);
            Converted { map, values }
        })
    }
}

fn convert_object(object: &Map<String, Value>, values: &mut usize) -> CelMap<'static> {
    let entries: HashMap<_, _> = object
        .iter()
        .map(|(name, value)| (name.clone().into(), convert(value, values)))
        .collect();
    CelMap::from(entries)
}

/// Converts a JSON value. A number written without a fraction becomes `int` if it fits, like a
/// literal in a condition. The JSON parser limits the depth of the recursion.
fn convert(value: &Value, values: &mut usize) -> Box<dyn Val> {
    *values += 1;
    match value {
        Value::Null => Box::new(CelNull),
        Value::Bool(flag) => Box::new(CelBool::from(*flag)),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(int), ..) => Box::new(CelInt::from(int)),
            (None, Some(uint), _) => Box::new(CelUInt::from(uint)),
            (None, None, Some(double)) => Box::new(CelDouble::from(double)),
            (None, None, None) => Box::new(CelNull),
        },
        Value::String(text) => Box::new(CelString::from(text.clone())),
        Value::Array(elements) => {
            let elements: Vec<_> = elements.iter().map(|it| convert(it, values)).collect();
            Box::new(CelList::from(elements))
        }
        Value::Object(object) => Box::new(convert_object(object, values)),
    }
}
