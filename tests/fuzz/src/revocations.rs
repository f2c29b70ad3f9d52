//! Keys and values of revocations, which anyone with access to Redis can write.

use curfew_backend_redis::parsers;
use curfew_model::{Revocation, RevocationKey, TraceContext};

use crate::members::Members;

/// Checks that a value covers every token or the tokens up to a time, and that all spellings of a
/// name give the same key.
///
/// # Panics
///
/// A reader differs from the second opinion.
pub fn check(bytes: &[u8]) -> bool {
    let read = Revocation::parse(bytes);
    let opinion = cutoff(bytes).unwrap_or_else(|| members(bytes).unwrap_or_default());
    assert_eq!(read, opinion, "{:?}", String::from_utf8_lossy(bytes));
    // The second value is what the node reads from Redis, which returns at most 4 KiB.
    let known = parsers::revocation(Some(bytes.to_vec()), -1);
    let known = known.expect("a key without an expiry is one");
    match bytes.len() {
        ..=4096 => assert_eq!(known, read),
        _ => assert_eq!(known, Revocation::default(), "too long to be looked at"),
    }
    assert!(
        read.covers(None),
        "a token without a time is covered by anything"
    );
    if let Some(before) = read.before {
        assert!(read.covers(Some(before)), "up to the second");
        assert!(!read.covers(Some(before + 1)), "and no later");
    } else {
        assert!(
            read.covers(Some(u64::MAX)),
            "without a time everyone is covered"
        );
    }
    let Ok((key, _)) = RevocationKey::parse_written(bytes) else {
        return false;
    };
    for spelling in key.spellings() {
        let written = key.written(spelling);
        let again = RevocationKey::parse_written(written.as_bytes());
        let (again, _) = again.unwrap_or_else(|why| panic!("{written:?}: {why:?}"));
        assert_eq!(again, key, "{written:?}");
    }
    true
}

/// Reads a cutoff from the digits of a time.
fn cutoff(value: &[u8]) -> Option<Revocation> {
    let mut digits = value.iter().map(|byte| char::from(*byte).to_digit(10));
    let number = digits.try_fold(0_u64, |sum, digit| {
        sum.checked_mul(10)?.checked_add(digit?.into())
    });
    let before = match value.len() {
        10..=11 => number?,
        13..=14 => number?.div_ceil(1000),
        _ => return None,
    };
    Some(Revocation {
        before: Some(before),
        ..Revocation::default()
    })
}

/// The revocation by the members of an object. `None` if the value is not such an object.
fn members(value: &[u8]) -> Option<Revocation> {
    let members = Members::of(value)?;
    // A repeated member is ambiguous, so the value then does not count as an object.
    let member = |name| members.value(name);
    let (before, reason, trace) = (member("before")?, member("reason")?, member("trace")?);
    // The second opinion uses the number's value, while the reader uses its digits.
    let before = before.as_f64().map(|before| before.ceil() as u64);
    Some(Revocation {
        before: before.and_then(|before| match before {
            1_000_000_000..100_000_000_000 => Some(before),
            1_000_000_000_000..100_000_000_000_000 => Some((before - 1) / 1000 + 1),
            _ => None,
        }),
        reason: reason.as_str().map(Into::into),
        expires_at: None,
        trace: trace.as_str().and_then(sampled).map(Box::new),
    })
}

/// A `traceparent` of version 00 (W3C Trace Context §3.2) with the sampled flag.
pub(crate) fn sampled(trace: &str) -> Option<TraceContext> {
    let parts: Vec<&str> = trace.split('-').collect();
    let [version, trace, parent, flags] = parts.as_slice() else {
        return None;
    };
    let number = |digits: &str, size: usize| {
        let is_hex = digits
            .bytes()
            .all(|byte| b"0123456789abcdef".contains(&byte));
        let whole = is_hex && digits.len() == size;
        u128::from_str_radix(digits, 16).ok().filter(|_| whole)
    };
    let (trace, parent) = (number(trace, 32)?, number(parent, 16)?);
    let sampled = number(flags, 2)? % 2 == 1 && *version == "00";
    let parent = u64::try_from(parent).ok()?;
    TraceContext::new(trace.to_be_bytes(), parent.to_be_bytes(), true).filter(|_| sampled)
}
