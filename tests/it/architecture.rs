//! The structure of the code, compared with what the documentation says of it.
//!
//! The tables of `crates/README.md` and `crates/curfew-protocol/PROTOCOL.md` are what is compared
//! with, so that there is no second list to keep.

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
