//! The scripts of presence, implemented in Rust after their text.
//!
//! Owns: the entry of a session in a channel, and the number of sessions of its user.
//! Knows nothing of: the notes of nodes, which are plain sets.

use super::call::{Call, Done};
use super::data::{Value, hash};
use super::{Effect, number, streams};

/// The text of the script that adds an entry, in `crates/curfew-backend-redis/src/presence`.
pub(super) const ENTER: &[u8] = concat!(
    "#!lua\n",
    include_str!("../../../../crates/curfew-backend-redis/src/presence/keys.lua"),
    include_str!("../../../../crates/curfew-backend-redis/src/presence/enter.lua")
)
.as_bytes();

/// The text of the script that removes an entry.
pub(super) const LEAVE: &[u8] = concat!(
    "#!lua flags=allow-oom\n",
    include_str!("../../../../crates/curfew-backend-redis/src/presence/keys.lua"),
    include_str!("../../../../crates/curfew-backend-redis/src/presence/leave.lua")
)
.as_bytes();

/// Error for arguments that the gateway's scripts never have.
const ARGUMENTS: &str = "ERR user_script:1: the arguments are not those of the gateway";

/// Does the same as `enter.lua`, line by line.
pub(super) fn enter(call: &mut Call<'_>, keys: &[&[u8]], args: &[&[u8]]) -> Done {
    let ([sessions, users], [session, entry, user, ends_at, deadline, told @ ..]) = (keys, args)
    else {
        return Err(ARGUMENTS.into());
    };
    let ends_at = number::integer(ends_at).ok_or(ARGUMENTS)?;
    clear_others(call, keys);
    let deadline = number::float(deadline).ok_or(ARGUMENTS)?;
    if call.now.as_micros() as f64 > deadline {
        return Err("FENCED the node that has sent this may be dead".into());
    }
    let ms = call.ms();
    if call.server.data.live(sessions, ms).is_none() {
        call.remove(users);
    }
    let before = field(call, sessions, session)?;
    set_field(call, sessions, session, entry);
    if before.is_none() {
        add(call, users, user, 1)?;
    }
    for key in [sessions, users] {
        // The effect of `PEXPIREAT` with `NX`, and then with `GT`.
        let known = call
            .server
            .data
            .live(key, ms)
            .and_then(|entry| entry.expires_at());
        if known.is_none_or(|known| known < ends_at) {
            call.server.data.set_expiry(key, Some(ends_at));
        }
    }
    if before.is_none()
        && let [verb, channel, message] = told
    {
        call.publish(channel, message, *verb == b"SPUBLISH");
    }
    call.out.count(usize::from(before.is_none()));
    Ok(())
}

/// Does the same as `leave.lua`, line by line.
pub(super) fn leave(call: &mut Call<'_>, keys: &[&[u8]], args: &[&[u8]]) -> Done {
    let ([sessions, users], [session, beginning, told @ ..]) = (keys, args) else {
        return Err(ARGUMENTS.into());
    };
    clear_others(call, keys);
    let entry = field(call, sessions, session)?;
    let Some(entry) = entry.filter(|entry| entry.starts_with(beginning)) else {
        call.out.nil();
        return Ok(());
    };
    let stored: serde_json::Value = serde_json::from_slice(&entry).map_err(|_| ARGUMENTS)?;
    let user = stored["user"].as_str().ok_or(ARGUMENTS)?.as_bytes();
    remove_field(call, sessions, session);
    if add(call, users, user, -1)? <= 0 {
        remove_field(call, users, user);
    }
    if let [verb, channel] = told
        && stored["told"] == true
    {
        let begin = br#"{"v":3,"change":"leave","session":""#;
        let message = [&begin[..], session, br#"","entry":"#, &entry, b"}"].concat();
        call.publish(channel, &message, *verb == b"SPUBLISH");
    }
    call.out.bulk(&entry);
    Ok(())
}

/// Removes the keys that are not hashes.
fn clear_others(call: &mut Call<'_>, keys: &[&[u8]]) {
    for key in keys {
        call.lapse(key);
        if hash(call.server.data.live(key, call.ms())).is_err() {
            call.remove(key);
        }
    }
}

fn field(
    call: &Call<'_>,
    key: &[u8],
    name: &[u8],
) -> Result<Option<Vec<u8>>, super::call::Failure> {
    let fields = hash(call.server.data.live(key, call.ms()))?;
    let found = fields.iter().find(|(field, _)| field == name);
    Ok(found.map(|(_, value)| value.clone()))
}

/// `HSET` on a key that is a hash or does not exist.
fn set_field(call: &mut Call<'_>, key: &[u8], name: &[u8], value: &[u8]) {
    streams::set_field(call, key, name, value);
    call.touched(key);
    note_hash(call, key);
}

/// `HDEL` on a key that is a hash or does not exist.
fn remove_field(call: &mut Call<'_>, key: &[u8], name: &[u8]) {
    let mut fields = hash(call.server.data.live(key, call.ms()))
        .cloned()
        .unwrap_or_default();
    fields.retain(|(field, _)| field != name);
    if fields.is_empty() {
        call.remove(key);
        return;
    }
    call.server.data.set(key, Value::Hash(fields), true);
    call.touched(key);
    note_hash(call, key);
}

fn note_hash(call: &mut Call<'_>, key: &[u8]) {
    let fields = hash(call.server.data.live(key, call.ms())).cloned();
    call.note(Effect::Hash {
        key: key.to_vec(),
        fields: fields.unwrap_or_default(),
    });
}

/// `HINCRBY`.
fn add(call: &mut Call<'_>, key: &[u8], name: &[u8], by: i64) -> Result<i64, super::call::Failure> {
    let before = field(call, key, name)?;
    let before = before.and_then(|before| number::integer(&before));
    let after = before.unwrap_or(0) + by;
    set_field(call, key, name, after.to_string().as_bytes());
    Ok(after)
}
