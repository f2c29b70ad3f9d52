use serde_json::{Value, json};

use super::*;
use crate::keys::PROVIDER;

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The public key in a PEM file of the test keys, as a JWK.
pub(crate) fn jwk(file: &str, kid: &str) -> Value {
    let path = format!("{}/tests/keys/{file}", env!("CARGO_MANIFEST_DIR"));
    let pem = std::fs::read(path).unwrap();
    let der = |key: jsonwebtoken::DecodingKey| key.try_get_as_bytes().unwrap().to_vec();
    if let Ok(key) = jsonwebtoken::DecodingKey::from_rsa_pem(&pem) {
        let (n, e) = (PROVIDER.key_utils.rsa_pub_components_from_public_key)(&der(key)).unwrap();
        return json!({"kty": "RSA", "kid": kid, "n": encode(&n), "e": encode(&e)});
    }
    if let Ok(key) = jsonwebtoken::DecodingKey::from_ec_pem(&pem) {
        let point = der(key);
        let (x, y) = point[1..].split_at(point.len() / 2);
        let crv = match x.len() {
            32 => "P-256",
            48 => "P-384",
            _ => "P-521",
        };
        return json!({"kty": "EC", "kid": kid, "crv": crv, "x": encode(x), "y": encode(y)});
    }
    let x = der(jsonwebtoken::DecodingKey::from_ed_pem(&pem).unwrap());
    json!({"kty": "OKP", "kid": kid, "crv": "Ed25519", "x": encode(&x)})
}

/// A JSON Web Key Set of `keys`.
pub(crate) fn jwks(keys: impl IntoIterator<Item = Value>) -> Value {
    json!({ "keys": keys.into_iter().collect::<Vec<_>>() })
}

/// `key` with the members of `changes`; `null` removes a member.
fn with(mut key: Value, changes: Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(key.as_object_mut().unwrap().remove(name)),
            value => key[name] = value.clone(),
        }
    }
    key
}

fn load(set: &Value) -> Result<KeySet, KeyError> {
    key_set(set.to_string().as_bytes(), None)
}

#[test]
fn the_kind_of_key_or_its_alg_decides_the_algorithms() {
    let rsa = jwk("rsa.pub.pem", "k");
    let (ec, ed) = (jwk("p256.pub.pem", "k"), jwk("ed25519.pub.pem", "k"));
    let cases: [(Value, &[Algorithm]); 8] = [
        (rsa.clone(), Algorithm::RSA),
        (
            with(rsa.clone(), json!({"alg": "PS256"})),
            &[Algorithm::PS256],
        ),
        (
            with(
                rsa,
                json!({"use": "sig", "key_ops": ["verify"], "x5c": [], "other": {}}),
            ),
            Algorithm::RSA,
        ),
        (
            with(ec.clone(), json!({"alg": "ES256"})),
            &[Algorithm::ES256],
        ),
        (ec, &[Algorithm::ES256]),
        (jwk("p384.pub.pem", "k"), &[Algorithm::ES384]),
        (
            with(ed.clone(), json!({"alg": "Ed25519"})),
            &[Algorithm::EdDSA],
        ),
        (with(ed, json!({"kid": null})), &[Algorithm::EdDSA]),
    ];
    for (key, algorithms) in cases {
        let set = load(&jwks([key.clone()])).unwrap();
        assert_eq!(set.keys[0].algorithms(), algorithms, "{key}");
        assert_eq!(set.keys[0].kid(), key["kid"].as_str());
        assert!(set.skipped.is_empty());
    }
}

#[test]
fn a_modulus_may_begin_with_zeros() {
    let rsa = jwk("rsa.pub.pem", "k");
    let n = URL_SAFE_NO_PAD.decode(rsa["n"].as_str().unwrap()).unwrap();
    let padded = encode(&[&[0, 0], n.as_slice()].concat());
    assert!(load(&jwks([with(rsa, json!({ "n": padded }))])).is_ok());
}

#[test]
fn keys_that_cannot_be_used_are_skipped_and_the_others_work() {
    let rsa = || jwk("rsa.pub.pem", "bad");
    let ec = || jwk("p256.pub.pem", "bad");
    let off_the_curve = encode(&[1; 32]);
    let huge = encode(&[0xff; 2048]);
    let cases = [
        (
            json!({"kty": "oct", "kid": "bad", "k": encode(&[7; 32])}),
            "shared secret",
        ),
        (with(rsa(), json!({"k": "AAAA"})), "shared secret"),
        (with(rsa(), json!({"d": "AAAA"})), "private"),
        (with(rsa(), json!({"p": 7})), "private"),
        (with(ec(), json!({"d": "AAAA"})), "private"),
        (with(rsa(), json!({"use": "enc"})), "use"),
        (with(rsa(), json!({"key_ops": ["encrypt"]})), "key_ops"),
        (with(rsa(), json!({"key_ops": []})), "key_ops"),
        (with(rsa(), json!({"alg": "RSA-OAEP"})), "alg"),
        (with(rsa(), json!({"alg": "none"})), "alg"),
        (with(rsa(), json!({"alg": "ES256"})), "alg"),
        (with(rsa(), json!({"alg": "HS256"})), "alg"),
        (with(ec(), json!({"alg": "ES384"})), "alg"),
        (jwk("rsa-1024.pub.pem", "bad"), "1024 bits"),
        (with(rsa(), json!({"n": huge})), "16384 bits"),
        (with(rsa(), json!({"n": ""})), "0 bits"),
        (with(rsa(), json!({"n": null})), "has no n"),
        (with(rsa(), json!({"n": "+/="})), "its n is base64:"),
        (with(rsa(), json!({"n": "AQAB=="})), "its n is padded"),
        (with(rsa(), json!({"e": "AQ AB"})), "its e is not base64url"),
        (with(rsa(), json!({"e": "AQ"})), "not a usable key"),
        (with(rsa(), json!({"e": "AA"})), "not a usable key"),
        (with(rsa(), json!({"e": "AQAA"})), "not a usable key"),
        (with(rsa(), json!({"n": 7})), "not a JSON Web Key"),
        (with(rsa(), json!({"kid": 7})), "not a JSON Web Key"),
        (with(ec(), json!({"x": off_the_curve})), "not a usable key"),
        (with(ec(), json!({"y": "AAAA"})), "not a usable key"),
        (with(ec(), json!({"crv": "P-384"})), "not a usable key"),
        (with(ec(), json!({"crv": "secp256k1"})), "not a usable key"),
        (with(ec(), json!({"crv": null})), "not a usable key"),
        (jwk("p521.pub.pem", "bad"), "not a usable key"),
        (
            json!({"kty": "OKP", "crv": "Ed448", "x": "AAAA"}),
            "not a usable key",
        ),
        (
            json!({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}),
            "not a usable key",
        ),
        (
            json!({"kty": "AKP", "alg": "ML-DSA-44"}),
            "not a usable key",
        ),
        (json!({"n": "AAAA"}), "not a JSON Web Key"),
        (json!("RSA"), "not a JSON Web Key"),
        (jwk("rsa-other.pub.pem", "good"), "earlier key"),
    ];
    for (bad, reason) in cases {
        let set = load(&jwks([jwk("rsa.pub.pem", "good"), bad.clone()])).unwrap();
        assert_eq!(set.keys.len(), 1, "{bad}");
        let skipped = set.skipped[0].to_string();
        assert!(
            skipped.starts_with("key 1") && skipped.contains(reason),
            "{skipped} for {bad}"
        );
        if reason != "earlier key" {
            let error = load(&jwks([bad])).unwrap_err().to_string();
            assert!(
                error.contains("no key of the set") && error.contains(reason),
                "{error}"
            );
        }
    }
}

#[test]
fn keys_may_share_a_kid_when_their_algorithms_differ() {
    let set = load(&jwks([jwk("rsa.pub.pem", "k"), jwk("p256.pub.pem", "k")])).unwrap();
    assert_eq!(set.keys.len(), 2);
}

#[test]
fn only_the_issuers_algorithms_are_kept() {
    let set = jwks([jwk("rsa.pub.pem", "rsa"), jwk("p256.pub.pem", "ec")]).to_string();
    let set = key_set(set.as_bytes(), Some(&[Algorithm::RS256])).unwrap();
    assert_eq!(set.keys[0].algorithms(), [Algorithm::RS256]);
    assert!(set.skipped[0].to_string().contains("(kid \"ec\")"));
}

#[test]
fn what_is_not_a_key_set_is_an_error() {
    for content in [
        "",
        "[]",
        "{}",
        "null",
        "<html>",
        r#"{"keys":{}}"#,
        r#"{"keys":[]"#,
    ] {
        let result = key_set(content.as_bytes(), None);
        assert!(matches!(result, Err(KeyError::NotKeySet)), "{content}");
    }
    assert!(matches!(load(&jwks([])), Err(KeyError::NoUsableKey(_))));
    let many = (0..101).map(|n| jwk("ed25519.pub.pem", &n.to_string()));
    assert!(matches!(load(&jwks(many)), Err(KeyError::TooManyKeys)));
}
