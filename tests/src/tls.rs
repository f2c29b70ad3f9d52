//! Certificates for the public listener and for Redis.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use curfew_testkit::{Connect, trusting};
use rcgen::{BasicConstraints, CertificateParams, CertifiedKey, DnType, IsCa, Issuer, KeyPair};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A self-signed certificate for `localhost` with its key.
#[derive(Debug)]
pub struct TestCertificate {
    /// The certificate in DER encoding.
    pub der: Vec<u8>,
    certificate_pem: String,
    key_pem: String,
}

impl TestCertificate {
    /// Makes a new certificate.
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

    /// Makes `connect` use TLS and trust only this certificate.
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

/// A certificate authority for one test, and a server certificate signed by it.
#[derive(Debug)]
pub struct TestAuthority {
    authority_pem: String,
    certificate_pem: String,
    key_pem: String,
}

impl TestAuthority {
    /// Makes a new authority, with a certificate for `localhost` and `127.0.0.1`.
    pub fn new() -> Self {
        let mut params =
            CertificateParams::new(Vec::new()).expect("an empty list of names is valid");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // The name must differ from the server's, because OpenSSL takes a certificate for
        // self-signed if its subject is the same as its issuer.
        params
            .distinguished_name
            .push(DnType::CommonName, "the tests' authority");
        let key = KeyPair::generate().expect("a key pair can be made");
        let authority = params.self_signed(&key).expect("a certificate can be made");
        let issuer = Issuer::new(params, key);
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let key = KeyPair::generate().expect("a key pair can be made");
        let certificate = CertificateParams::new(names)
            .expect("both names are valid")
            .signed_by(&key, &issuer)
            .expect("the authority signs");
        Self {
            authority_pem: authority.pem(),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        }
    }

    /// An authority whose own certificate is also the server's certificate. Users have such a
    /// certificate if they made the server's certificate with the command that makes an authority.
    pub fn that_serves() -> Self {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("both names are valid");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key pair can be made");
        let certificate = params.self_signed(&key).expect("a certificate can be made");
        Self {
            authority_pem: certificate.pem(),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        }
    }

    /// An acceptor of TLS connections, with the server certificate.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let certificate = CertificateDer::from_pem_slice(self.certificate_pem.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes());
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.expect("the certificate can be read")],
                key.expect("the key can be read"),
            );
        TlsAcceptor::from(Arc::new(
            config.expect("the certificate and the key belong together"),
        ))
    }

    /// Writes `ca.pem`, `cert.pem` and `key.pem` into `directory`.
    pub fn write(&self, directory: &Path) {
        for (name, pem) in [
            ("ca.pem", &self.authority_pem),
            ("cert.pem", &self.certificate_pem),
            ("key.pem", &self.key_pem),
        ] {
            std::fs::write(directory.join(name), pem).expect("the file can be written");
        }
    }
}

impl Default for TestAuthority {
    fn default() -> Self {
        Self::new()
    }
}
