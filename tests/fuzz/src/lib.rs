//! Checks of Curfew's parsers of untrusted bytes. Each parser has one function here. The function
//! panics if the parser and an independent implementation disagree about the bytes.
//!
//! Owns: the properties of each parser that hold for any bytes.
//! Knows nothing of: the source of the bytes (`tests/corpus.rs`, `guided`).

pub mod centrifuge;
pub mod channels;
pub mod frames;
pub mod heads;
pub mod json;
pub mod keys;
mod members;
pub mod proxies;
pub mod redis;
pub mod reports;
pub mod revocations;
mod signed;
pub mod tokens;

/// A parser under test.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The target's name, and the name of its folder in `corpus`.
    pub name: &'static str,
    /// Panics if the parser and the independent implementation disagree about the bytes. Returns
    /// true if the parser has accepted the bytes.
    pub check: fn(&[u8]) -> bool,
}

/// Every parser under test.
pub const TARGETS: &[Target] = &[
    Target {
        name: "frames",
        check: frames::check,
    },
    Target {
        name: "json",
        check: json::check,
    },
    Target {
        name: "commands",
        check: json::check_command,
    },
    Target {
        name: "centrifuge_json",
        check: centrifuge::check_json,
    },
    Target {
        name: "centrifuge_protobuf",
        check: centrifuge::check_protobuf,
    },
    Target {
        name: "emulation",
        check: centrifuge::check_emulation,
    },
    Target {
        name: "proxy_header",
        check: proxies::check_header,
    },
    Target {
        name: "forwarded",
        check: proxies::check_forwarded,
    },
    Target {
        name: "revocations",
        check: revocations::check,
    },
    Target {
        name: "tokens",
        check: tokens::check,
    },
    Target {
        name: "logout_tokens",
        check: tokens::check_logout,
    },
    Target {
        name: "events",
        check: reports::check_event,
    },
    Target {
        name: "assertions",
        check: reports::check_assertion,
    },
    Target {
        name: "key_sets",
        check: keys::check,
    },
    Target {
        name: "channels",
        check: channels::check,
    },
    Target {
        name: "envelopes",
        check: redis::check_envelope,
    },
    Target {
        name: "records",
        check: redis::check_record,
    },
    Target {
        name: "redis_names",
        check: redis::check_name,
    },
    Target {
        name: "node_messages",
        check: redis::check_message,
    },
    Target {
        name: "heads",
        check: heads::check,
    },
];
