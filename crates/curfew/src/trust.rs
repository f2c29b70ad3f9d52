//! Certificates that this program trusts as a client.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

/// The machine's root certificates: the certificates of the system's store, or of `SSL_CERT_FILE`
/// and `SSL_CERT_DIR`. If there are no root certificates, no server is trusted.
pub(crate) fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// The settings of a TLS client that trusts these roots.
pub(crate) fn client(roots: RootCertStore) -> Arc<ClientConfig> {
    Arc::new(
        ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth(),
    )
}
