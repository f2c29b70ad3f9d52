//! A writable home folder for one Keycloak.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

/// The distribution's folder below `CURFEW_TOOLS`.
const DISTRIBUTION: &str = "keycloak-26.4.2";

/// Folder of the unpacked distribution.
fn distribution() -> PathBuf {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/tools");
    let tools = std::env::var_os("CURFEW_TOOLS").map_or_else(|| default.into(), PathBuf::from);
    let distribution = tools.join(DISTRIBUTION);
    assert!(
        distribution.join("bin/kc.sh").exists(),
        "{} is missing: run .ci/run, which unpacks it",
        distribution.display()
    );
    distribution
        .canonicalize()
        .expect("a folder that exists has a path")
}

/// Makes a home like the distribution, with copies of the files that Keycloak writes to.
pub(super) fn make() -> PathBuf {
    let distribution = distribution();
    let home = tempfile::Builder::new()
        .prefix("curfew-keycloak-")
        .tempdir()
        .expect("a directory")
        // The folder is not removed here, because the keeper script removes it.
        .keep();
    for name in ["conf", "providers", "themes"] {
        symlink(distribution.join(name), home.join(name)).expect("a link can be made");
    }
    let (from, to) = (distribution.join("lib"), home.join("lib"));
    for folder in [&home.join("bin"), &to.join("quarkus")] {
        fs::create_dir_all(folder).expect("a folder can be made");
    }
    for name in ["lib", "app"] {
        symlink(from.join(name), to.join(name)).expect("a link can be made");
    }
    // These two files are copied, because Keycloak derives its home from their location, and would
    // follow links to the distribution.
    for (from, to) in [
        (distribution.join("bin/kc.sh"), home.join("bin/kc.sh")),
        (from.join("quarkus-run.jar"), to.join("quarkus-run.jar")),
    ] {
        fs::copy(from, to).expect("a file can be copied");
    }
    for file in fs::read_dir(from.join("quarkus")).expect("the distribution has been built once") {
        let file = file.expect("a folder can be read");
        let copy = to.join("quarkus").join(file.file_name());
        fs::copy(file.path(), copy).expect("a file can be copied");
    }
    home
}
