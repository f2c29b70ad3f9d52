//! Remembered tokens.

use super::*;

fn es256(exp: u64) -> String {
    let claims = claims(json!({ "exp": exp }));
    mint(
        &claims,
        None,
        Algorithm::ES256,
        &private_key("p256.key.pem"),
    )
    .unwrap()
}

#[test]
fn a_token_that_comes_again_is_the_same_principal() {
    let authenticator = authenticator(&config([pem_issuer("p256.pub.pem")]));
    let token = es256(NOW + 60);
    let first = authenticator.authenticate(&token).unwrap();
    let again = authenticator.authenticate(&token).unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    let other = authenticator.authenticate(&es256(NOW + 61)).unwrap();
    assert!(!Arc::ptr_eq(&first, &other));
    // A token with a changed byte in its signature is another token, so it is not found among the
    // remembered tokens.
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let changed = if signature.starts_with('A') { "B" } else { "A" };
    let forged = format!("{signed}.{changed}{}", &signature[1..]);
    assert!(authenticator.authenticate(&forged).is_err());
}

#[test]
fn a_token_is_remembered_until_it_ends() {
    let clock = StoppedClock::at(NOW);
    let config = config([pem_issuer("p256.pub.pem")]);
    let authenticator = Authenticator::new(&config, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    let token = es256(NOW + 60);
    authenticator.authenticate(&token).unwrap();
    clock.set_millis((NOW + 65) * 1000 - 1);
    authenticator.authenticate(&token).unwrap();
    clock.set_millis((NOW + 65) * 1000);
    let ended = authenticator.authenticate(&token).unwrap_err();
    assert_eq!(ended.failure(), AuthFailure::Expired);
}

#[test]
fn a_change_of_keys_or_rules_forgets_every_token() {
    let authenticator = authenticator(&config([pem_issuer("p256.pub.pem")]));
    let token = es256(NOW + 60);
    authenticator.authenticate(&token).unwrap();
    let mut strict = config([pem_issuer("p256.pub.pem")]);
    strict.issuers[0].audience = Some(vec!["other".to_owned()]);
    reload(&authenticator, &strict).unwrap();
    assert!(authenticator.authenticate(&token).is_err());
    reload(&authenticator, &config([pem_issuer("rsa.pub.pem")])).unwrap();
    let error = authenticator.authenticate(&token).unwrap_err();
    assert_eq!(error.failure(), AuthFailure::UnknownKey);
}

#[test]
fn no_more_are_remembered_than_configured() {
    for (tokens, again) in [(0, false), (4, true)] {
        let config = AuthConfig {
            verified_tokens: tokens,
            ..config([pem_issuer("p256.pub.pem")])
        };
        let authenticator = authenticator(&config);
        let first = authenticator.authenticate(&es256(NOW + 60)).unwrap();
        let second = authenticator.authenticate(&es256(NOW + 60)).unwrap();
        // ECDSA signatures are random, so the same claims give another token each time.
        assert!(!Arc::ptr_eq(&first, &second));
        let token = es256(NOW + 60);
        let kept = authenticator.authenticate(&token).unwrap();
        let found = authenticator.authenticate(&token).unwrap();
        assert_eq!(Arc::ptr_eq(&kept, &found), again, "{tokens}");
        // Each generation holds two tokens. The token in use stays remembered, and each unused
        // token is forgotten.
        for more in 0..8 {
            authenticator.authenticate(&es256(NOW + 60 + more)).unwrap();
            let found = authenticator.authenticate(&token).unwrap();
            assert_eq!(Arc::ptr_eq(&kept, &found), again, "{tokens} after {more}");
        }
        for more in 0..8 {
            authenticator.authenticate(&es256(NOW + 60 + more)).unwrap();
        }
        let found = authenticator.authenticate(&token).unwrap();
        assert!(!Arc::ptr_eq(&kept, &found), "{tokens}");
    }
}
