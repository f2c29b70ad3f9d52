//! Numbers as Redis parses and prints them.
//!
//! Owns: the rules for texts of integers and floats, and `%.17g`. Knows nothing of: replies, keys.

/// An integer in its canonical spelling: no plus sign, no leading zeros, no space.
pub(super) fn integer(text: &[u8]) -> Option<i64> {
    let (is_negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits == b"0" && !is_negative {
        return Some(0);
    }
    if !matches!(digits, [b'1'..=b'9', ..]) {
        return None;
    }
    let mut number = 0_i64;
    for digit in digits {
        let digit = match digit {
            b'0'..=b'9' => i64::from(digit - b'0'),
            _ => return None,
        };
        number = number.checked_mul(10)?;
        number = match is_negative {
            true => number.checked_sub(digit)?,
            false => number.checked_add(digit)?,
        };
    }
    Some(number)
}

/// A float, or an infinity; never a NaN.
pub(super) fn float(text: &[u8]) -> Option<f64> {
    let number: f64 = str::from_utf8(text).ok()?.parse().ok()?;
    (!number.is_nan()).then_some(number)
}

/// A score as Redis prints it: C's `%.17g`.
pub(super) fn double(number: f64) -> String {
    const DIGITS: usize = 17;
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    if number.fract() == 0.0 && number.abs() < 1e17 {
        return format!("{number:.0}");
    }
    let scientific = format!("{number:.*e}", DIGITS - 1);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..DIGITS as i32).contains(&exponent) {
        let decimals = usize::try_from(DIGITS as i32 - 1 - exponent).unwrap_or_default();
        return trimmed(&format!("{number:.decimals$}")).to_owned();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", trimmed(mantissa), exponent.abs())
}

/// The text without trailing zeros of a fraction.
fn trimmed(text: &str) -> &str {
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_one_spelling() {
        for (text, number) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("-9223372036854775808", Some(i64::MIN)),
            ("1a", None),
            ("+1", None),
            ("-0", None),
            ("01", None),
            (" 1", None),
            ("", None),
            ("-", None),
        ] {
            assert_eq!(integer(text.as_bytes()), number, "{text:?}");
        }
    }

    #[test]
    fn doubles_are_printed_with_seventeen_digits() {
        for (number, text) in [
            (0.0, "0"),
            (-3.0, "-3"),
            (1.1, "1.1000000000000001"),
            (0.5, "0.5"),
            (1_764_379_200_123.0, "1764379200123"),
            (1e17, "1e+17"),
            (1.5e300, "1.5000000000000001e+300"),
            (1e-5, "1.0000000000000001e-05"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(double(number), text);
        }
    }
}
