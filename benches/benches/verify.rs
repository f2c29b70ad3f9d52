//! The cost of verifying a token, from its text to a principal, for each algorithm.

use std::hint::black_box;
use std::sync::Arc;

use criterion::Criterion;
use curfew_auth::{AuthConfig, Authenticator, Issuer};
use curfew_model::{Secret, SystemClock};
use curfew_testkit::mint::{Key, SECRET};
use tempfile::TempDir;

/// The issuer whose tokens `key` signs.
fn issuer(key: &Key, folder: &TempDir, algorithm: &str) -> Issuer {
    let issuer = Issuer {
        name: "main".to_owned(),
        ..Issuer::default()
    };
    if algorithm == "HS256" {
        return Issuer {
            secret: Some(Secret::new(SECRET)),
            ..issuer
        };
    }
    let path = folder.path().join(algorithm);
    std::fs::write(&path, key.public_pem()).expect("a temporary file can be written");
    Issuer {
        public_key_file: Some(path),
        ..issuer
    }
}

fn verify(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut group = criterion.benchmark_group("verify");
    for algorithm in ["HS256", "RS256", "ES256", "EdDSA"] {
        let key = match algorithm {
            "HS256" => Key::default_secret(),
            algorithm => Key::generate(algorithm),
        };
        let config = AuthConfig {
            issuers: vec![issuer(&key, &folder, algorithm)],
            ..AuthConfig::default()
        };
        let authenticator =
            Authenticator::new(&config, Arc::new(SystemClock)).expect("the configuration is valid");
        let token = key.user("alice");
        group.bench_function(algorithm, |bencher| {
            bencher.iter(|| {
                authenticator
                    .authenticate(black_box(&token))
                    .expect("the token is valid")
            });
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    verify(&mut criterion);
    criterion.final_summary();
}
