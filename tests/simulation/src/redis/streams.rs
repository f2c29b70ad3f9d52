//! The scripts of streams, implemented in Rust after their text.
//!
//! Owns: the epoch and the top of a stream, and its entries. Knows nothing of: commands on streams.
//! Only these scripts use streams.

use super::call::{Call, Done, Failure, NOT_AN_INTEGER};
use super::data::{Value, hash, stream, string};
use super::number;

/// The text of the script that appends publications, in `crates/curfew-backend-redis/src/streams`.
pub(super) const APPEND: &[u8] = concat!(
    include_str!("../../../../crates/curfew-backend-redis/src/streams/stream.lua"),
    include_str!("../../../../crates/curfew-backend-redis/src/streams/append.lua")
)
.as_bytes();

/// The text of the script that reads entries.
pub(super) const READ: &[u8] = concat!(
    include_str!("../../../../crates/curfew-backend-redis/src/streams/stream.lua"),
    include_str!("../../../../crates/curfew-backend-redis/src/streams/read.lua")
)
.as_bytes();

/// The text of the script that deletes the entries.
pub(super) const CLEAR: &[u8] =
    include_bytes!("../../../../crates/curfew-backend-redis/src/streams/clear.lua");

/// The text of the script that checks rights.
pub(super) const RIGHTS: &[u8] =
    include_bytes!("../../../../crates/curfew-backend-redis/src/streams/rights.lua");

/// The position of a stream: its epoch, its top and the id of the server that wrote it.
struct Position {
    epoch: Vec<u8>,
    top: u64,
    server: Vec<u8>,
}

/// Error for arguments that the gateway's scripts never have.
const ARGUMENTS: &str = "ERR user_script:1: the arguments are not those of the gateway";

/// Does the same as `append.lua`.
pub(super) fn append(call: &mut Call<'_>, keys: &[&[u8]], args: &[&[u8]]) -> Done {
    let [stream_key, meta_key, channel, ..] = *keys else {
        return Err(ARGUMENTS.into());
    };
    let [
        deadline,
        known,
        fresh,
        lifetime,
        ttl,
        key_lifetime,
        size,
        publish,
        seen,
        publications @ ..,
    ] = args
    else {
        return Err(ARGUMENTS.into());
    };
    let now = call.now.as_micros();
    let deadline = number::float(deadline).ok_or(ARGUMENTS)?;
    if now as f64 > deadline {
        return Err("FENCED the lease of the node that has sent this is over".into());
    }
    let Position {
        epoch,
        mut top,
        server,
    } = position(call, stream_key, meta_key, known, [fresh, lifetime, seen])?;
    let size = usize::try_from(integer(size)?).map_err(|_| ARGUMENTS)?;
    let mut answer: Vec<Result<u64, Vec<u8>>> = Vec::new();
    for publication in publications.chunks_exact(2) {
        let place = usize::try_from(integer(publication[0])?).map_err(|_| ARGUMENTS)?;
        let key = place.checked_sub(1).map(|place| keys[place]);
        if let Some(key) = key {
            call.lapse(key);
            let ms = call.ms();
            let of_epoch = [&epoch[..], b":"].concat();
            if let Some(known) = string(call.server.data.live(key, ms))?
                && known.starts_with(&of_epoch)
            {
                answer.push(Err(known.to_vec()));
                continue;
            }
        }
        top += 1;
        let mut envelope = br#"{"v":2,"epoch":""#.to_vec();
        envelope.extend_from_slice(&epoch);
        envelope.extend_from_slice(format!(r#"","at":{},"offset":{top}"#, now / 1000).as_bytes());
        envelope.extend_from_slice(publication[1]);
        let mut entries = stream(call.server.data.live(stream_key, call.ms()))?.clone();
        entries.insert(top, envelope.clone());
        while entries.len() > size {
            entries.pop_first();
        }
        call.server
            .data
            .set(stream_key, Value::Stream(entries), true);
        set_field(call, meta_key, b"top", top.to_string().as_bytes());
        if let Some(key) = key {
            let place = [&epoch[..], b":", top.to_string().as_bytes()].concat();
            call.server.data.set(key, Value::String(place), false);
            expire(call, key, key_lifetime)?;
        }
        call.publish(channel, &envelope, *publish == b"SPUBLISH");
        answer.push(Ok(top));
    }
    expire(call, stream_key, ttl)?;
    expire(call, meta_key, lifetime)?;
    call.touched(stream_key);
    call.note_other(stream_key);
    call.out.array(answer.len() + 2);
    call.out.bulk(&server);
    call.out.bulk(&epoch);
    for place in answer {
        match place {
            Ok(offset) => call.out.integer(i64::try_from(offset).unwrap_or(i64::MAX)),
            Err(known) => call.out.bulk(&known),
        }
    }
    Ok(())
}

/// Does the same as `read.lua`, line by line.
pub(super) fn read(call: &mut Call<'_>, keys: &[&[u8]], args: &[&[u8]]) -> Done {
    let ([stream_key, meta_key], [known, fresh, lifetime, seen, way, range @ ..]) = (keys, args)
    else {
        return Err(ARGUMENTS.into());
    };
    let Position { epoch, top, server } =
        position(call, stream_key, meta_key, known, [fresh, lifetime, seen])?;
    let entries = stream(call.server.data.live(stream_key, call.ms()))?;
    let bounds = || -> Result<(u64, usize), Failure> {
        let [offset, limit] = range else {
            return Err(ARGUMENTS.into());
        };
        let offset = std::str::from_utf8(offset).ok();
        let offset = offset.and_then(|offset| offset.parse().ok());
        let limit = usize::try_from(integer(limit)?).map_err(|_| ARGUMENTS)?;
        Ok((offset.ok_or(NOT_AN_INTEGER)?, limit))
    };
    let found: Vec<(u64, Vec<u8>)> = match *way {
        b"after" => {
            let (offset, limit) = bounds()?;
            let after = entries.iter().filter(|(at, _)| **at > offset);
            after
                .take(limit)
                .map(|(at, entry)| (*at, entry.clone()))
                .collect()
        }
        b"before" => {
            let (offset, limit) = bounds()?;
            let before = entries.iter().rev().filter(|(at, _)| **at < offset);
            before
                .take(limit)
                .map(|(at, entry)| (*at, entry.clone()))
                .collect()
        }
        _ => Vec::new(),
    };
    call.out.array(4);
    call.out.bulk(&server);
    call.out.bulk(&epoch);
    call.out.bulk(top.to_string().as_bytes());
    call.out.array(found.len());
    for (at, entry) in found {
        call.out.array(2);
        call.out.bulk(format!("{at}-0").as_bytes());
        call.out.array(2);
        call.out.bulk(b"e");
        call.out.bulk(&entry);
    }
    Ok(())
}

/// Does the same as `clear.lua`.
pub(super) fn clear(call: &mut Call<'_>, keys: &[&[u8]], args: &[&[u8]]) -> Done {
    let ([stream_key, channel], [notice, publish]) = (keys, args) else {
        return Err(ARGUMENTS.into());
    };
    call.lapse(stream_key);
    call.publish(channel, notice, *publish == b"SPUBLISH");
    let was_there = call.remove(stream_key);
    call.out.count(usize::from(was_there));
    Ok(())
}

/// Does the same as `rights.lua`. The simulation's user may do everything.
pub(super) fn rights(call: &mut Call<'_>) -> Done {
    call.out.array(0);
    Ok(())
}

/// Does the same as `position` in `stream.lua`, line by line.
fn position(
    call: &mut Call<'_>,
    stream_key: &[u8],
    meta_key: &[u8],
    known: &[u8],
    [fresh, lifetime, seen]: [&[u8]; 3],
) -> Result<Position, Failure> {
    call.lapse(stream_key);
    call.lapse(meta_key);
    let ms = call.ms();
    let Ok(meta) = hash(call.server.data.live(meta_key, ms)).cloned() else {
        call.remove(meta_key);
        return position(call, stream_key, meta_key, known, [fresh, lifetime, seen]);
    };
    let field = |name: &[u8]| {
        let found = meta.iter().find(|(field, _)| field == name);
        found.map(|(_, value)| value.clone())
    };
    let epoch = field(b"epoch");
    let top = field(b"top").and_then(|top| String::from_utf8(top).ok()?.parse::<u64>().ok());
    let written_by = field(b"server");
    let mut server = known.to_vec();
    if known.is_empty() || (epoch.is_some() && written_by.as_deref() != Some(known)) {
        server = call.server.run_id.clone().into_bytes();
    }
    if let (Some(epoch), Some(top), Some(written_by)) = (epoch, top, written_by)
        && written_by == server
        && !is_behind(&epoch, top, seen)
        && let Ok(entries) = stream(call.server.data.live(stream_key, ms))
        && entries
            .last_key_value()
            .is_none_or(|(last, _)| *last == top)
    {
        return Ok(Position { epoch, top, server });
    }
    call.remove(stream_key);
    for (name, value) in [(&b"epoch"[..], fresh), (b"top", b"0"), (b"server", &server)] {
        set_field(call, meta_key, name, value);
    }
    expire(call, meta_key, lifetime)?;
    call.touched(meta_key);
    call.note_other(meta_key);
    Ok(Position {
        epoch: fresh.to_vec(),
        top: 0,
        server,
    })
}

/// True if the caller's position `seen` is in this epoch and beyond `top`.
fn is_behind(epoch: &[u8], top: u64, seen: &[u8]) -> bool {
    let offset = seen
        .strip_prefix(epoch)
        .and_then(|rest| rest.strip_prefix(b":"));
    let offset = offset.and_then(|offset| std::str::from_utf8(offset).ok()?.parse::<u64>().ok());
    offset.is_some_and(|offset| offset > top)
}

fn integer(text: &[u8]) -> Result<i64, Failure> {
    number::integer(text).ok_or_else(|| NOT_AN_INTEGER.into())
}

/// Sets a field of a key that is a hash or does not exist.
pub(super) fn set_field(call: &mut Call<'_>, key: &[u8], name: &[u8], value: &[u8]) {
    let mut fields = hash(call.server.data.live(key, call.ms()))
        .cloned()
        .unwrap_or_default();
    fields.retain(|(field, _)| field != name);
    fields.push((name.to_vec(), value.to_vec()));
    call.server.data.set(key, Value::Hash(fields), true);
}

/// `PEXPIRE`.
fn expire(call: &mut Call<'_>, key: &[u8], milliseconds: &[u8]) -> Result<(), Failure> {
    let end = call.ms().saturating_add(integer(milliseconds)?);
    call.server.data.set_expiry(key, Some(end));
    Ok(())
}
