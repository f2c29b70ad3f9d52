use super::*;

/// Values that a claim may have.
fn values() -> Vec<String> {
    let mut values: Vec<String> = [
        "alice",
        "zoë",
        "zoe\u{308}",
        "jürgen@example.com",
        "a:b }{ c",
        "a\nb\0c",
        "~",
        "~short",
        "~a b",
        "arn:aws:iam::123456789012:user/division_abc/subdivision_xyz/Zürich",
        "CN=Zoë,OU=People,O=Example\\, Inc.,C=CH",
    ]
    .map(str::to_owned)
    .into();
    values.extend([200, 201, 16_000].map(|length| "x".repeat(length)));
    values
}

fn parse(written: &str) -> (RevocationKey, Spelling) {
    RevocationKey::parse_written(written.as_bytes()).unwrap()
}

#[test]
fn every_spelling_is_read_back_as_the_same_key() {
    for value in values() {
        let key = RevocationKey::claim("tenant", &value);
        for spelling in key.spellings() {
            let written = key.written(spelling);
            assert_eq!(parse(&written), (key.clone(), spelling), "{written:?}");
            let (read, _) = parse(&written);
            assert!(read.names(&value), "{written:?}");
            assert_ne!(read, RevocationKey::claim("user", &value));
            for other in values() {
                assert_eq!(read.names(&other), other == value, "{written:?} {other:?}");
                assert_eq!(
                    read == RevocationKey::claim("tenant", &other),
                    other == value
                );
            }
            let (_, text) = written.split_once(':').unwrap();
            let from_outside = RevocationKey::parse("tenant", text, &["tenant".to_owned()]);
            assert_eq!(from_outside, Ok(key.clone()));
        }
        assert_eq!(key.to_string(), key.written(key.own_spelling()));
    }
    for (written, key) in [
        ("all", RevocationKey::All),
        ("anonymous", RevocationKey::Anonymous),
    ] {
        assert_eq!(parse(written), (key.clone(), Spelling::Plain));
        assert_eq!(key.spellings().collect::<Vec<_>>(), [Spelling::Plain]);
        assert_eq!(key.written(Spelling::Plain), written);
        assert_eq!((key.kind(), key.to_string()), (written, written.to_owned()));
        assert_eq!((key.plain_value(), &*key.value()), (None, ""));
    }
}

#[test]
fn a_session_is_written_in_lower_or_in_upper_case_or_as_a_digest() {
    let id = "0198abcd-0000-7000-8000-00000000000f";
    let key = RevocationKey::session(id.parse().unwrap());
    assert_eq!(key.spellings().count(), 3);
    for spelling in key.spellings() {
        let (read, as_written) = parse(&key.written(spelling));
        assert_eq!((&read, as_written), (&key, spelling));
        assert!(read.names(id));
    }
    assert_eq!(
        key.written(Spelling::Upper),
        format!("session:{}", id.to_uppercase())
    );
    let digits = "01980000-0000-7000-8000-000000000000".parse().unwrap();
    assert_eq!(RevocationKey::session(digits).spellings().count(), 2);
}

#[test]
fn a_value_that_has_the_form_of_a_digest_is_found_by_both() {
    let digest = RevocationKey::user("zoë").value().into_owned();
    let keys: Vec<RevocationKey> = RevocationKey::of_claim("user", &digest).collect();
    let own = RevocationKey::user(&digest);
    assert_eq!(keys, [own.clone(), RevocationKey::user("zoë")]);
    assert_eq!(own.spellings().collect::<Vec<_>>(), [Spelling::Digest]);
    assert_ne!(own, RevocationKey::user("zoë"));
    // Two written keys name this value: one with the value itself, and one with the digest of the
    // value's text.
    assert!(parse(&format!("user:{digest}")).0.names(&digest));
    assert!(parse(&own.to_string()).0.names(&digest));
    assert!(!own.names("zoë"));
}

#[test]
fn curfew_writes_plain_values_or_digests() {
    let long = "x".repeat(201);
    for (value, expect) in [
        ("alice", "curfew:{revoked}:user:alice"),
        ("a b}c", "curfew:{revoked}:user:a b}c"),
        ("~x", "curfew:{revoked}:user:~"),
        ("zoë", "curfew:{revoked}:user:~"),
        ("a\nb", "curfew:{revoked}:user:~"),
        (long.as_str(), "curfew:{revoked}:user:~"),
    ] {
        let key = RevocationKey::user(value).redis_key("curfew:");
        assert!(key.starts_with(expect), "{value:?} gave {key}");
        let digits = if expect.ends_with('~') {
            DIGEST_CHARS
        } else {
            0
        };
        assert_eq!(key.len(), expect.len() + digits, "{key}");
    }
    // The digest was computed with `printf %s zoë | openssl dgst -sha256 -binary | basenc
    // --base64url`.
    let zoe = "~J1K4hoaEf6XIb0e5TOZSt7PyKpHDdhfUUaTbmvpDFFA";
    assert_eq!(RevocationKey::user("zoë").value(), zoe);
}

#[test]
fn what_can_match_nobody_says_why() {
    use Ineffective::{
        AllWithValue, AnonymousWithValue, EmptyValue, MixedCase, NotASession, NotUtf8, UnknownKind,
        WrongDigest,
    };
    let session = "session:0198ABCD-0000-7000-8000-00000000000f";
    for (written, expect) in [
        ("", UnknownKind),
        (":alice", UnknownKind),
        ("user", EmptyValue),
        ("user:", EmptyValue),
        ("all:x", AllWithValue),
        ("anonymous:", AnonymousWithValue),
        ("anonymous:x", AnonymousWithValue),
        (session, MixedCase),
        ("session:x", NotASession),
        ("session:~short", NotASession),
    ] {
        let parsed = RevocationKey::parse_written(written.as_bytes());
        assert_eq!(parsed, Err(expect), "{written:?}");
    }
    let parsed = RevocationKey::parse_written(b"user:zo\xeb");
    assert_eq!(parsed, Err(NotUtf8));
    for (written, expect) in [
        ("user:alice", None),
        ("tenant:acme", None),
        ("users:alice", Some(UnknownKind)),
        ("user:~short", Some(WrongDigest)),
        ("user:~not one", None),
    ] {
        let (key, spelling) = parse(written);
        let ineffective = key.ineffective(spelling, |kind| kind == "tenant");
        assert_eq!(ineffective, expect, "{written:?}");
    }
}

#[test]
fn kinds_from_outside_are_checked() {
    let claims = ["tenant".to_owned()];
    for (kind, value, expect) in [
        ("tenant", "a", Ok(RevocationKey::claim("tenant", "a"))),
        ("all", "", Ok(RevocationKey::All)),
        ("anonymous", "", Ok(RevocationKey::Anonymous)),
        ("anonymous", "anonymous", Ok(RevocationKey::Anonymous)),
        (
            "device",
            "a",
            Err(RevocationKeyError::UnknownKind("device".into())),
        ),
        ("user", "", Err(RevocationKeyError::EmptyValue)),
        ("session", "x", Err(RevocationKeyError::NotASession)),
    ] {
        assert_eq!(RevocationKey::parse(kind, value, &claims), expect);
    }
}
