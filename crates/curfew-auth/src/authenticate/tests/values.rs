//! Checks of a token's times, issuer and audience.

use super::*;

#[test]
fn leeway_is_counted_to_the_millisecond() {
    let clock = StoppedClock::at(NOW);
    let authenticator = Authenticator::new(&config([secret_issuer()]), clock.clone()).unwrap();
    let exp = token(json!({ "exp": NOW }));
    let nbf = token(json!({ "nbf": NOW }));
    let iat = token(json!({ "iat": NOW }));
    let expired = Some(AuthFailure::Expired);
    let early = Some(AuthFailure::NotYetValid);
    let now = NOW * 1000;
    let cases = [
        (&exp, now, None),
        (&exp, now + 4_000, None),
        (&exp, now + 4_999, None),
        (&exp, now + 5_000, expired),
        (&exp, now + 6_000, expired),
        (&exp, now + 3_600_000, expired),
        (&nbf, now, None),
        (&nbf, now - 5_000, None),
        (&nbf, now - 5_001, early),
        (&nbf, now - 3_600_000, early),
        (&iat, now - 5_000, None),
        (&iat, now - 5_001, early),
        (&iat, now - 3_600_000, early),
    ];
    for (token, millis, expected) in cases {
        clock.set_millis(millis);
        let failure = authenticator.authenticate(token).err().map(|e| e.failure());
        assert_eq!(
            failure,
            expected,
            "{} ms",
            i128::from(millis) - i128::from(now)
        );
    }
}

#[test]
fn a_session_ends_when_its_token_would_be_refused() {
    let clock = StoppedClock::at(NOW);
    let authenticator = Authenticator::new(&config([secret_issuer()]), clock.clone()).unwrap();
    let token = token(json!({ "exp": NOW + 10 }));
    let ends_at = authenticator.authenticate(&token).unwrap().ends_at();
    clock.set_millis(u64::try_from(ends_at.as_millis()).unwrap() - 1);
    assert!(authenticator.authenticate(&token).is_ok());
    clock.set_millis(u64::try_from(ends_at.as_millis()).unwrap());
    let error = authenticator.authenticate(&token).unwrap_err();
    assert_eq!(error.to_string(), "expired: the token expired 5 s ago");
}

#[test]
fn a_lifetime_is_limited_only_when_configured() {
    let long = token(json!({"iat": NOW, "exp": NOW + 365 * 86_400}));
    let right = token(json!({"iat": NOW, "exp": NOW + 86_400}));
    let undated = token(json!({}));
    for token in [&long, &right, &undated] {
        assert_eq!(refusal(token), None);
    }
    let mut config = config([secret_issuer()]);
    config.max_token_lifetime = Duration::from_secs(86_400);
    assert_eq!(refusal_by(&config, &long), Some(AuthFailure::Malformed));
    assert_eq!(refusal_by(&config, &right), None);
    assert_eq!(
        refusal_by(&config, &undated),
        Some(AuthFailure::MissingClaim)
    );
}

#[test]
fn issuer_and_audience_are_exact() {
    let mut config = config([secret_issuer()]);
    config.issuers[0].issuer = Some("https://id.example.com".to_owned());
    config.issuers[0].audience = Some(vec!["curfew".to_owned(), "other".to_owned()]);
    let iss = "https://id.example.com";
    let cases = [
        (json!({"iss": iss, "aud": "curfew"}), None),
        (json!({"iss": iss, "aud": ["x", "other"]}), None),
        (json!({"aud": "curfew"}), Some(AuthFailure::MissingClaim)),
        (json!({"iss": iss}), Some(AuthFailure::MissingClaim)),
        (
            json!({"iss": iss, "aud": []}),
            Some(AuthFailure::WrongAudience),
        ),
        (
            json!({"iss": iss, "aud": "Curfew"}),
            Some(AuthFailure::WrongAudience),
        ),
        (
            json!({"iss": iss, "aud": ["curfew "]}),
            Some(AuthFailure::WrongAudience),
        ),
        (
            json!({"iss": format!("{iss}/"), "aud": "curfew"}),
            Some(AuthFailure::WrongIssuer),
        ),
        (
            json!({"iss": "", "aud": "curfew"}),
            Some(AuthFailure::WrongIssuer),
        ),
        (
            json!({"iss": "HTTPS://ID.EXAMPLE.COM", "aud": "curfew"}),
            Some(AuthFailure::WrongIssuer),
        ),
    ];
    for (claims, expected) in cases {
        assert_eq!(
            refusal_by(&config, &token(claims.clone())),
            expected,
            "{claims}"
        );
    }
}

#[test]
fn before_a_good_signature_nothing_is_said_about_the_claims() {
    let other = MintKey::Secret(OTHER_SECRET.as_bytes().to_vec());
    let mut config = config([secret_issuer()]);
    config.issuers[0].audience = Some(vec!["curfew".to_owned()]);
    let cases = [
        json!({"exp": NOW - 60, "aud": "curfew"}),
        json!({"nbf": NOW + 60, "aud": "curfew"}),
        json!({"aud": "other"}),
        json!({"aud": "curfew", "sub": null}),
        json!({}),
    ];
    for changes in cases {
        let claims = claims(changes);
        let forged = mint(&claims, None, Algorithm::HS256, &other).unwrap();
        assert_eq!(
            refusal_by(&config, &forged),
            Some(AuthFailure::BadSignature)
        );
        let own = mint(&claims, None, Algorithm::HS256, &hmac_key()).unwrap();
        assert_ne!(refusal_by(&config, &own), Some(AuthFailure::BadSignature));
    }
}

#[test]
fn fractions_of_a_second_extend_nothing() {
    let clock = StoppedClock::at(NOW);
    let authenticator = Authenticator::new(&config([secret_issuer()]), clock.clone()).unwrap();
    let with = |more: String| raw_token(HS256, &format!(r#"{{"sub":"alice",{more}}}"#));
    let exp = with(format!("\"exp\":{NOW}.9"));
    let nbf = with(format!("\"exp\":{},\"nbf\":{NOW}.1", NOW + 60));
    let iat = with(format!("\"exp\":{},\"iat\":{NOW}.1", NOW + 60));
    let (expired, early) = (Some(AuthFailure::Expired), Some(AuthFailure::NotYetValid));
    let now = NOW * 1000;
    for (token, millis, expected) in [
        (&exp, now + 4_999, None),
        (&exp, now + 5_000, expired),
        (&nbf, now - 4_000, None),
        (&nbf, now - 4_001, early),
        (&iat, now - 4_000, None),
        (&iat, now - 4_001, early),
    ] {
        clock.set_millis(millis);
        let failure = authenticator.authenticate(token).err().map(|e| e.failure());
        assert_eq!(failure, expected, "{millis}");
    }
    clock.set_millis(now);
    let principal = authenticator.authenticate(&iat).unwrap();
    assert_eq!(principal.issued_at(), Some(NOW));
    assert_eq!(authenticator.authenticate(&exp).unwrap().expires_at(), NOW);
}

/// The test's values are numbers beyond the range of a double, and halves of surrogate pairs, which
/// JSON can write as escapes.
#[test]
fn what_no_reader_takes_is_passed_over_where_nothing_uses_it() {
    let mut config = config([secret_issuer()]);
    config.claims_in_use = vec!["tenant".to_owned()];
    config.issuers[0].required_claims = [("azp".to_owned(), vec!["app".to_owned()])].into();
    let with = |more: &str| {
        let claims = format!(r#"{{"sub":"alice","exp":{},"azp":"app"{more}}}"#, NOW + 60);
        raw_token(HS256, &claims)
    };
    let authenticator = authenticator(&config);
    let unused = r#","nick":"\ud83d!","n":[-1e999,{"\udc00":"\ud83d\ude00\ud83d"}],"\ud800":1"#;
    let principal = authenticator.authenticate(&with(unused)).unwrap();
    let claims = principal.claims().parse();
    assert_eq!(claims["nick"], "\u{fffd}!");
    assert_eq!(
        claims["n"],
        json!([null, {"\u{fffd}": "\u{1f600}\u{fffd}"}])
    );
    assert_eq!(
        (&claims["azp"], &claims["\u{fffd}"]),
        (&json!("app"), &json!(1))
    );
    for (more, words) in [
        (
            r#","tenant":"\ud83d""#,
            "the tenant claim has half of a surrogate pair",
        ),
        (r#","tenant":[1e999]"#, "the tenant claim"),
        (
            r#","jti":"\ud83d""#,
            "the jti claim has half of a surrogate pair",
        ),
        (
            r#","aud":["\ud83d"]"#,
            "the aud claim has half of a surrogate pair",
        ),
        (r#","nbf":1e999"#, "the nbf claim is too large"),
        (
            r#","nbf":1800000000000"#,
            "the nbf claim looks like milliseconds",
        ),
    ] {
        let error = authenticator.authenticate(&with(more)).unwrap_err();
        assert_eq!(error.failure(), AuthFailure::Malformed, "{more}");
        assert!(error.message().contains(words), "{more}: {error}");
    }
}
