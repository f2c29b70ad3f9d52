//! JSON as tokens may have it: one object, without repeated names at any level, and nested at most
//! 16 levels deep. The text is read completely, in one pass.

use std::borrow::Cow;

use curfew_model::json::{Kind, Rules, Scanned, scan};
use serde_json::Map;

pub(crate) use curfew_model::json::Value;

/// The depth counts objects and arrays, the outermost object included.
const RULES: Rules = Rules {
    max_depth: 16,
    strict: true,
};

/// A NumericDate must be less than this number (year 36812), so that no sum of times overflows.
const DATE_END: u64 = 1 << 40;

/// A number from [`DATE_END`] up to this number is taken for a date in milliseconds. As such a
/// date, this number is in the year 5138.
const MILLIS_END: u64 = 100_000_000_000_000;

/// The fault of a member, in the words sent to the client.
pub(crate) type Flaw = Cow<'static, str>;

/// Receives the members of an object one by one.
pub(crate) trait Members<'a> {
    /// Receives the member named `name`.
    fn member(&mut self, name: &str, value: Value<'a>) -> Result<(), Flaw>;
}

/// Reads `text` as one object. The error is the first flaw of a member, or `None` if the text is
/// not an object that [`RULES`] allow.
pub(crate) fn read<'a>(
    text: &'a str,
    members: &mut impl Members<'a>,
) -> Result<Scanned, Option<Flaw>> {
    let mut flaw = None;
    let scanned = scan(text, RULES, |name, value| {
        // A name that is not valid Unicode cannot be a known name, so the member is skipped.
        if let (None, Some(name)) = (&flaw, name.as_str()) {
            flaw = members.member(&name, value).err();
        }
    });
    match (scanned, flaw) {
        (_, Some(flaw)) => Err(Some(flaw)),
        (Ok(scanned), None) if scanned.is_object => Ok(scanned),
        _ => Err(None),
    }
}

/// The text of the member named `name`.
pub(crate) fn text<'a>(name: &str, value: Value<'a>) -> Result<Cow<'a, str>, Flaw> {
    value.as_str().ok_or_else(|| match value.is_string() {
        true => half_pair(name),
        false => format!("the {name} claim is not a string").into(),
    })
}

/// The user that the member named `name` holds: a text or, with `numeric`, an integer.
pub(crate) fn subject<'a>(
    name: &str,
    value: Value<'a>,
    numeric: bool,
) -> Result<Cow<'a, str>, Flaw> {
    match integer(value) {
        // `ReportRules::find` reads a numeric user as a 64-bit number, so a token's user must fit
        // into 64 bits too. Otherwise no report could name the user.
        Some(digits) if numeric && is_of_64_bits(digits) => Ok(Cow::Borrowed(digits)),
        Some(_) if numeric => {
            Err(format!("the {name} claim is an integer of more than 64 bits").into())
        }
        Some(_) => Err(format!(
            "the {name} claim is not a string; auth.numeric_subjects allows integers too"
        )
        .into()),
        None => text(name, value),
    }
}

fn is_of_64_bits(digits: &str) -> bool {
    digits.parse::<i64>().is_ok() || digits.parse::<u64>().is_ok()
}

/// The decimal text of a number written without point or exponent; `None` for any other value.
pub(crate) fn integer(value: Value<'_>) -> Option<&str> {
    let is_integer = value.kind == Kind::Number && !value.raw.contains(['.', 'e', 'E']);
    is_integer.then_some(match value.raw {
        "-0" => "0",
        digits => digits,
    })
}

/// The texts of the member named `name`: a string, or an array of strings.
pub(crate) fn texts<'a>(name: &str, value: Value<'a>) -> Result<Vec<Cow<'a, str>>, Flaw> {
    let elements = match value.kind {
        Kind::String { .. } => Some(vec![value]),
        Kind::Number | Kind::Other => value.elements(),
    };
    let no_texts = || format!("the {name} claim is neither a string nor an array of strings");
    let mut texts = Vec::new();
    for element in elements.ok_or_else(no_texts)? {
        texts.push(match (element.as_str(), element.is_string()) {
            (Some(text), _) => text,
            (None, true) => return Err(half_pair(name)),
            (None, false) => return Err(no_texts().into()),
        });
    }
    Ok(texts)
}

/// The value of the member named `name`. Refuses a value that parsing would change.
pub(crate) fn exact(name: &str, value: Value<'_>) -> Result<serde_json::Value, Flaw> {
    serde_json::from_str(value.raw).map_err(|_| {
        format!("the {name} claim has half of a surrogate pair, or a number that is too large")
            .into()
    })
}

/// The object that the member named `name` holds. Texts that are not valid Unicode are replaced.
pub(crate) fn object(name: &str, value: Value<'_>) -> Result<Map<String, serde_json::Value>, Flaw> {
    let scanned = scan(value.raw, RULES, |_, _| {}).ok();
    let plain = scanned.map(|scanned| scanned.plain(value.raw));
    let object = plain.and_then(|plain| serde_json::from_str(&plain).ok());
    object.ok_or_else(|| format!("the {name} claim is not an object").into())
}

fn half_pair(name: &str) -> Flaw {
    format!("the {name} claim has half of a surrogate pair").into()
}

/// A NumericDate (RFC 7519 §2): seconds since 1970, with or without a fraction. Earlier times count
/// as 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Date {
    whole: u64,
    has_fraction: bool,
}

impl Date {
    /// Reads the member named `name`, which must be a number of seconds below [`DATE_END`].
    pub(crate) fn read(name: &str, value: Value<'_>) -> Result<Self, Flaw> {
        if value.kind != Kind::Number {
            return Err(format!("the {name} claim is not a number of seconds").into());
        }
        let date = Self::parse(value.raw);
        match date.whole {
            ..DATE_END => Ok(date),
            DATE_END..MILLIS_END => Err(format!(
                "the {name} claim looks like milliseconds: it must be a number of seconds"
            )
            .into()),
            _ => Err(format!("the {name} claim is too large for a number of seconds").into()),
        }
    }

    /// Reads the text of a JSON number to the last digit, because a lost fraction could let a token
    /// outlive a revocation. A number that is too large becomes `u64::MAX`.
    fn parse(number: &str) -> Self {
        if number.starts_with('-') {
            return Self {
                whole: 0,
                has_fraction: false,
            };
        }
        let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
        let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let exponent = match exponent.parse::<i32>() {
            Ok(exponent) => i64::from(exponent),
            Err(_) if exponent.starts_with('-') => i64::from(i32::MIN),
            Err(_) => i64::from(i32::MAX),
        };
        // The number of digits before the decimal point.
        let point = i64::try_from(before.len())
            .unwrap_or(i64::MAX)
            .saturating_add(exponent);
        let (mut date, mut place) = (
            Self {
                whole: 0,
                has_fraction: false,
            },
            0,
        );
        for digit in before.bytes().chain(after.bytes()) {
            if place < point {
                date.add_digit(digit);
            } else {
                date.has_fraction |= digit != b'0';
            }
            place += 1;
        }
        while place < point && (1..u64::MAX).contains(&date.whole) {
            date.add_digit(b'0');
            place += 1;
        }
        date
    }

    fn add_digit(&mut self, digit: u8) {
        let digit = u64::from(digit - b'0');
        self.whole = self.whole.saturating_mul(10).saturating_add(digit);
    }

    /// The date in whole seconds, rounded down.
    pub(crate) fn down(self) -> u64 {
        self.whole
    }

    /// The date in whole seconds, rounded up.
    pub(crate) fn up(self) -> u64 {
        self.whole + u64::from(self.has_fraction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_to_the_last_digit() {
        for (number, down, up) in [
            ("0", 0, 0),
            ("-0", 0, 0),
            ("-1.5", 0, 0),
            ("-62135596800", 0, 0),
            ("1795885484", 1_795_885_484, 1_795_885_484),
            ("1795885484.0", 1_795_885_484, 1_795_885_484),
            ("1795885484.5", 1_795_885_484, 1_795_885_485),
            (
                "1795885484.00000000000000000000000001",
                1_795_885_484,
                1_795_885_485,
            ),
            (
                "1795885484.99999999999999999999999999",
                1_795_885_484,
                1_795_885_485,
            ),
            ("1.9e9", 1_900_000_000, 1_900_000_000),
            ("1.9E+9", 1_900_000_000, 1_900_000_000),
            ("19e8", 1_900_000_000, 1_900_000_000),
            ("1900000000500e-3", 1_900_000_000, 1_900_000_001),
            ("0.0000000019e18", 1_900_000_000, 1_900_000_000),
            ("1e-999999999999999999999", 0, 1),
            ("0e999999999999999999999", 0, 0),
            ("1e999", u64::MAX, u64::MAX),
            ("1e999999999999999999999", u64::MAX, u64::MAX),
            ("18446744073709551616", u64::MAX, u64::MAX),
        ] {
            let date = Date::parse(number);
            assert_eq!((date.down(), date.up()), (down, up), "{number}");
        }
    }
}
