//! Tokens of the Centrifuge protocol: the claims that end a connection, and subscription tokens.

use curfew_model::SessionId;

use super::*;
use crate::{SubscriptionGrant, SubscriptionWish, TokenData};

/// Like [`config`], with the claims of the Centrifuge protocol.
fn spoken(issuers: impl IntoIterator<Item = Issuer>) -> AuthConfig {
    AuthConfig {
        centrifuge_claims: true,
        ..config(issuers)
    }
}

fn principal_of(config: &AuthConfig, changes: Value) -> Result<Arc<Principal>, AuthError> {
    authenticator(config).authenticate(&token(changes))
}

#[test]
fn a_session_ends_at_the_earlier_of_exp_and_expire_at() {
    let (with, without) = (spoken([secret_issuer()]), config([secret_issuer()]));
    for (expire_at, expected) in [
        (json!(NOW + 60), NOW + 60),
        (json!((NOW + 60) as f64 + 0.5), NOW + 60),
        (json!(NOW + 7200), NOW + 3600),
        (json!(0), NOW + 3600),
        (json!(-1), NOW + 3600),
        (Value::Null, NOW + 3600),
    ] {
        let changes = json!({ "expire_at": expire_at });
        let principal = principal_of(&with, changes.clone()).unwrap();
        assert_eq!(principal.expires_at(), expected, "{changes}");
        let principal = principal_of(&without, changes).unwrap();
        assert_eq!(principal.expires_at(), NOW + 3600);
    }
    for (expire_at, expected) in [
        (json!(NOW - 5), AuthFailure::Expired),
        (json!("soon"), AuthFailure::Malformed),
    ] {
        let changes = json!({ "expire_at": expire_at });
        let error = principal_of(&with, changes.clone()).unwrap_err();
        assert_eq!(error.failure(), expected);
        assert!(principal_of(&without, changes).is_ok());
    }
}

#[test]
fn expire_at_shortens_no_lifetime_that_is_too_long() {
    let mut config = spoken([secret_issuer()]);
    config.max_token_lifetime = Duration::from_secs(600);
    let changes = json!({ "iat": NOW, "exp": NOW + 601, "expire_at": NOW + 60 });
    let error = principal_of(&config, changes).unwrap_err();
    assert_eq!(error.failure(), AuthFailure::Malformed);
}

#[test]
fn a_subscription_token_opens_no_session_where_the_protocol_is_spoken() {
    for channel in [json!("news"), json!(""), json!(7)] {
        let changes = json!({ "channel": channel });
        let error = principal_of(&spoken([secret_issuer()]), changes.clone()).unwrap_err();
        assert_eq!(error.failure(), AuthFailure::Malformed);
        assert!(error.message().contains("subscription token"), "{error}");
        assert!(principal_of(&config([secret_issuer()]), changes).is_ok());
    }
}

#[test]
fn a_token_may_name_no_user_only_where_the_protocol_and_anonymous_users_are_admitted() {
    for (centrifuge_claims, anonymous) in
        [(false, false), (false, true), (true, false), (true, true)]
    {
        let config = AuthConfig {
            centrifuge_claims,
            anonymous,
            ..config([secret_issuer()])
        };
        // A change to `null` removes the claim.
        for sub in [Value::Null, json!("")] {
            let user = principal_of(&config, json!({ "sub": sub }));
            let user = user.map(|principal| principal.user().to_owned());
            match centrifuge_claims && anonymous {
                true => assert_eq!(user, Ok(String::new())),
                false => assert_eq!(user.unwrap_err().failure(), AuthFailure::MissingClaim),
            }
        }
    }
}

/// A session that subscribes.
struct Subscriber {
    config: AuthConfig,
    principal: Arc<Principal>,
    session: SessionId,
}

impl Subscriber {
    fn of(config: AuthConfig, changes: Value) -> Self {
        Self {
            principal: principal_of(&config, changes).unwrap(),
            config,
            session: SessionId::new(),
        }
    }

    fn alice() -> Self {
        Self::of(spoken([secret_issuer()]), json!({}))
    }

    async fn verify(&self, token: &str) -> Result<SubscriptionGrant, VerifyError> {
        let wish = SubscriptionWish {
            channel: "news",
            principal: &self.principal,
            session: self.session,
        };
        let authenticator = authenticator(&self.config);
        authenticator.verify_subscription(token, wish).await
    }

    /// The refusal of a token for the channel `news` whose claims are changed by `changes`; `None`
    /// if the token is accepted.
    async fn refusal(&self, changes: Value) -> Option<AuthError> {
        let mut claims = claims(json!({ "channel": "news" }));
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => drop(claims.remove(name)),
                value => drop(claims.insert(name.clone(), value.clone())),
            }
        }
        let token = mint(&claims, None, Algorithm::HS256, &hmac_key()).unwrap();
        match self.verify(&token).await {
            Ok(_) => None,
            Err(VerifyError::Refused(error)) => Some(error),
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_subscription_token_grants_what_it_says() {
    let token = token(json!({
        "channel": "news",
        "jti": "s1",
        "iat": NOW - 1,
        "expire_at": NOW + 60,
        "info": {"a": [1.50]},
        "b64data": "AP8",
        "override": {"presence": {"value": true}, "join_leave": {}, "force_recovery": null},
    }));
    let grant = Subscriber::alice().verify(&token).await.unwrap();
    let principal = &grant.principal;
    assert_eq!(principal.user(), "alice");
    assert_eq!(principal.token_id(), Some("s1"));
    assert_eq!(principal.issued_at(), Some(NOW - 1));
    assert_eq!(principal.expires_at(), NOW + 60);
    let claims = grant.claims;
    assert_eq!(claims.info, Some(TokenData::Json(r#"{"a":[1.5]}"#.into())));
    assert_eq!(claims.data, Some(TokenData::Bytes([0, 255].into())));
    assert_eq!(claims.overrides.presence, Some(true));
    assert_eq!(claims.overrides.join_leave, Some(false));
    assert_eq!(claims.overrides.force_recovery, None);
}

#[tokio::test]
async fn a_subscription_token_is_good_for_its_channel_user_and_session_alone() {
    let alice = Subscriber::alice();
    let session = alice.session.to_string();
    let other = SessionId::new().to_string();
    let wrong = Some(AuthFailure::WrongAudience);
    for (changes, expected) in [
        (json!({}), None),
        (json!({ "client": session }), None),
        (json!({ "client": "" }), None),
        (json!({ "client": other }), wrong),
        (json!({ "client": "x" }), wrong),
        (json!({ "channel": "news2" }), wrong),
        (json!({ "channel": "" }), wrong),
        (json!({ "sub": "bob" }), wrong),
        (json!({ "sub": null }), wrong),
        (json!({ "channel": null }), Some(AuthFailure::MissingClaim)),
        (json!({ "exp": null }), Some(AuthFailure::MissingClaim)),
        (json!({ "channel": 7 }), Some(AuthFailure::Malformed)),
        (json!({ "client": 7 }), Some(AuthFailure::Malformed)),
        (json!({ "expire_at": "x" }), Some(AuthFailure::Malformed)),
    ] {
        let refusal = alice.refusal(changes.clone()).await;
        let is_of_time = refusal.as_ref().is_some_and(AuthError::is_of_time);
        assert!(!is_of_time, "{changes}");
        let failure = refusal.map(|error| error.failure());
        assert_eq!(failure, expected, "{changes}");
    }
}

#[tokio::test]
async fn a_subscription_token_that_is_too_old_or_too_new_is_told_apart() {
    let alice = Subscriber::alice();
    for changes in [
        json!({ "exp": NOW - 5 }),
        json!({ "expire_at": NOW - 5 }),
        json!({ "nbf": NOW + 6 }),
    ] {
        let refusal = alice.refusal(changes.clone()).await.unwrap();
        assert!(refusal.is_of_time(), "{changes}: {refusal}");
    }
    let forged = mint(
        &claims(json!({ "channel": "news", "exp": NOW - 5 })),
        None,
        Algorithm::HS256,
        &MintKey::Secret(OTHER_SECRET.as_bytes().to_vec()),
    );
    let Err(VerifyError::Refused(error)) = alice.verify(&forged.unwrap()).await else {
        panic!("the forged token is not refused");
    };
    assert_eq!(error.failure(), AuthFailure::BadSignature);
}

#[tokio::test]
async fn a_subscription_token_without_a_user_is_for_anonymous_users() {
    let config = AuthConfig {
        anonymous: true,
        ..spoken([secret_issuer()])
    };
    let anonymous = Subscriber::of(config, json!({ "sub": null }));
    assert_eq!(anonymous.refusal(json!({ "sub": null })).await, None);
    assert_eq!(anonymous.refusal(json!({ "sub": "" })).await, None);
    assert!(anonymous.refusal(json!({})).await.is_some());
}

#[tokio::test]
async fn a_subscription_token_of_another_issuer_names_another_user() {
    let named = |name: &str, secret: &str| Issuer {
        name: name.to_owned(),
        issuer: Some(format!("https://{name}.example")),
        secret: Some(Secret::new(secret)),
        ..Issuer::default()
    };
    let config = spoken([named("one", SECRET), named("two", OTHER_SECRET)]);
    let alice = Subscriber::of(config, json!({ "iss": "https://one.example" }));
    let own = json!({ "iss": "https://one.example" });
    assert_eq!(alice.refusal(own).await, None);
    let theirs = claims(json!({ "iss": "https://two.example", "channel": "news" }));
    let key = MintKey::Secret(OTHER_SECRET.as_bytes().to_vec());
    let theirs = mint(&theirs, None, Algorithm::HS256, &key).unwrap();
    let Err(VerifyError::Refused(error)) = alice.verify(&theirs).await else {
        panic!("a user of the same name from another issuer is not refused");
    };
    assert_eq!(error.failure(), AuthFailure::WrongAudience);
}

#[tokio::test]
async fn in_development_a_token_may_be_undated_and_a_secret_short() {
    let issuer = Issuer {
        secret: Some(Secret::new("secret")),
        ..secret_issuer()
    };
    let mut config = spoken([issuer]);
    assert!(Authenticator::new(&config, StoppedClock::at(NOW)).is_err());
    config.development = true;
    config.anonymous = true;
    let key = MintKey::AnySecret(b"secret".to_vec());
    let token = |changes: Value| {
        let claims = claims(changes);
        mint(&claims, None, Algorithm::HS256, &key).unwrap()
    };
    let authenticator = authenticator(&config);
    let undated = token(json!({ "exp": null }));
    let principal = authenticator.authenticate(&undated).unwrap();
    assert_eq!(principal.expires_at(), NOW + 24 * 3600);
    assert!(!crate::ConnectionClaims::of(principal.claims()).expires);
    let dated = authenticator.authenticate(&token(json!({}))).unwrap();
    assert_eq!(dated.expires_at(), NOW + 3600);
    assert!(crate::ConnectionClaims::of(dated.claims()).expires);
    let wish = SubscriptionWish {
        channel: "news",
        principal: &principal,
        session: SessionId::new(),
    };
    let undated = token(json!({ "exp": null, "channel": "news" }));
    let grant = authenticator.verify_subscription(&undated, wish).await;
    assert!(!grant.unwrap().claims.expires);
    let old = token(json!({ "exp": NOW - 5 }));
    assert!(authenticator.authenticate(&old).is_err());
}
