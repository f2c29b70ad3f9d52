//! `curfew serve`.

use tracing::warn;

use crate::app::App;
use crate::cli::ServeArgs;
use crate::config::Check;
use crate::failure::Failure;
use crate::lifecycle::{self, LastRead, Source};

/// Runs a node until a signal stops it.
pub(crate) fn run(args: ServeArgs) -> Result<(), Failure> {
    let mut seen = LastRead::default();
    seen.look(args.config.config.as_deref(), &args.config.sets);
    let loaded = args.config.load(Check::Everything)?;
    let telemetry = curfew_telemetry::init(&loaded.config.telemetry)?;
    loaded.warn();
    raise_open_files();
    lifecycle::block_on(async move {
        let app = App::build(&loaded.config, telemetry, |_, _, _| Ok(None))?;
        let source = Source {
            file: loaded.file,
            sets: args.config.sets,
            seen,
        };
        lifecycle::run(app, loaded.config, Some(source)).await
    })
}

/// Raises the limit of open files to the hard limit, which the administrator sets. Every connection
/// is an open file, so the usual soft limit of 1,024 is too low.
pub(crate) fn raise_open_files() {
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        warn!(error = %error, "the limit of open files could not be raised");
    }
}
