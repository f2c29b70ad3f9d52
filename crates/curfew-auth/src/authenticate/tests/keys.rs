//! Algorithms, key sets and several issuers.

use curfew_model::Problems;

use super::*;
use crate::jwks::tests::{jwk, jwks};

const UNKNOWN_KEY: Option<AuthFailure> = Some(AuthFailure::UnknownKey);

fn signed(algorithm: Algorithm, key: &str, kid: Option<&str>, changes: Value) -> String {
    mint(&claims(changes), kid, algorithm, &private_key(key)).unwrap()
}

/// An issuer with a key set in `directory`.
fn set_issuer(directory: &tempfile::TempDir, name: &str, set: &Value) -> Issuer {
    let path = directory.path().join(format!("{name}.json"));
    std::fs::write(&path, set.to_string()).unwrap();
    Issuer {
        name: name.to_owned(),
        jwks_file: Some(path),
        ..Issuer::default()
    }
}

#[test]
fn every_algorithm_verifies_with_its_key_and_with_no_other() {
    let pairs = [
        (Algorithm::RS256, "rsa"),
        (Algorithm::RS384, "rsa"),
        (Algorithm::RS512, "rsa"),
        (Algorithm::PS256, "rsa"),
        (Algorithm::PS384, "rsa"),
        (Algorithm::PS512, "rsa"),
        (Algorithm::ES256, "p256"),
        (Algorithm::ES384, "p384"),
        (Algorithm::EdDSA, "ed25519"),
    ];
    for (algorithm, own) in pairs {
        let token = signed(algorithm, &format!("{own}.key.pem"), None, json!({}));
        for file in ["rsa", "p256", "p384", "ed25519"] {
            let config = config([pem_issuer(&format!("{file}.pub.pem"))]);
            let expected = if file == own { None } else { UNKNOWN_KEY };
            assert_eq!(
                refusal_by(&config, &token),
                expected,
                "{algorithm} by {file}"
            );
        }
        assert_eq!(refusal(&token), UNKNOWN_KEY, "{algorithm} by a secret");
    }
    for algorithm in Algorithm::HMAC {
        let token = mint(&claims(json!({})), None, *algorithm, &hmac_key()).unwrap();
        assert_eq!(refusal(&token), None, "{algorithm}");
    }
    let other = signed(Algorithm::RS256, "rsa-other.key.pem", None, json!({}));
    let config = config([pem_issuer("rsa.pub.pem")]);
    assert_eq!(refusal_by(&config, &other), Some(AuthFailure::BadSignature));
}

#[test]
fn ed25519_is_another_name_of_eddsa() {
    let payload = Value::Object(claims(json!({}))).to_string();
    let key = private_key("ed25519.key.pem");
    let header = r#"{"alg":"Ed25519"}"#;
    let token = mint_text(header, payload.as_bytes(), Algorithm::EdDSA, &key).unwrap();
    assert_eq!(
        refusal_by(&config([pem_issuer("ed25519.pub.pem")]), &token),
        None
    );
    assert_eq!(refusal(&token), UNKNOWN_KEY);
}

/// In CVE-2015-9235 and similar attacks, a token is signed by HMAC with the issuer's public key as
/// the secret.
#[test]
fn a_public_key_never_serves_as_an_hmac_secret() {
    let pem = std::fs::read_to_string(test_key("rsa.pub.pem")).unwrap();
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, body).unwrap();
    let set = jwks([jwk("rsa.pub.pem", "k1")]);
    let secrets = [
        pem.clone().into_bytes(),
        pem.trim_end().as_bytes().to_vec(),
        der,
        jwk("rsa.pub.pem", "k1").to_string().into_bytes(),
        set.to_string().into_bytes(),
    ];
    let directory = tempfile::tempdir().unwrap();
    let configs = [
        config([pem_issuer("rsa.pub.pem")]),
        config([set_issuer(&directory, "set", &set)]),
    ];
    for secret in secrets {
        for kid in [None, Some("k1")] {
            let key = MintKey::Secret(secret.clone());
            let token = mint(&claims(json!({})), kid, Algorithm::HS256, &key).unwrap();
            for config in &configs {
                assert_eq!(refusal_by(config, &token), UNKNOWN_KEY);
            }
            // A token signed by HMAC is refused too if its header names RS256, the algorithm of the
            // public key.
            let header = r#"{"alg":"RS256","kid":"k1"}"#;
            let token = mint_text(header, b"{}", Algorithm::HS256, &key).unwrap();
            for config in &configs {
                assert_eq!(refusal_by(config, &token), Some(AuthFailure::BadSignature));
            }
        }
    }
}

#[test]
fn an_issuer_accepts_only_its_algorithms() {
    let mut config = config([pem_issuer("rsa.pub.pem")]);
    config.issuers[0].algorithms = Some(vec![Algorithm::RS256, Algorithm::ES256]);
    let token = |algorithm| signed(algorithm, "rsa.key.pem", None, json!({}));
    assert_eq!(refusal_by(&config, &token(Algorithm::RS256)), None);
    assert_eq!(refusal_by(&config, &token(Algorithm::RS512)), UNKNOWN_KEY);
    assert_eq!(refusal_by(&config, &token(Algorithm::PS256)), UNKNOWN_KEY);

    config.issuers[0].algorithms = Some(vec![Algorithm::ES256]);
    let error = Authenticator::new(&config, StoppedClock::at(NOW)).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("none of the issuer's algorithms"),
        "{error}"
    );
}

#[test]
fn a_key_set_is_looked_up_by_kid() {
    let directory = tempfile::tempdir().unwrap();
    let mut only_rs512 = jwk("rsa-other.pub.pem", "rs512");
    only_rs512["alg"] = json!("RS512");
    let set = jwks([
        jwk("rsa.pub.pem", "rsa"),
        only_rs512,
        jwk("p256.pub.pem", "ec"),
    ]);
    let config = config([set_issuer(&directory, "set", &set)]);
    let bad = Some(AuthFailure::BadSignature);
    let nul = "rsa\0";
    let cases = [
        (Algorithm::RS256, "rsa.key.pem", Some("rsa"), None),
        (Algorithm::PS384, "rsa.key.pem", Some("rsa"), None),
        (Algorithm::RS512, "rsa-other.key.pem", Some("rs512"), None),
        (
            Algorithm::RS256,
            "rsa-other.key.pem",
            Some("rs512"),
            UNKNOWN_KEY,
        ),
        (Algorithm::RS256, "rsa-other.key.pem", Some("rsa"), bad),
        (Algorithm::ES256, "p256.key.pem", Some("ec"), None),
        (Algorithm::ES256, "p256.key.pem", Some("rsa"), UNKNOWN_KEY),
        // A header without `kid` needs exactly one fitting key.
        (Algorithm::ES256, "p256.key.pem", None, None),
        (Algorithm::RS256, "rsa.key.pem", None, None),
        (Algorithm::RS512, "rsa.key.pem", None, UNKNOWN_KEY),
        (Algorithm::RS256, "rsa.key.pem", Some(""), UNKNOWN_KEY),
        (Algorithm::RS256, "rsa.key.pem", Some("RSA"), UNKNOWN_KEY),
        (Algorithm::RS256, "rsa.key.pem", Some(nul), UNKNOWN_KEY),
        (
            Algorithm::RS256,
            "rsa.key.pem",
            Some("../../etc/passwd"),
            UNKNOWN_KEY,
        ),
        (
            Algorithm::RS256,
            "rsa.key.pem",
            Some("' OR 1=1"),
            UNKNOWN_KEY,
        ),
    ];
    for (algorithm, key, kid, expected) in cases {
        let token = signed(algorithm, key, kid, json!({}));
        assert_eq!(
            refusal_by(&config, &token),
            expected,
            "{algorithm} {key} {kid:?}"
        );
    }
}

#[test]
fn any_kid_fits_a_pem_file_or_a_secret() {
    let token = signed(
        Algorithm::ES256,
        "p256.key.pem",
        Some("whatever"),
        json!({}),
    );
    assert_eq!(
        refusal_by(&config([pem_issuer("p256.pub.pem")]), &token),
        None
    );
    let token = mint(&claims(json!({})), Some("x"), Algorithm::HS256, &hmac_key()).unwrap();
    assert_eq!(refusal(&token), None);
}

/// In CVE-2026-49998, a key is looked up by its `kid` alone, without its issuer.
#[test]
fn a_key_of_one_issuer_never_verifies_a_token_of_another() {
    let directory = tempfile::tempdir().unwrap();
    let mut a = set_issuer(&directory, "a", &jwks([jwk("rsa.pub.pem", "same")]));
    a.issuer = Some("https://a".to_owned());
    let mut b = set_issuer(&directory, "b", &jwks([jwk("rsa-other.pub.pem", "same")]));
    b.issuer = Some("https://b".to_owned());
    let bad = Some(AuthFailure::BadSignature);
    let by_a = |iss| {
        signed(
            Algorithm::RS256,
            "rsa.key.pem",
            Some("same"),
            json!({ "iss": iss }),
        )
    };
    let by_b = |iss| {
        signed(
            Algorithm::RS256,
            "rsa-other.key.pem",
            Some("same"),
            json!({ "iss": iss }),
        )
    };
    let orders = [config([a.clone(), b.clone()]), config([b, a])];
    for config in orders {
        // All cases use the same authenticator, to test that a token that it remembers does not
        // affect the next case.
        let authenticator = authenticator(&config);
        let cases = [
            (by_a("https://b"), bad),
            (by_a("https://a"), None),
            (by_a("https://b"), bad),
            (by_b("https://a"), bad),
            (by_b("https://b"), None),
            (by_b("https://a"), bad),
            (by_a("https://c"), Some(AuthFailure::WrongIssuer)),
            (by_a(""), Some(AuthFailure::WrongIssuer)),
            (
                signed(Algorithm::RS256, "rsa.key.pem", Some("same"), json!({})),
                UNKNOWN_KEY,
            ),
            (
                signed(Algorithm::RS256, "rsa.key.pem", None, json!({})),
                UNKNOWN_KEY,
            ),
        ];
        for (token, expected) in cases {
            let failure = authenticator
                .authenticate(&token)
                .err()
                .map(|e| e.failure());
            assert_eq!(failure, expected);
        }
        let principal = authenticator.authenticate(&by_b("https://b")).unwrap();
        assert_eq!(principal.issuer(), "b");
    }
}

#[test]
fn a_token_without_iss_is_matched_by_kid() {
    let directory = tempfile::tempdir().unwrap();
    let open = set_issuer(&directory, "open", &jwks([jwk("rsa.pub.pem", "open")]));
    let mut named = set_issuer(
        &directory,
        "named",
        &jwks([jwk("rsa-other.pub.pem", "named")]),
    );
    named.issuer = Some("https://named".to_owned());
    let config = config([open, named]);
    let bad = Some(AuthFailure::BadSignature);
    let cases = [
        ("rsa.key.pem", Some("open"), json!({}), None),
        (
            "rsa.key.pem",
            Some("open"),
            json!({"iss": "https://anybody"}),
            None,
        ),
        (
            "rsa.key.pem",
            Some("open"),
            json!({"iss": "https://named"}),
            UNKNOWN_KEY,
        ),
        (
            "rsa.key.pem",
            Some("named"),
            json!({"iss": "https://named"}),
            bad,
        ),
        ("rsa.key.pem", Some("named"), json!({}), bad),
        (
            "rsa-other.key.pem",
            Some("named"),
            json!({}),
            Some(AuthFailure::MissingClaim),
        ),
        ("rsa.key.pem", None, json!({}), UNKNOWN_KEY),
        ("rsa.key.pem", Some("neither"), json!({}), UNKNOWN_KEY),
        (
            "rsa.key.pem",
            Some("neither"),
            json!({"iss": "x"}),
            Some(AuthFailure::WrongIssuer),
        ),
    ];
    for (key, kid, changes, expected) in cases {
        let token = signed(Algorithm::RS256, key, kid, changes.clone());
        assert_eq!(
            refusal_by(&config, &token),
            expected,
            "{key} {kid:?} {changes}"
        );
    }
}

#[test]
fn issuers_without_iss_need_kids_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let mut unnamed = jwk("p256.pub.pem", "x");
    unnamed.as_object_mut().unwrap().remove("kid");
    let a = set_issuer(&directory, "a", &jwks([jwk("rsa.pub.pem", "same")]));
    let b = set_issuer(&directory, "b", &jwks([jwk("rsa-other.pub.pem", "same")]));
    let c = set_issuer(&directory, "c", &jwks([unnamed]));
    for (issuers, expected) in [
        ([a.clone(), b], "kid is also a kid"),
        ([a, c], "has no kid"),
    ] {
        let mut problems = Problems::new();
        crate::check_files(&config(issuers), &mut problems);
        let problems = problems.into_vec();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].key, "issuers[1].jwks_file");
        assert!(problems[0].message.contains(expected), "{problems:?}");
    }
}

#[test]
fn the_keys_in_force_can_be_listed() {
    let directory = tempfile::tempdir().unwrap();
    let mut set = set_issuer(
        &directory,
        "set",
        &jwks([jwk("p256.pub.pem", "ec"), jwk("ed25519.pub.pem", "ed")]),
    );
    set.issuer = Some("https://id.example.com".to_owned());
    let summaries = authenticator(&config([set])).issuers();
    assert_eq!(
        serde_json::to_value(summaries).unwrap(),
        json!([{
            "name": "set", "issuer": "https://id.example.com", "audience": null,
            "algorithms": ["ES256", "EdDSA"],
            "keys": [{"kid": "ec", "algorithms": ["ES256"]}, {"kid": "ed", "algorithms": ["EdDSA"]}],
            "opens_sessions": true,
        }])
    );
}
