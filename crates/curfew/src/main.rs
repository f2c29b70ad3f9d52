//! The `curfew` command, which runs a node and has the tools of operators and developers.
//!
//! Owns: the command line, the configuration as a whole, and the choice of every concrete type.
//! Start at [`main`], then `cli.rs` for the commands and `config.rs` for the configuration.

mod admin;
mod app;
mod check_config;
mod cli;
mod completions;
mod config;
mod connect;
mod dev;
mod doctor;
mod explain;
mod failure;
mod lifecycle;
mod man;
mod metrics;
mod output;
mod print_config;
mod reference;
mod serve;
mod time;
mod token;
mod trust;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command};
use failure::Failure;

/// With jemalloc, an idle connection takes a third less memory than with glibc's allocator, whose
/// heap stays fragmented after handshakes. jemalloc also returns the memory of a storm of
/// connections to the system. Its settings in `.cargo/config.toml` make it return memory within a
/// second.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // The TLS provider is installed before any code can open a TLS connection. If another provider
    // is installed already, the program has a bug.
    if rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .is_err()
    {
        eprintln!("curfew: another TLS provider is installed");
        return ExitCode::FAILURE;
    }
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve(args) => serve::run(args),
        Command::Dev(args) => dev::run(&args),
        Command::Token(args) => token::run(args),
        Command::Connect(args) => connect::run(args),
        Command::Publish(args) => admin::publish::run(args),
        Command::History(args) => admin::history::run(args),
        Command::Presence(args) => admin::presence::run(args),
        Command::Sessions(args) => admin::sessions::run(args),
        Command::Disconnect(args) => admin::disconnect::run(args),
        Command::Nodes(args) => admin::nodes::run(args),
        Command::Revoke(args) => admin::revoke::run(args),
        Command::Revocations(args) => admin::revocations::run(args),
        Command::Restore(args) => admin::restore::run(args),
        Command::CheckConfig(args) => check_config::run(&args),
        Command::PrintConfig(args) => print_config::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    }
}
