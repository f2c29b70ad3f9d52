//! The structure of the code, compared with the documentation.
//!
//! The tables of `crates/README.md` and `crates/curfew-protocol/PROTOCOL.md` are the source of the
//! comparison, so that there is no second list to maintain.

mod codes;
mod configuration;
mod crates;
mod decisions;
mod dependencies;
mod files;
mod markdown;
mod modules;
mod mutants;
mod prose;
mod workspace;
