//! Keys and values of revocations, which anyone with access to Redis can write.

use curfew_backend_redis::parsers;
use curfew_model::{Revocation, RevocationKey, TraceContext};

use crate::members::Members;

/// Checks that a revocation's value covers either every token or the tokens issued up to a time,
/// and that every spelling of a revocation's key is parsed as the same key.
///
/// # Panics
///
/// Curfew's parser and the independent parser in this file disagree.
pub fn check(bytes: &[u8]) -> bool {
    let read = Revocation::parse(bytes);
    let opinion = cutoff(bytes).unwrap_or_else(|| members(bytes).unwrap_or_default());
    assert_eq!(read, opinion, "{:?}", String::from_utf8_lossy(bytes));
    // `known` is the same value as the node reads it from Redis. There, a value of more than 4 KiB
    // covers every token.
    let known = parsers::revocation(Some(bytes.to_vec()), -1);
    let known = known.expect("a key without an expiry is a revocation too");
    match bytes.len() {
        ..=4096 => assert_eq!(known, read),
        _ => assert_eq!(
            known,
            Revocation::default(),
            "a value that is too long covers every token"
        ),
    }
    assert!(
        read.covers(None),
        "a token without a time of issue is covered by every revocation"
    );
    if let Some(before) = read.before {
        assert!(
            read.covers(Some(before)),
            "a token issued in the second of the cutoff is covered"
        );
        assert!(
            !read.covers(Some(before + 1)),
            "a token issued after the cutoff is not covered"
        );
    } else {
        assert!(
            read.covers(Some(u64::MAX)),
            "a revocation without a cutoff covers every token"
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

/// The revocation that the members of an object describe. `None` if the value is not an object, or
/// if one of these members is repeated or cannot be parsed.
fn members(value: &[u8]) -> Option<Revocation> {
    let members = Members::of(value)?;
    // A repeated member is ambiguous, so a value with a repeated member does not count as an
    // object.
    let member = |name| members.value(name);
    let (before, reason, trace) = (member("before")?, member("reason")?, member("trace")?);
    // This function uses the number's value, while Curfew's parser uses its digits.
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
