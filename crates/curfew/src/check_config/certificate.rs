//! The node's own certificate, as a client would judge it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, Error};

use super::Probe;
use crate::trust;

/// A certificate that expires sooner than this is reported.
const SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// Judges the certificate in `file` at the time `now`, which is counted from the Unix epoch.
pub(super) fn probe(file: &Path, now: Duration) -> Probe {
    let judged = judge(file, now);
    Probe {
        key: "server.tls_cert_file".to_owned(),
        there: judged.is_ok(),
        message: judged.unwrap_or_else(|fault| fault),
    }
}

/// Returns a description of a usable certificate. The error is the reason for which the certificate
/// cannot be used.
fn judge(file: &Path, now: Duration) -> Result<String, String> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| error.to_string())?;
    match valid_at(&chain, now)? {
        Validity::Over => Err(
            "the certificate has expired: renew it, nodes load the new one without a restart"
                .to_owned(),
        ),
        Validity::NotYet => {
            Err("the certificate is not valid yet: check this machine's clock".to_owned())
        }
        Validity::Unknown => Ok("this machine does not know the issuer of the certificate: \
            add the intermediate certificates to the file, unless clients know the issuer"
            .to_owned()),
        Validity::Valid => Ok(match valid_at(&chain, now + SOON)? {
            Validity::Over => {
                "the certificate is valid, but expires in less than 14 days".to_owned()
            }
            _ => "the certificate is valid for at least 14 days".to_owned(),
        }),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Validity {
    Valid,
    NotYet,
    Over,
    /// No chain leads to an issuer that this machine knows, so the times are not judged.
    Unknown,
}

/// Judges the times of a chain. The last certificate of the chain is trusted, because clients may
/// know an issuer that this machine does not know. The name is not judged, because only clients
/// know the name that they use.
fn valid_at(chain: &[CertificateDer<'_>], now: Duration) -> Result<Validity, String> {
    let [certificate, intermediates @ ..] = chain else {
        return Err("no PEM certificate in the file".to_owned());
    };
    let mut roots = trust::system_roots();
    roots.add_parsable_certificates(chain.last().map(|last| last.clone().into_owned()));
    let verifier = WebPkiServerVerifier::builder(Arc::new(roots))
        .build()
        .map_err(|error| error.to_string())?;
    let name = ServerName::from(std::net::Ipv4Addr::LOCALHOST);
    let now = UnixTime::since_unix_epoch(now);
    match verifier.verify_server_cert(certificate, intermediates, &name, &[], now) {
        Ok(_) => Ok(Validity::Valid),
        Err(Error::InvalidCertificate(fault)) => match fault {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Ok(Validity::Valid)
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                Ok(Validity::Over)
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Ok(Validity::NotYet)
            }
            CertificateError::UnknownIssuer => Ok(Validity::Unknown),
            fault => Err(format!("clients will refuse the certificate: {fault}")),
        },
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a certificate that is valid in 2020. If the certificate is not self-signed, the file
    /// lacks the certificate of its issuer.
    fn certificate(directory: &Path, is_self_signed: bool) -> std::path::PathBuf {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["gateway.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 12, 31);
        let certificate = match is_self_signed {
            true => params.self_signed(&key).unwrap(),
            false => {
                let issuer_key = rcgen::KeyPair::generate().unwrap();
                let mut issuer = rcgen::CertificateParams::new(Vec::new()).unwrap();
                issuer.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
                issuer
                    .distinguished_name
                    .push(rcgen::DnType::CommonName, "unknown");
                let issuer = rcgen::Issuer::new(issuer, issuer_key);
                params.signed_by(&key, &issuer).unwrap()
            }
        };
        let file = directory.join("cert.pem");
        std::fs::write(&file, certificate.pem()).unwrap();
        file
    }

    /// The time from the Unix epoch to a day of 2020.
    fn day(of_2020: u64) -> Duration {
        Duration::from_secs(1_577_836_800 + of_2020 * 86_400)
    }

    #[test]
    fn a_certificate_that_is_nearly_over_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let file = certificate(directory.path(), true);
        for (now, there, words) in [
            (day(100), true, "at least 14 days"),
            (day(360), true, "less than 14 days"),
            (day(370), false, "has expired"),
            (day(0) - Duration::from_secs(9), false, "not valid yet"),
        ] {
            let told = probe(&file, now);
            assert_eq!(told.there, there, "{told:?}");
            assert!(told.message.contains(words), "{told:?}");
        }
    }

    #[test]
    fn a_chain_that_is_not_whole_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let file = certificate(directory.path(), false);
        let told = probe(&file, day(100));
        assert!(told.there, "{told:?}");
        assert!(told.message.contains("intermediate"), "{told:?}");
        std::fs::write(&file, "nothing").unwrap();
        assert!(!probe(&file, day(100)).there);
    }
}
