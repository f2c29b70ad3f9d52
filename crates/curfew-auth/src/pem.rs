//! A public key from a PEM file.

use jsonwebtoken::DecodingKey;

use crate::KeyError;
use crate::keys::{Key, PROVIDER};

const BEGIN: &str = "-----BEGIN ";

/// Reads the one public key in `content`: SubjectPublicKeyInfo (`PUBLIC KEY`) of any supported
/// kind, or PKCS #1 (`RSA PUBLIC KEY`).
pub(crate) fn public_key(content: &[u8]) -> Result<Key, KeyError> {
    let text = std::str::from_utf8(content).map_err(|_| KeyError::NotPem)?;
    let labels: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix(BEGIN)?.strip_suffix("-----"))
        .collect();
    // This check comes first, because the JWT library would derive the public key from an RSA
    // private key.
    if labels.iter().any(|label| label.ends_with("PRIVATE KEY")) {
        return Err(KeyError::PrivateKey);
    }
    match labels.as_slice() {
        [] => Err(KeyError::NotPem),
        ["PUBLIC KEY" | "RSA PUBLIC KEY"] => from_block(content),
        ["CERTIFICATE", ..] => Err(KeyError::Certificate),
        [_] => Err(KeyError::Unsupported),
        _ => Err(KeyError::SeveralPemBlocks),
    }
}

/// Reads the key in a PEM block. The JWT library determines the key's type.
fn from_block(pem: &[u8]) -> Result<Key, KeyError> {
    if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
        let der = key.try_get_as_bytes().map_err(|_| KeyError::Unsupported)?;
        let (n, e) = (PROVIDER.key_utils.rsa_pub_components_from_public_key)(der)
            .map_err(|_| KeyError::Unsupported)?;
        return Key::from_rsa(&n, &e);
    }
    if let Ok(key) = DecodingKey::from_ec_pem(pem) {
        return Key::from_ec_point(key.try_get_as_bytes().map_err(|_| KeyError::Unsupported)?);
    }
    if let Ok(key) = DecodingKey::from_ed_pem(pem) {
        return Key::from_ed25519(key.try_get_as_bytes().map_err(|_| KeyError::Unsupported)?);
    }
    Err(KeyError::Unsupported)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Algorithm;

    #[test]
    fn the_kind_of_key_decides_its_algorithms() {
        let cases: [(&str, &[Algorithm]); 5] = [
            (include_str!("../tests/keys/rsa.pub.pem"), Algorithm::RSA),
            (
                include_str!("../tests/keys/rsa-pkcs1.pub.pem"),
                Algorithm::RSA,
            ),
            (
                include_str!("../tests/keys/p256.pub.pem"),
                &[Algorithm::ES256],
            ),
            (
                include_str!("../tests/keys/p384.pub.pem"),
                &[Algorithm::ES384],
            ),
            (
                include_str!("../tests/keys/ed25519.pub.pem"),
                &[Algorithm::EdDSA],
            ),
        ];
        for (pem, algorithms) in cases {
            assert_eq!(public_key(pem.as_bytes()).unwrap().algorithms(), algorithms);
            let commented = format!("owner: somebody\r\n{}", pem.replace('\n', "\r\n"));
            assert!(public_key(commented.as_bytes()).is_ok(), "{commented}");
        }
    }

    #[test]
    fn what_is_not_a_usable_public_key_is_named() {
        let rsa = include_str!("../tests/keys/rsa.pub.pem");
        let two = format!("{rsa}{rsa}");
        let cut = &rsa[..rsa.len() / 2];
        let cases: [(&str, &str); 13] = [
            ("", "no PEM"),
            ("a secret in the wrong place", "no PEM"),
            (
                "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
                "not a usable key",
            ),
            (cut, "not a usable key"),
            (&two, "more than one"),
            (include_str!("../tests/keys/rsa.key.pem"), "private key"),
            (
                include_str!("../tests/keys/rsa-pkcs1.key.pem"),
                "private key",
            ),
            (
                include_str!("../tests/keys/p256-sec1.key.pem"),
                "private key",
            ),
            (include_str!("../tests/keys/rsa.cert.pem"), "certificate"),
            (include_str!("../tests/keys/rsa-1024.pub.pem"), "1024 bits"),
            (
                include_str!("../tests/keys/p521.pub.pem"),
                "not a usable key",
            ),
            (
                include_str!("../tests/keys/secp256k1.pub.pem"),
                "not a usable key",
            ),
            (
                include_str!("../tests/keys/ed448.pub.pem"),
                "not a usable key",
            ),
        ];
        for (pem, expected) in cases {
            let error = public_key(pem.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error:?} for {pem}");
        }
    }
}
