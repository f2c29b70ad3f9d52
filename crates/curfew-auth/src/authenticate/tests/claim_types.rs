//! Every registered claim with a value of every type (the subject of CVE-2026-25537).

use super::*;

/// JSON texts of every type; `None` leaves the claim out.
const VALUES: [Option<&str>; 14] = [
    None,
    Some("null"),
    Some(r#""text""#),
    Some(r#""""#),
    Some("1900000000"),
    Some("1900000000.0"),
    Some("19e8"),
    Some("-1"),
    Some("18446744073709551615"),
    Some("1e300"),
    Some("true"),
    Some(r#"["text"]"#),
    Some(r#"["text",1]"#),
    Some(r#"{"text":1}"#),
];

/// A payload of good claims in which the claim `name` has the JSON text `value`.
fn payload(name: &str, value: Option<&str>) -> String {
    let good = [
        ("iss", r#""text""#),
        ("sub", r#""alice""#),
        ("aud", r#""text""#),
        ("exp", "1900000000"),
        ("nbf", "1700000000"),
        ("iat", "1700000000"),
        ("jti", r#""t1""#),
    ];
    let members: Vec<String> = good
        .iter()
        .filter_map(|(good_name, good_value)| {
            let value = if *good_name == name {
                value
            } else {
                Some(*good_value)
            };
            Some(format!(r#""{good_name}":{}"#, value?))
        })
        .collect();
    format!("{{{}}}", members.join(","))
}

#[test]
fn a_claim_of_the_wrong_type_is_malformed_and_never_absent() {
    let malformed = Some(AuthFailure::Malformed);
    let missing = Some(AuthFailure::MissingClaim);
    let too_early = Some(AuthFailure::NotYetValid);
    let mut config = config([secret_issuer()]);
    config.issuers[0].issuer = Some("text".to_owned());
    config.issuers[0].audience = Some(vec!["text".to_owned()]);
    let authenticator = authenticator(&config);
    // `expected` is the refusal of a token whose claim `name` has this value; `None` if the token
    // is accepted.
    let expected = |name: &str, value: Option<&str>| match (name, value) {
        ("exp" | "sub" | "iss" | "aud", None) => missing,
        (_, None) => None,
        ("exp", Some("1900000000" | "1900000000.0" | "19e8")) => None,
        ("nbf" | "iat", Some("1900000000" | "1900000000.0" | "19e8")) => too_early,
        // .NET writes its smallest date as a negative number, because it is before 1970.
        ("exp", Some("-1")) => Some(AuthFailure::Expired),
        ("nbf" | "iat", Some("-1")) => None,
        ("iss" | "sub" | "aud" | "jti", Some(r#""text""#)) => None,
        ("iss", Some(r#""""#)) => Some(AuthFailure::WrongIssuer),
        ("aud", Some(r#""""#)) => Some(AuthFailure::WrongAudience),
        ("sub", Some(r#""""#)) => missing,
        ("jti", Some(r#""""#)) => None,
        ("aud", Some(r#"["text"]"#)) => None,
        _ => malformed,
    };
    for name in ["iss", "sub", "aud", "exp", "nbf", "iat", "jti"] {
        for value in VALUES {
            let result = authenticator.authenticate(&raw_token(HS256, &payload(name, value)));
            let failure = result.as_ref().err().map(AuthError::failure);
            assert_eq!(
                failure,
                expected(name, value),
                "{name}: {value:?}: {result:?}"
            );
            if let Err(error) = result
                && matches!(
                    failure,
                    Some(AuthFailure::Malformed | AuthFailure::MissingClaim)
                )
            {
                assert!(
                    error.message().contains(name),
                    "{error} does not name {name}"
                );
            }
        }
    }
}

#[test]
fn claims_that_are_not_required_are_judged_by_type_all_the_same() {
    for (name, value) in [("iss", json!(7)), ("aud", json!(7)), ("aud", json!([7]))] {
        let token = token(json!({ name: value }));
        assert_eq!(refusal(&token), Some(AuthFailure::Malformed), "{name}");
    }
    for claims in [json!({"aud": []}), json!({"iss": "x", "aud": ["y", "z"]})] {
        assert_eq!(refusal(&token(claims.clone())), None, "{claims}");
    }
}

#[test]
fn dates_end_at_two_to_the_power_of_40() {
    assert_eq!(refusal(&token(json!({"exp": (1_u64 << 40) - 1}))), None);
    for exp in [1_u64 << 40, u64::MAX - 1] {
        assert_eq!(
            refusal(&token(json!({ "exp": exp }))),
            Some(AuthFailure::Malformed)
        );
    }
    let minus_zero = raw_token(HS256, r#"{"sub":"a","exp":1900000000,"nbf":-0}"#);
    assert_eq!(refusal(&minus_zero), None);
}

#[test]
fn tokens_of_other_kinds_are_malformed() {
    for name in ["events", "cnf"] {
        for value in [json!({}), json!({"a": {}}), json!(1)] {
            let token = token(json!({ name: value }));
            assert_eq!(refusal(&token), Some(AuthFailure::Malformed), "{name}");
        }
        let null = format!(r#"{{"sub":"a","exp":1900000000,"{name}":null}}"#);
        assert_eq!(
            refusal(&raw_token(HS256, &null)),
            Some(AuthFailure::Malformed)
        );
    }
}

#[test]
fn another_claim_can_name_the_user() {
    let mut config = config([secret_issuer()]);
    config.subject_claim = "email".to_owned();
    let authenticator = authenticator(&config);
    let user = |claims: Value| {
        authenticator
            .authenticate(&token(claims))
            .map(|principal| principal.user().to_owned())
            .map_err(|error| error.to_string())
    };
    assert_eq!(
        user(json!({"email": "a@example.com"})),
        Ok("a@example.com".to_owned())
    );
    assert_eq!(
        user(json!({"email": "a@example.com", "sub": null})),
        Ok("a@example.com".to_owned())
    );
    assert_eq!(
        user(json!({})),
        Err("missing_claim: the token has no email claim".to_owned())
    );
    assert_eq!(
        user(json!({"email": 7})),
        Err(
            "malformed: the email claim is not a string; auth.numeric_subjects allows integers too"
                .to_owned()
        )
    );
    assert_eq!(
        user(json!({"email": "a", "sub": 7})),
        Err(
            "malformed: the sub claim is not a string; auth.numeric_subjects allows integers too"
                .to_owned()
        )
    );
    assert_eq!(
        user(json!({"email": 7.5})),
        Err("malformed: the email claim is not a string".to_owned())
    );
}

#[test]
fn any_text_can_be_a_user() {
    let subjects = [
        "\u{1b}[31m",
        "a\r\nb",
        "\u{202e}x",
        "\0",
        " ",
        &"x".repeat(5000),
    ];
    let authenticator = authenticator(&config([secret_issuer()]));
    for subject in subjects {
        let principal = authenticator
            .authenticate(&token(json!({ "sub": subject })))
            .unwrap();
        assert_eq!(principal.user(), subject);
    }
}
