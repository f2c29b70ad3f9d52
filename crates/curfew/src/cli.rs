//! The command line: the list of all commands. Each command's arguments are in the file of the
//! command.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::{self, Check, Loaded};
use crate::failure::Failure;
use crate::{
    admin, check_config, completions, connect, dev, doctor, explain, man, print_config, token,
};

/// Version and commit: `0.1.0 (0123456789ab)`; only the version if the build knew no commit.
const VERSION: &str = env!("CURFEW_VERSION");

/// WebSocket sessions that end when access does.
#[derive(Debug, Parser)]
#[command(
    name = "curfew",
    version = VERSION,
    propagate_version = true,
    arg_required_else_help = true
)]
#[command(
    after_help = "Try it: `curfew dev` starts a node to play with, nothing else needed.

Exit codes: 0 done; 2 wrong usage or invalid configuration; 1 anything else."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a node
    Serve(ServeArgs),
    /// Run a node to play with: embedded backend, fresh key, everything allowed, demo page
    Dev(dev::DevArgs),
    /// Make a token, for development and tests
    Token(token::TokenArgs),
    /// Open a WebSocket: send typed lines, print received frames
    Connect(connect::ConnectArgs),
    /// Publish JSON to a channel
    Publish(admin::publish::PublishArgs),
    /// List the publications that a channel stores
    History(admin::history::HistoryArgs),
    /// List the sessions that are subscribed to a channel
    Presence(admin::presence::PresenceArgs),
    /// List the sessions of the cluster
    Sessions(admin::sessions::SessionsArgs),
    /// Close one session
    Disconnect(admin::disconnect::DisconnectArgs),
    /// List the live nodes
    Nodes(admin::nodes::NodesArgs),
    /// Revoke access: end the sessions on every node and refuse new ones
    Revoke(admin::revoke::RevokeArgs),
    /// List the revocations in force
    Revocations(admin::revocations::RevocationsArgs),
    /// Lift a revocation
    Restore(admin::restore::RestoreArgs),
    /// Check a configuration and report every problem at once
    CheckConfig(check_config::CheckConfigArgs),
    /// Print the effective configuration, secrets redacted
    PrintConfig(print_config::PrintConfigArgs),
    /// Explain which rule of the policy decides, and why; needs no running node
    Explain(explain::ExplainArgs),
    /// Compare a provider's tokens with the configuration: admission, and the effect of a logout
    Doctor(doctor::DoctorArgs),
    /// Print the completions of a shell
    Completions(completions::CompletionsArgs),
    /// Write the manual: a page for each command
    #[command(hide = true)]
    Man(man::ManArgs),
}

/// Arguments of `curfew serve`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  curfew serve --config /etc/curfew.toml --set telemetry.log_format=text")]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

/// The sources of the configuration.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ConfigArgs {
    /// The configuration file, TOML. Environment variables named CURFEW__SECTION__KEY override its
    /// keys, and --set overrides both
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Set one key, for example --set server.listen=127.0.0.1:8080; repeatable. Other
    /// users can read the value in the list of processes, so do not set secrets here
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub(crate) sets: Vec<String>,
}

impl ConfigArgs {
    /// Loads the configuration. On failure, the error lists every problem.
    pub(crate) fn load(&self, check: Check) -> Result<Loaded, Failure> {
        config::load(self.config.as_deref(), &self.sets, check).map_err(Failure::Config)
    }
}

/// The address of the admin API, and its key.
#[derive(Debug, Clone, Args)]
pub(crate) struct AdminArgs {
    /// The URL of any node's admin listener, or several URLs separated by commas: the first node
    /// that can be reached is asked
    #[arg(
        long,
        value_name = "URL",
        env = "CURFEW_ADMIN_URL",
        default_value = "http://127.0.0.1:9090"
    )]
    pub(crate) url: String,
    /// A file with the admin key, the same as the node's admin.key_file. Without this option, the
    /// key is taken from the environment variable CURFEW_ADMIN_KEY
    #[arg(long, value_name = "FILE", env = "CURFEW_ADMIN_KEY_FILE")]
    pub(crate) key_file: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn every_command_has_an_example() {
        Cli::command().debug_assert();
        for command in Cli::command().get_subcommands() {
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(help.contains("Example"), "{}", command.get_name());
        }
    }

    #[test]
    fn variables_of_the_command_line_are_not_taken_for_configuration() {
        for command in Cli::command().get_subcommands() {
            for argument in command.get_arguments() {
                let env = argument.get_env().unwrap_or_default().to_string_lossy();
                assert!(!env.starts_with("CURFEW__"), "{env}");
            }
        }
    }
}
