//! TLS on the public listener. The certificate and the key are re-read when their files change.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// The reasons that the certificate and the key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("read {}: {source}", .path.display())]
    Read {
        /// The setting that names the file.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file contains no certificate in PEM.
    #[error("no PEM certificate in {}", .0.display())]
    NoCertificate(PathBuf),
    /// The file contains no private key in PEM.
    #[error("no PEM private key in {}", .0.display())]
    NoKey(PathBuf),
    /// The certificate and the key do not belong together, or one of them is of an unsupported
    /// kind.
    #[error("the certificate and the key cannot be used together: {0}")]
    Unusable(#[from] rustls::Error),
}

impl TlsError {
    /// Returns the setting that is at fault.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Read { key, .. } => key,
            Self::NoCertificate(_) => "tls_cert_file",
            Self::NoKey(_) | Self::Unusable(_) => "tls_key_file",
        }
    }
}

/// The listener's certificate and key.
pub struct Tls {
    cert_file: PathBuf,
    key_file: PathBuf,
    /// The contents of the two files when they were last read, even if they are not in use; empty
    /// if the files could not be read. They are stored so that an unchanged fault is reported only
    /// once.
    seen: Mutex<(Vec<u8>, Vec<u8>)>,
    config: ArcSwap<rustls::ServerConfig>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("cert_file", &self.cert_file)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the certificate and the key.
    pub fn load(cert_file: &Path, key_file: &Path) -> Result<Self, TlsError> {
        let (cert, key) = read(cert_file, key_file)?;
        let config = build(cert_file, key_file, &cert, &key)?;
        Ok(Self {
            cert_file: cert_file.into(),
            key_file: key_file.into(),
            seen: Mutex::new((cert, key)),
            config: ArcSwap::from_pointee(config),
        })
    }

    /// Re-reads the files. Returns true if a new certificate is now in use. On an error, the old
    /// certificate stays in use. A fault that has not changed is reported only once.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let files = read(&self.cert_file, &self.key_file);
        let mut seen = self.seen.lock();
        let files = match files {
            Ok(files) => files,
            // The last call could not read the files either, and has already reported the fault.
            Err(_) if *seen == Default::default() => return Ok(false),
            Err(error) => {
                *seen = Default::default();
                return Err(error);
            }
        };
        if *seen == files {
            return Ok(false);
        }
        // The contents are stored before `build` checks them, so that an unusable file is reported
        // only once.
        *seen = files;
        let config = build(&self.cert_file, &self.key_file, &seen.0, &seen.1)?;
        self.config.store(Arc::new(config));
        Ok(true)
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.load_full())
    }
}

fn read(cert_file: &Path, key_file: &Path) -> Result<(Vec<u8>, Vec<u8>), TlsError> {
    let read = |key, path: &Path| {
        std::fs::read(path).map_err(|source| TlsError::Read {
            key,
            path: path.into(),
            source,
        })
    };
    Ok((
        read("tls_cert_file", cert_file)?,
        read("tls_key_file", key_file)?,
    ))
}

fn build(
    cert_file: &Path,
    key_file: &Path,
    cert: &[u8],
    key: &[u8],
) -> Result<rustls::ServerConfig, TlsError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(cert)
        .collect::<Result<_, _>>()
        .map_err(|_| TlsError::NoCertificate(cert_file.into()))?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate(cert_file.into()));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::NoKey(key_file.into()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    // HTTP/2 is not offered, because upgrades use HTTP/1.1.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
