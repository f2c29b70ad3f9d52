//! Every kind of refused token, with the reason of the refusal (CONTRACT §3, SECURITY rows 15-31).

use curfew_testkit::mint::{Key, SECRET, claims, claims_with, encode, jwks};
use curfew_testkit::unix_now;
use curfew_tests::{Gateway, Settings};
use serde_json::json;

const ISSUER: &str = "https://id.example.com";

/// An issuer with every optional check configured.
fn strict() -> Settings {
    Settings::default().issuers(&format!(
        "[[auth.issuers]]\nname = \"main\"\nissuer = \"{ISSUER}\"\naudience = [\"curfew\", \"other\"]\n\
         algorithms = [\"HS256\"]\nsecret = \"{SECRET}\"\n"
    ))
}

fn good_claims() -> serde_json::Value {
    claims_with("alice", json!({"iss":ISSUER,"aud":"curfew"}))
}

fn text(more: &str) -> String {
    let now = unix_now();
    format!(
        r#"{{"sub":"alice","iss":"{ISSUER}","aud":"curfew","iat":{now},"exp":{}{more}}}"#,
        now + 3600
    )
}

async fn is_refused(gateway: &Gateway, token: &str, reasons: &[&str], what: &str) {
    let mut client = gateway.ws().bearer(token).open().await;
    let answer = client.next_json().await;
    assert_eq!(answer["type"], "auth_failed", "{what}: {answer}");
    let reason = answer["reason"].as_str().unwrap();
    assert!(
        reasons.contains(&reason),
        "{what}: the answer is {answer}, which has none of {reasons:?}"
    );
    assert_eq!(client.closed().await.0, 4401, "{what}");
}

#[tokio::test]
async fn claims_that_are_absent_wrong_or_late_have_their_reason() {
    let gateway = Gateway::start_with(&strict()).await;
    let key = Key::default_secret();
    let now = unix_now();
    let with = |more| {
        key.token(&{
            let mut claims = good_claims();
            let serde_json::Value::Object(more) = more else {
                unreachable!()
            };
            for (name, value) in more {
                match value {
                    serde_json::Value::Null => drop(claims.as_object_mut().unwrap().remove(&name)),
                    value => claims[name] = value,
                }
            }
            claims
        })
    };
    for more in [
        json!({}),
        json!({"aud":["x","other"]}),
        json!({"exp":now - 2}),
        json!({"nbf":now}),
        json!({"nbf":now + 3}),
        json!({"iat":null}),
    ] {
        let what = more.to_string();
        let (_, connected) = gateway.connected(gateway.ws().bearer(&with(more))).await;
        assert_eq!(connected["user"], "alice", "{what}");
    }
    for (more, reason) in [
        (json!({"exp":null}), "missing_claim"),
        (json!({"sub":null}), "missing_claim"),
        (json!({"iss":null}), "missing_claim"),
        (json!({"aud":null}), "missing_claim"),
        (json!({"exp":now - 7}), "expired"),
        (json!({"exp":1}), "expired"),
        (json!({"nbf":now + 3600}), "not_yet_valid"),
        (json!({"iat":now + 3600}), "not_yet_valid"),
        (json!({"iss":"https://evil.example"}), "wrong_issuer"),
        (json!({"iss":"https://id.example.com/"}), "wrong_issuer"),
        (json!({"iss":"HTTPS://ID.EXAMPLE.COM"}), "wrong_issuer"),
        (json!({"aud":"curfew2"}), "wrong_audience"),
        (json!({"aud":["a","b"]}), "wrong_audience"),
        (json!({"aud":[]}), "wrong_audience"),
    ] {
        let what = more.to_string();
        is_refused(&gateway, &with(more), &[reason], &what).await;
    }
}

#[tokio::test]
async fn a_registered_claim_of_the_wrong_type_is_malformed_never_absent() {
    let gateway = Gateway::start_with(&strict()).await;
    let key = Key::default_secret();
    let wrong_numbers = [
        "null",
        "\"123\"",
        "\"9999999999\"",
        "1e300",
        "1e999",
        "-1e999x",
        "01",
        "1.",
        "true",
        "[]",
        "{}",
        "[9999999999]",
    ];
    let wrong_strings = ["null", "7", "true", "1.5", "[]", "{}", "[\"alice\"]"];
    let wrong_audiences = [
        "null",
        "7",
        "true",
        "{}",
        "[7]",
        "[\"curfew\",7]",
        "[[\"curfew\"]]",
    ];
    let mut cases = Vec::new();
    for claim in ["exp", "iat", "nbf"] {
        cases.extend(wrong_numbers.map(|value| (claim, value)));
    }
    for claim in ["iss", "sub"] {
        cases.extend(wrong_strings.map(|value| (claim, value)));
    }
    cases.extend(wrong_audiences.map(|value| ("aud", value)));
    for (claim, value) in cases {
        let now = unix_now();
        let claims: Vec<String> = [
            ("sub", "\"alice\"".to_owned()),
            ("iss", format!("\"{ISSUER}\"")),
            ("aud", "\"curfew\"".to_owned()),
            ("iat", now.to_string()),
            ("exp", (now + 3600).to_string()),
        ]
        .into_iter()
        .filter(|(name, _)| *name != claim)
        .map(|(name, value)| format!("\"{name}\":{value}"))
        .chain([format!("\"{claim}\":{value}")])
        .collect();
        let claims = format!("{{{}}}", claims.join(","));
        let token = key.sign(&key.header().to_string(), &claims);
        is_refused(&gateway, &token, &["malformed"], &claims).await;
    }
}

#[tokio::test]
async fn numbers_at_the_edge_do_not_overflow() {
    let gateway = Gateway::start_with(&strict()).await;
    let key = Key::default_secret();
    for exp in [
        "18446744073709551615",
        "18446744073709551616",
        "9223372036854775807",
        "1e400",
        "99999999999999999999999999999999",
    ] {
        let claims = format!(
            r#"{{"sub":"alice","iss":"{ISSUER}","aud":"curfew","iat":{},"exp":{exp}}}"#,
            unix_now()
        );
        let token = key.sign(&key.header().to_string(), &claims);
        is_refused(&gateway, &token, &["malformed"], &claims).await;
    }
    gateway.assert_alive().await;
}

#[tokio::test]
async fn duplicate_members_and_claims_that_are_no_object_are_malformed() {
    let gateway = Gateway::start_with(&strict()).await;
    let key = Key::default_secret();
    let header = key.header().to_string();
    for claims in [
        text(r#","sub":"bob""#),
        text(r#","role":"user","role":"admin""#),
        text(r#","\u0073ub":"bob""#),
        text(r#","exp":9999999999"#),
        "[]".to_owned(),
        "7".to_owned(),
        "null".to_owned(),
        "{".to_owned(),
        String::new(),
        format!("{}x", text("")),
        text(&format!(",\"deep\":{}{}", "[".repeat(200), "]".repeat(200))),
        text(r#","events":{}"#),
        text(r#","events":{"http://schemas.openid.net/event/backchannel-logout":{}}"#),
    ] {
        is_refused(
            &gateway,
            &key.sign(&header, &claims),
            &["malformed"],
            &claims,
        )
        .await;
    }
    let not_utf8 = key.sign_bytes(header.as_bytes(), b"{\"sub\":\"\xff\"}");
    is_refused(&gateway, &not_utf8, &["malformed"], "not UTF-8").await;
}

#[tokio::test]
async fn headers_that_libraries_let_through_are_refused() {
    let gateway = Gateway::start_with(&strict()).await;
    let key = Key::default_secret();
    let claims = text("");
    for header in [
        r#"{"alg":"HS256","alg":"none"}"#,
        r#"{"alg":"HS256","crit":["exp"]}"#,
        r#"{"alg":"HS256","crit":[]}"#,
        r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
        r#"{"alg":"HS256","zip":"DEF"}"#,
        r#"{"alg":"HS256","typ":"logout+jwt"}"#,
        r#"{"alg":"HS256","typ":"secevent+jwt"}"#,
        r#"{"alg":"HS256","typ":"dpop+jwt"}"#,
        r#"{"alg":"HS256","typ":""}"#,
        r#"{"alg":"HS256","typ":7}"#,
        r#"{"alg":7}"#,
        r#"{"alg":null}"#,
        r#"{"typ":"JWT"}"#,
        r#"{"alg":"HS256","kid":7}"#,
        "[]",
        "{",
        "",
    ] {
        is_refused(&gateway, &key.sign(header, &claims), &["malformed"], header).await;
    }
    // The algorithm does not fit the key, so the token is never verified.
    for header in [
        r#"{"alg":"none"}"#,
        r#"{"alg":"None"}"#,
        r#"{"alg":"noNE"}"#,
        r#"{"alg":"hs256"}"#,
        r#"{"alg":""}"#,
        r#"{"alg":"HS384"}"#,
        r#"{"alg":"HS512"}"#,
        r#"{"alg":"RS256"}"#,
        r#"{"alg":"ES256K"}"#,
        r#"{"alg":"dir","enc":"A256GCM"}"#,
    ] {
        let token = key.sign(header, &claims);
        let reasons = ["malformed", "unknown_key", "bad_signature"];
        is_refused(&gateway, &token, &reasons, header).await;
        let unsigned = format!("{}.{}.", encode(header), encode(&claims));
        is_refused(&gateway, &unsigned, &reasons, header).await;
    }
    for header in [
        r#"{"alg":"HS256"}"#,
        r#"{"alg":"HS256","typ":"JWT"}"#,
        r#"{"alg":"HS256","typ":"at+jwt"}"#,
        r#"{"alg":"HS256","typ":"jwt","x":1}"#,
    ] {
        gateway.session(&key.sign(header, &claims)).await;
    }
}

#[tokio::test]
async fn what_is_not_a_signed_jwt_is_malformed() {
    let gateway = Gateway::start_with(&strict()).await;
    let key = Key::default_secret();
    let good = key.token(&good_claims());
    let parts: Vec<&str> = good.split('.').collect();
    let (header, claims, signature) = (parts[0], parts[1], parts[2]);
    for token in [
        "nonsense".to_owned(),
        ".".to_owned(),
        "..".to_owned(),
        format!("{header}.{claims}"),
        format!("{header}.{claims}.{signature}."),
        format!("{header}.{claims}.{signature}.x.y"),
        format!("{header}.{claims}.{signature}="),
        format!("{header}=.{claims}.{signature}"),
        format!("{header}.{claims}+.{signature}"),
        format!("{header}.{claims}/.{signature}"),
        format!(r#"{{"payload":"{claims}","signatures":[{{"signature":"{signature}"}}]}}"#),
    ] {
        is_refused(&gateway, &token, &["malformed"], &token).await;
    }
}

#[tokio::test]
async fn a_changed_signature_is_bad_and_comes_before_any_claim() {
    let gateway = Gateway::start_with(&strict()).await;
    let stranger = Key::hmac("HS256", &[1; 32]);
    let mut late = good_claims();
    late["exp"] = 1.into();
    for (token, what) in [
        (stranger.token(&good_claims()), "another key"),
        (stranger.token(&late), "another key, expired"),
        (
            {
                let good = Key::default_secret().token(&good_claims());
                let (signed, signature) = good.rsplit_once('.').unwrap();
                let first = if signature.starts_with('A') { "B" } else { "A" };
                format!("{signed}.{first}{}", &signature[1..])
            },
            "one character changed",
        ),
        (
            {
                let good = Key::default_secret().token(&good_claims());
                let parts: Vec<&str> = good.split('.').collect();
                format!(
                    "{}.{}.{}",
                    parts[0],
                    encode(text(r#","admin":true"#)),
                    parts[2]
                )
            },
            "other claims",
        ),
    ] {
        is_refused(&gateway, &token, &["bad_signature"], what).await;
    }
}

#[tokio::test]
async fn an_hmac_made_with_the_public_key_is_not_a_signature() {
    let directory = tempfile::tempdir().unwrap();
    let rsa = Key::rsa().with_kid("k1");
    std::fs::write(directory.path().join("key.pem"), rsa.public_pem()).unwrap();
    let settings = Settings::default().issuers(&format!(
        "[[auth.issuers]]\nname = \"main\"\nalgorithms = [\"RS256\"]\npublic_key_file = {:?}\n",
        directory.path().join("key.pem")
    ));
    let gateway = Gateway::start_in(directory, &settings.to_toml()).await;
    gateway.session(&rsa.user("alice")).await;
    let pem = rsa.public_pem();
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    for secret in [pem, pem.trim_end(), &body, &rsa.jwk().to_string()] {
        let forged = Key::hmac("HS256", secret.as_bytes());
        let reasons = ["bad_signature", "unknown_key", "malformed"];
        for header in [
            r#"{"alg":"HS256"}"#,
            r#"{"alg":"RS256"}"#,
            r#"{"alg":"HS256","kid":"k1"}"#,
        ] {
            let token = forged.sign(header, &claims("alice").to_string());
            is_refused(&gateway, &token, &reasons, header).await;
        }
    }
    for algorithm in ["PS256", "RS384", "RS512"] {
        let token = rsa.clone().using(algorithm).user("alice");
        let reasons = ["bad_signature", "unknown_key", "malformed"];
        is_refused(&gateway, &token, &reasons, algorithm).await;
    }
    let stranger = Key::other_rsa().user("alice");
    is_refused(&gateway, &stranger, &["bad_signature"], "another RSA key").await;
}

#[tokio::test]
async fn a_kid_is_only_ever_looked_up() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (
        Key::rsa().with_kid("one"),
        Key::generate("ES256").with_kid("two"),
    );
    std::fs::write(directory.path().join("keys.json"), jwks(&[&one, &two])).unwrap();
    let settings = Settings::default().issuers(&format!(
        "[[auth.issuers]]\nname = \"main\"\nalgorithms = [\"RS256\",\"ES256\"]\njwks_file = {:?}\n",
        directory.path().join("keys.json")
    ));
    let gateway = Gateway::start_in(directory, &settings.to_toml()).await;
    gateway.session(&one.user("alice")).await;
    gateway.session(&two.user("alice")).await;
    let long = "k".repeat(10 * 1024 / 2);
    for kid in ["../../etc/passwd", "' OR 1=1", "a\0b", "three", &long] {
        let token = one.clone().with_kid(kid).user("alice");
        is_refused(&gateway, &token, &["unknown_key", "malformed"], kid).await;
    }
    // One key signs the token, and its `kid` names the other key.
    let swapped = one.clone().with_kid("two").user("alice");
    let reasons = ["bad_signature", "unknown_key"];
    is_refused(&gateway, &swapped, &reasons, "the other key's kid").await;
}

#[tokio::test]
async fn a_key_of_one_issuer_never_verifies_a_token_of_another() {
    let (a, b) = ("a".repeat(32), "b".repeat(32));
    let settings = Settings::default().issuers(&format!(
        "[[auth.issuers]]\nname = \"a\"\nissuer = \"https://a.example\"\nsecret = \"{a}\"\n\
         [[auth.issuers]]\nname = \"b\"\nissuer = \"https://b.example\"\nsecret = \"{b}\"\n\
         audience = [\"b\"]\n"
    ));
    let gateway = Gateway::start_with(&settings).await;
    let (a, b) = (
        Key::hmac("HS256", a.as_bytes()),
        Key::hmac("HS256", b.as_bytes()),
    );
    let iss = |iss: &str| json!({"iss":format!("https://{iss}.example"),"aud":"b"});
    gateway.session(&a.user_with("alice", iss("a"))).await;
    gateway.session(&b.user_with("alice", iss("b"))).await;
    let crossed = a.user_with("alice", iss("b"));
    is_refused(&gateway, &crossed, &["bad_signature"], "a's key for b").await;
    let crossed = b.user_with("alice", iss("a"));
    is_refused(&gateway, &crossed, &["bad_signature"], "b's key for a").await;
    let third = a.user_with("alice", iss("c"));
    is_refused(&gateway, &third, &["wrong_issuer"], "nobody's").await;
    let none = a.user("alice");
    let reasons = ["missing_claim", "wrong_issuer", "unknown_key"];
    is_refused(&gateway, &none, &reasons, "no iss").await;
    // The issuer `b` still requires its own audience.
    let other = b.user_with("alice", json!({"iss":"https://b.example","aud":"a"}));
    is_refused(&gateway, &other, &["wrong_audience"], "b's audience").await;
}

/// Regression: the refusal of a token with an unsupported algorithm did not say that the algorithm
/// is not supported.
#[tokio::test]
async fn an_algorithm_that_is_not_supported_is_told_as_that() {
    let gateway = Gateway::start_default().await;
    for algorithm in ["ES512", "ES256K"] {
        let mut header = Key::default_secret().header();
        header["alg"] = json!(algorithm);
        let token = Key::default_secret().sign(&header.to_string(), &claims("alice").to_string());
        let mut client = gateway.ws().bearer(&token).open().await;
        let told = client.expect_auth_failed("malformed", 4401).await;
        let message = told["message"].as_str().unwrap();
        assert!(message.starts_with("algorithm not supported"), "{told}");
    }
}
