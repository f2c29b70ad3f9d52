//! The gateway's own scripts, implemented in Rust after their text. Other scripts are not known.
//!
//! Owns: the loaded scripts, and the effect of each.
//! Knows nothing of: Lua.

use super::call::{Call, Done, NOT_AN_INTEGER};
use super::presence::{ENTER, LEAVE};
use super::streams::{APPEND, CLEAR, READ, RIGHTS};
use super::{number, presence, sha1, streams};

/// The text of the script that publishes unless a deadline has passed.
const PUBLISH: &[u8] =
    include_bytes!("../../../../crates/curfew-backend-redis/src/fence/publish.lua");

const NO_SCRIPT: &str = "NOSCRIPT No matching script. Please use EVAL.";

const UNKNOWN: &str = "ERR the simulated Redis does not know this script: it has no Lua, and does only what the scripts of crates/curfew-backend-redis say";

/// Every script, in the order of [`Scripts::loaded`].
const SCRIPTS: [&[u8]; 7] = [PUBLISH, APPEND, READ, CLEAR, RIGHTS, ENTER, LEAVE];

/// The loaded scripts.
#[derive(Debug)]
pub(super) struct Scripts {
    digests: [String; SCRIPTS.len()],
    loaded: [bool; SCRIPTS.len()],
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            digests: SCRIPTS.map(sha1::hex),
            loaded: [false; SCRIPTS.len()],
        }
    }

    pub(super) fn forget(&mut self) {
        self.loaded = [false; SCRIPTS.len()];
    }

    /// True if the command runs a script that may write. Every script may write unless its flags
    /// exclude it.
    pub(super) fn writes(&self, command: &str, args: &[&[u8]]) -> bool {
        let Some(script) = args.get(1) else {
            return false;
        };
        match command {
            "eval" => SCRIPTS.contains(script) && *script != RIGHTS,
            "evalsha" => self.find(script).is_some_and(|at| SCRIPTS[at] != RIGHTS),
            _ => false,
        }
    }

    /// The index of a loaded script, by its digest.
    fn find(&self, digest: &[u8]) -> Option<usize> {
        let is_it = |known: &String| digest.eq_ignore_ascii_case(known.as_bytes());
        let at = self.digests.iter().position(is_it)?;
        self.loaded[at].then_some(at)
    }

    fn has(&self, digest: &[u8]) -> bool {
        self.find(digest).is_some()
    }
}

pub(super) fn script_load(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    let at = SCRIPTS.iter().position(|script| *script == args[2]);
    let at = at.ok_or(UNKNOWN)?;
    let scripts = &mut call.server.scripts;
    scripts.loaded[at] = true;
    call.out.bulk(scripts.digests[at].as_bytes());
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
    let at = match by_digest {
        true => call.server.scripts.find(args[1]).ok_or(NO_SCRIPT)?,
        false => {
            let at = SCRIPTS.iter().position(|script| *script == args[1]);
            at.ok_or(UNKNOWN)?
        }
    };
    call.server.scripts.loaded[at] = true;
    let (keys, arguments) = args[3..].split_at(keys);
    match SCRIPTS[at] {
        APPEND => streams::append(call, keys, arguments),
        READ => streams::read(call, keys, arguments),
        CLEAR => streams::clear(call, keys, arguments),
        RIGHTS => streams::rights(call),
        ENTER => presence::enter(call, keys, arguments),
        LEAVE => presence::leave(call, keys, arguments),
        _ => run(call, keys.first().copied(), arguments),
    }
}

/// Does the same as `publish.lua`, line by line.
fn run(call: &mut Call<'_>, sharded: Option<&[u8]>, arguments: &[&[u8]]) -> Done {
    let now = call.now.as_micros();
    let Some(deadline) = arguments
        .first()
        .and_then(|deadline| number::float(deadline))
    else {
        let digest = &call.server.scripts.digests[0];
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
