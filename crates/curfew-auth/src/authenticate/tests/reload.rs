//! Keys that change while tokens are verified.

use std::path::Path;

use super::*;

fn file_issuer(path: &Path) -> Issuer {
    Issuer {
        name: "main".to_owned(),
        secret_file: Some(path.to_owned()),
        ..Issuer::default()
    }
}

fn token_by(secret: &str) -> String {
    let key = MintKey::Secret(secret.as_bytes().to_vec());
    mint(&claims(json!({})), None, Algorithm::HS256, &key).unwrap()
}

/// The first result is true if the authenticator accepts a token signed with [`SECRET`], the second
/// if it accepts a token signed with [`OTHER_SECRET`].
fn accepts(authenticator: &Authenticator) -> [bool; 2] {
    [SECRET, OTHER_SECRET].map(|secret| authenticator.authenticate(&token_by(secret)).is_ok())
}

#[test]
fn a_changed_file_is_taken_over_and_a_bad_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    std::fs::write(&path, SECRET).unwrap();
    let authenticator = authenticator(&config([file_issuer(&path)]));
    assert!(authenticator.reload_changed_files().is_empty());
    assert_eq!(accepts(&authenticator), [true, false]);

    std::fs::write(&path, format!("{OTHER_SECRET}\n")).unwrap();
    let reloads = authenticator.reload_changed_files();
    assert!(
        matches!(&reloads[..], [FileReload { outcome: Ok(1), .. }]),
        "{reloads:?}"
    );
    assert_eq!(
        (reloads[0].issuer.as_str(), &reloads[0].path),
        ("main", &path)
    );
    assert_eq!(accepts(&authenticator), [false, true]);
    assert!(authenticator.reload_changed_files().is_empty());

    std::fs::write(&path, "short").unwrap();
    let reloads = authenticator.reload_changed_files();
    assert!(matches!(
        &reloads[..],
        [FileReload {
            outcome: Err(KeyError::ShortSecret),
            ..
        }]
    ));
    assert_eq!(accepts(&authenticator), [false, true]);
    assert!(
        authenticator.reload_changed_files().is_empty(),
        "a bad file is reported again although it did not change again"
    );

    std::fs::remove_file(&path).unwrap();
    let reloads = authenticator.reload_changed_files();
    assert!(matches!(
        &reloads[..],
        [FileReload {
            outcome: Err(KeyError::Unreadable(_)),
            ..
        }]
    ));
    assert_eq!(accepts(&authenticator), [false, true]);
    assert!(
        authenticator.reload_changed_files().is_empty(),
        "a bad file is reported again although it did not change again"
    );

    std::fs::write(&path, SECRET).unwrap();
    assert_eq!(authenticator.reload_changed_files().len(), 1);
    assert_eq!(accepts(&authenticator), [true, false]);
}

#[cfg(unix)]
#[test]
fn a_symbolic_link_that_is_swapped_is_noticed() {
    use std::os::unix::fs::symlink;

    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    std::fs::write(file("one"), SECRET).unwrap();
    std::fs::write(file("two"), OTHER_SECRET).unwrap();
    // The two files have the same size and modification time, and differ only in their content.
    let modified = std::fs::metadata(file("one")).unwrap().modified().unwrap();
    std::fs::File::options()
        .write(true)
        .open(file("two"))
        .and_then(|file| file.set_modified(modified))
        .unwrap();
    symlink(file("one"), file("secret")).unwrap();
    let authenticator = authenticator(&config([file_issuer(&file("secret"))]));
    assert_eq!(accepts(&authenticator), [true, false]);

    symlink(file("two"), file("next")).unwrap();
    std::fs::rename(file("next"), file("secret")).unwrap();
    assert_eq!(authenticator.reload_changed_files().len(), 1);
    assert_eq!(accepts(&authenticator), [false, true]);
}

#[test]
fn another_configuration_is_taken_over_whole_or_not_at_all() {
    let authenticator = authenticator(&config([secret_issuer()]));
    let mut next = config([secret_issuer()]);
    next.issuers[0].secret = Some(Secret::new(OTHER_SECRET));
    reload(&authenticator, &next).unwrap();
    assert_eq!(accepts(&authenticator), [false, true]);

    let mut bad = config([secret_issuer(), file_issuer(Path::new("absent"))]);
    bad.issuers[1].name = "second".to_owned();
    let error = reload(&authenticator, &bad).unwrap_err().to_string();
    assert!(
        error.starts_with("auth.issuers[1].secret_file (absent): cannot be read"),
        "{error}"
    );
    assert_eq!(accepts(&authenticator), [false, true]);
}

#[test]
fn every_bad_key_file_is_reported_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let short = directory.path().join("short");
    std::fs::write(&short, "hunter2").unwrap();
    let large = directory.path().join("large");
    std::fs::write(&large, vec![b'x'; 256 * 1024 + 1]).unwrap();
    let config = config([
        file_issuer(&short),
        file_issuer(Path::new("absent")),
        file_issuer(&large),
        pem_issuer("rsa.key.pem"),
        pem_issuer("rsa.pub.pem"),
    ]);
    let mut problems = curfew_model::Problems::new();
    problems.within("auth", |problems| crate::check_files(&config, problems));
    let problems: Vec<String> = problems
        .into_vec()
        .iter()
        .map(ToString::to_string)
        .collect();
    let expected = [
        "auth.issuers[0].secret_file: the secret is shorter than 32 bytes",
        "auth.issuers[1].secret_file: cannot be read",
        "auth.issuers[2].secret_file: is larger than 256 KiB",
        "auth.issuers[3].public_key_file: holds a private key",
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (problem, expected) in problems.iter().zip(expected) {
        assert!(problem.starts_with(expected), "{problem}");
        assert!(!problem.contains("hunter2"), "{problem}");
    }
}

#[test]
fn verifying_goes_on_while_keys_change() {
    let authenticator = authenticator(&config([secret_issuer()]));
    let mut other = config([secret_issuer()]);
    other.issuers[0].secret = Some(Secret::new(OTHER_SECRET));
    let own = config([secret_issuer()]);
    let [first, second] = [SECRET, OTHER_SECRET].map(token_by);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..200 {
                reload(&authenticator, &other).unwrap();
                reload(&authenticator, &own).unwrap();
            }
        });
        for _ in 0..500 {
            for token in [&first, &second] {
                if let Err(error) = authenticator.authenticate(token) {
                    assert_eq!(error.failure(), AuthFailure::BadSignature);
                }
            }
        }
    });
    assert_eq!(accepts(&authenticator), [true, false]);
}
