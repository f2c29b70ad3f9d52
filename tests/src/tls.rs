//! Certificates for the public listener.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use curfew_testkit::{Connect, trusting};
use rcgen::CertifiedKey;

/// A self-signed certificate for `localhost` with its key.
#[derive(Debug)]
pub struct TestCertificate {
    /// The certificate, DER.
    pub der: Vec<u8>,
    certificate_pem: String,
    key_pem: String,
}

impl TestCertificate {
    /// A new one.
    pub fn new() -> Self {
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])
                .expect("a certificate can be made");
        Self {
            der: cert.der().to_vec(),
            certificate_pem: cert.pem(),
            key_pem: signing_key.serialize_pem(),
        }
    }

    /// Writes `cert.pem` and `key.pem` into `directory`.
    pub fn write(&self, directory: &Path) -> (PathBuf, PathBuf) {
        let (certificate, key) = (directory.join("cert.pem"), directory.join("key.pem"));
        std::fs::write(&key, &self.key_pem).expect("the key can be written");
        std::fs::write(&certificate, &self.certificate_pem)
            .expect("the certificate can be written");
        (certificate, key)
    }

    /// `connect` over TLS, trusting this certificate only.
    pub fn secure(&self, connect: Connect) -> Connect {
        let config = trusting(std::slice::from_ref(&self.der), &[b"http/1.1"]);
        connect.tls(Arc::clone(&config), "localhost")
    }
}

impl Default for TestCertificate {
    fn default() -> Self {
        Self::new()
    }
}
