//! Keys and values of revocations, which all with access to Redis write.

use curfew_model::{Revocation, RevocationKey};

/// A value covers everyone or those until a time; a name is the same in each of its spellings.
pub(crate) fn check(bytes: &[u8]) -> bool {
    let read = Revocation::parse(bytes);
    assert_eq!(read, Revocation::parse(bytes), "the same twice");
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
