//! Scripts: the gateway's own, done in Rust as its text says.
//!
//! Owns: which scripts are loaded, and what the one that is known does.
//! Knows nothing of: Lua.

use super::call::{Call, Done, NOT_AN_INTEGER};
use super::{number, sha1};

/// The text of the script that publishes under a fence.
const PUBLISH: &[u8] =
    include_bytes!("../../../../crates/curfew-backend-redis/src/fence/publish.lua");

/// The text of the script that appends to streams. It can be loaded, as each node does, and not be run: no
/// simulated channel has a stream.
const APPEND: &[u8] = concat!(
    include_str!("../../../../crates/curfew-backend-redis/src/streams/stream.lua"),
    include_str!("../../../../crates/curfew-backend-redis/src/streams/append.lua")
)
.as_bytes();

const NO_SCRIPT: &str = "NOSCRIPT No matching script. Please use EVAL.";

const UNKNOWN: &str = "ERR the simulated Redis does not know this script: it has no Lua, and does only what crates/curfew-backend-redis/src/fence/publish.lua says";

/// Scripts that are loaded, by their digests.
#[derive(Debug)]
pub(super) struct Scripts {
    publish: String,
    is_loaded: bool,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            publish: sha1::hex(PUBLISH),
            is_loaded: false,
        }
    }

    pub(super) fn forget(&mut self) {
        self.is_loaded = false;
    }

    /// True if this runs a script that may write, as every script does that does not say otherwise.
    pub(super) fn writes(&self, command: &str, args: &[&[u8]]) -> bool {
        match command {
            "eval" => args.get(1) == Some(&PUBLISH),
            "evalsha" => args.get(1).is_some_and(|digest| self.has(digest)),
            _ => false,
        }
    }

    fn has(&self, digest: &[u8]) -> bool {
        self.is_loaded && digest.eq_ignore_ascii_case(self.publish.as_bytes())
    }
}

pub(super) fn script_load(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    match args[2] {
        PUBLISH => {
            call.server.scripts.is_loaded = true;
            call.out.bulk(call.server.scripts.publish.as_bytes());
        }
        APPEND => call.out.bulk(sha1::hex(APPEND).as_bytes()),
        _ => return Err(UNKNOWN.into()),
    }
    Ok(())
}

pub(super) fn script_exists(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    call.out.array(args.len() - 2);
    for digest in &args[2..] {
        call.out.count(usize::from(call.server.scripts.has(digest)));
    }
    Ok(())
}

pub(super) fn script_flush(call: &mut Call<'_>, _: &[&[u8]]) -> Done {
    call.server.scripts.forget();
    call.out.ok();
    Ok(())
}

/// `EVAL` and `EVALSHA`.
pub(super) fn eval(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    let by_digest = call.name == "evalsha";
    if by_digest && args[1].len() != 40 {
        return Err(NO_SCRIPT.into());
    }
    let keys = number::integer(args[2]).ok_or(NOT_AN_INTEGER)?;
    let Ok(keys) = usize::try_from(keys) else {
        return Err("ERR Number of keys can't be negative".into());
    };
    if keys > args.len() - 3 {
        return Err("ERR Number of keys can't be greater than number of args".into());
    }
    if by_digest && !call.server.scripts.has(args[1]) {
        return Err(NO_SCRIPT.into());
    }
    if !by_digest && args[1] != PUBLISH {
        return Err(UNKNOWN.into());
    }
    call.server.scripts.is_loaded = true;
    let (keys, arguments) = args[3..].split_at(keys);
    run(call, keys.first().copied(), arguments)
}

/// As `publish.lua`, line by line.
fn run(call: &mut Call<'_>, sharded: Option<&[u8]>, arguments: &[&[u8]]) -> Done {
    let now = call.now.as_micros();
    let Some(deadline) = arguments
        .first()
        .and_then(|deadline| number::float(deadline))
    else {
        let digest = &call.server.scripts.publish;
        return Err(format!("ERR user_script:6: attempt to compare nil with number script: {digest}, on @user_script:6.").into());
    };
    if now as f64 > deadline {
        return Err("FENCED the lease of the node that has sent this is over".into());
    }
    let mut refused = Vec::new();
    let step = if sharded.is_some() { 1 } else { 2 };
    for (place, several) in arguments[1..].chunks(step).enumerate() {
        match (sharded, several) {
            (Some(channel), [payload]) => {
                call.publish(channel, payload, true);
            }
            (None, [channel, payload]) => {
                call.publish(channel, payload, false);
            }
            _ => refused.push(place),
        }
    }
    if refused.is_empty() {
        call.out.integer(i64::try_from(now).unwrap_or(i64::MAX));
        return Ok(());
    }
    call.out.array(refused.len() * 2);
    for place in refused {
        call.out.count(place);
        call.out
            .error("ERR Lua redis lib command arguments must be strings or integers");
    }
    Ok(())
}
