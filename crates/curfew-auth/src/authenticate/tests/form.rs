//! Refusals of a token's form: its parts, its alphabet and its header.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;

const MALFORMED: Option<AuthFailure> = Some(AuthFailure::Malformed);

fn good_payload() -> String {
    Value::Object(claims(json!({}))).to_string()
}

#[test]
fn a_good_token_becomes_a_principal() {
    let payload = format!(
        r#"{{"roles":["a"],"jti":"t\u0031","iat":{NOW},"sub":"\u0061lice","exp":{}}}"#,
        NOW + 60
    );
    let authenticator = authenticator(&config([secret_issuer()]));
    let principal = authenticator
        .authenticate(&raw_token(HS256, &payload))
        .unwrap();
    assert_eq!(principal.user(), "alice");
    assert_eq!(principal.issuer(), "main");
    assert_eq!(principal.token_id(), Some("t1"));
    assert_eq!(principal.issued_at(), Some(NOW));
    assert_eq!(principal.expires_at(), NOW + 60);
    assert_eq!(principal.ends_at(), Duration::from_secs(NOW + 65));
    assert_eq!(principal.claims().as_json(), payload);
}

#[test]
fn headers_are_judged_strictly() {
    let long_kid = format!(r#"{{"alg":"HS256","kid":"{}"}}"#, "k".repeat(257));
    let deep = format!(
        r#"{{"alg":"HS256","x":{}{}}}"#,
        "[".repeat(16),
        "]".repeat(16)
    );
    let refused = [
        r#"{"alg":"none"}"#,
        r#"{"alg":"None"}"#,
        r#"{"alg":"noNE"}"#,
        r#"{"alg":"hs256"}"#,
        r#"{"alg":""}"#,
        r#"{"alg":" HS256"}"#,
        r#"{"alg":256}"#,
        r#"{"alg":null}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":"ES512"}"#,
        r#"{"typ":"JWT"}"#,
        r#"{"alg":"HS256","alg":"HS256"}"#,
        r#"{"alg":"HS256","\u0061lg":"HS256"}"#,
        r#"{"alg":"HS256","x":1,"x":1}"#,
        r#"{"alg":"HS256","x":{"y":1,"y":1}}"#,
        r#"{"alg":"HS256","crit":["exp"]}"#,
        r#"{"alg":"HS256","crit":[]}"#,
        r#"{"alg":"HS256","crit":null}"#,
        r#"{"alg":"HS256","b64":false}"#,
        r#"{"alg":"HS256","b64":true}"#,
        r#"{"alg":"HS256","zip":"DEF"}"#,
        r#"{"alg":"HS256","zip":null}"#,
        r#"{"alg":"HS256","typ":"logout+jwt"}"#,
        r#"{"alg":"HS256","typ":"secevent+jwt"}"#,
        r#"{"alg":"HS256","typ":"dpop+jwt"}"#,
        r#"{"alg":"HS256","typ":"application/secevent+jwt"}"#,
        r#"{"alg":"HS256","typ":""}"#,
        r#"{"alg":"HS256","typ":null}"#,
        r#"{"alg":"HS256","typ":["JWT"]}"#,
        r#"{"alg":"HS256","kid":1}"#,
        r#"{"alg":"HS256","kid":null}"#,
        r#"{"alg":"HS256"} x"#,
        r#"{"alg":"HS256",}"#,
        r#"["HS256"]"#,
        r#""HS256""#,
        "",
        &long_kid,
        &deep,
    ];
    for header in refused {
        assert_eq!(
            refusal(&raw_token(header, &good_payload())),
            MALFORMED,
            "{header}"
        );
    }
    let longest_kid = format!(r#"{{"alg":"HS256","kid":"{}"}}"#, "k".repeat(256));
    let accepted = [
        r#"{"alg":"HS256"}"#,
        r#"{"alg":"HS256","typ":"JWT"}"#,
        r#"{"alg":"HS256","typ":"jwt"}"#,
        r#"{"alg":"HS256","typ":"at+jwt"}"#,
        r#"{"alg":"HS256","typ":"AT+JWT"}"#,
        r#"{"alg":"HS256","typ":"application/at+jwt"}"#,
        r#" { "typ" : "JWT" , "alg" : "HS256" } "#,
        r#"{"alg":"HS256","cty":"x","extra":{"a":[1,2.5,-3,true,null,"s"]}}"#,
        r#"{"alg":"HS256","jku":"http://127.0.0.1:1/","x5u":7,"jwk":{"kty":"oct","k":"AAAA"},"x5c":["AAAA"]}"#,
        &longest_kid,
    ];
    for header in accepted {
        assert_eq!(
            refusal(&raw_token(header, &good_payload())),
            None,
            "{header}"
        );
    }
}

#[test]
fn a_key_brought_by_the_token_is_not_read() {
    let header =
        r#"{"alg":"HS256","jwk":{"kty":"oct","k":"ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA"}}"#;
    let own_key = MintKey::Secret(OTHER_SECRET.as_bytes().to_vec());
    let token = mint_text(
        header,
        good_payload().as_bytes(),
        Algorithm::HS256,
        &own_key,
    )
    .unwrap();
    assert_eq!(refusal(&token), Some(AuthFailure::BadSignature));
}

#[test]
fn what_is_not_three_base64url_parts_is_malformed() {
    let good = token(json!({}));
    assert_eq!(refusal(&good), None);
    let parts: Vec<&str> = good.split('.').collect();
    let [header, payload, signature] = parts[..] else {
        panic!("{good}")
    };
    let json_form = json!({"payload": payload, "protected": header, "signature": signature});
    let refused = [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "a.b.c".to_owned(),
        format!("{header}.{payload}"),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}.AAAA.AAAA"),
        format!("{header}..{signature}"),
        format!("{good}="),
        format!("{header}=.{payload}.{signature}"),
        format!(" {good}"),
        format!("{good}\n"),
        format!("{header}. {payload}.{signature}"),
        format!("{good}+"),
        format!("{good}\0"),
        format!("{good}é"),
        format!("{good}AA"),
        json_form.to_string(),
    ];
    for token in &refused {
        assert_eq!(refusal(token), MALFORMED, "{token:?}");
    }
}

#[test]
fn an_encrypted_token_is_called_by_its_name() {
    let authenticator = authenticator(&config([secret_issuer()]));
    let error = authenticator.authenticate("AA.AA.AA.AA.AA").unwrap_err();
    assert_eq!(error.failure(), AuthFailure::Malformed);
    assert!(error.message().contains("JWE"), "{error}");
}

#[test]
fn a_token_is_as_long_as_is_configured() {
    // One payload byte more adds one or two characters to the token.
    let padded = |length: usize| token(json!({"x": "x".repeat(length)}));
    let longest = (11_000..12_400)
        .map(padded)
        .filter(|token| token.len() <= 16_384)
        .max_by_key(String::len)
        .unwrap();
    assert!(longest.len() >= 16_383);
    assert_eq!(refusal(&longest), None);
    let shortest_over = (11_000..12_400)
        .map(padded)
        .find(|token| token.len() > 16_384)
        .unwrap();
    assert_eq!(refusal(&shortest_over), MALFORMED);
    assert_eq!(refusal(&format!("{longest:A<16385}")), MALFORMED);
}

#[test]
fn payloads_are_objects_without_repeated_names_and_not_too_deep() {
    let exp = NOW + 60;
    let with = |more: &str| format!(r#"{{"sub":"alice","exp":{exp}{more}}}"#);
    let nested = |levels: usize| {
        with(&format!(
            r#","x":{}1{}"#,
            "[".repeat(levels),
            "]".repeat(levels)
        ))
    };
    let refused = [
        with(r#","sub":"alice""#),
        with(r#","sub":"mallory""#),
        with(r#","\u0073ub":"mallory""#),
        with(&format!(r#","exp":{exp}"#)),
        with(r#","role":"user","role":"admin""#),
        with(r#","a":{"role":"user","role":"admin"}"#),
        with(r#","a":[{"b":1,"b":1}]"#),
        with(r#","\ud800":1,"\ud801":2"#),
        with(r#","x":01"#),
        with(","),
        nested(16),
        nested(200),
        with("").replace('}', ""),
        format!("{} {{}}", with("")),
        format!("[{}]", with("")),
        "null".to_owned(),
        "7".to_owned(),
        "\u{feff}{}".to_owned(),
    ];
    for payload in &refused {
        assert_eq!(refusal(&raw_token(HS256, payload)), MALFORMED, "{payload}");
    }
    for payload in [with(""), nested(15), with(r#","x":{"sub":7,"exp":null}"#)] {
        assert_eq!(refusal(&raw_token(HS256, &payload)), None, "{payload}");
    }
}

#[test]
fn payload_bytes_that_are_not_utf8_are_malformed() {
    let payload = b"{\"sub\":\"\xff\",\"exp\":1900000000}";
    let token = mint_text(HS256, payload, Algorithm::HS256, &hmac_key()).unwrap();
    assert_eq!(refusal(&token), MALFORMED);
}

#[test]
fn changing_any_character_of_a_token_makes_it_refused() {
    let good = token(json!({"jti": "t1"}));
    let authenticator = authenticator(&config([secret_issuer()]));
    for at in 0..good.len() {
        let mut bytes = good.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        let failure = authenticator.authenticate(&changed).unwrap_err().failure();
        assert!(
            matches!(failure, AuthFailure::Malformed | AuthFailure::BadSignature),
            "{failure} at {at}"
        );
    }
}

#[test]
fn no_refusal_quotes_the_token() {
    let canary = "canary-8f1c";
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let tokens = [
        canary.to_owned(),
        format!(
            "{}.{}.AAAA",
            encode(&format!(r#"{{"alg":"{canary}"}}"#)),
            encode("{}")
        ),
        token(json!({"sub": [canary]})),
        token(json!({"exp": canary})),
        token(json!({"iss": canary, canary: 1, "exp": NOW - 60})),
        raw_token(HS256, &format!(r#"{{"{canary}":1,"{canary}":2}}"#)),
    ];
    let mut config = config([secret_issuer()]);
    config.issuers[0].issuer = Some("https://id.example.com".to_owned());
    let authenticator = authenticator(&config);
    for token in tokens {
        let error = authenticator.authenticate(&token).unwrap_err();
        let shown = format!("{error} {error:?} {}", error.www_authenticate());
        assert!(!shown.contains(canary), "{shown}");
    }
}
