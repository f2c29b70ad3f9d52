//! Commands on hashes.

use super::call::{Call, Done, NOT_AN_INTEGER};
use super::data::{Fields, Value, hash};
use super::number;

/// `HSET`, `HMSET` and `HSETNX`.
pub(super) fn hset(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    if !args.len().is_multiple_of(2) {
        return Err(format!("ERR wrong number of arguments for '{}' command", call.name).into());
    }
    let key = args[1];
    let only_new = call.name == "hsetnx";
    let fields = call.fields(key, true)?;
    let mut added = 0;
    for pair in args[2..].chunks_exact(2) {
        match fields.iter_mut().find(|(field, _)| field == pair[0]) {
            Some(_) if only_new => {
                call.out.integer(0);
                return Ok(());
            }
            Some((_, value)) => {
                value.clear();
                value.extend_from_slice(pair[1]);
            }
            None => {
                fields.push((pair[0].to_vec(), pair[1].to_vec()));
                added += 1;
            }
        }
    }
    call.touched(key);
    call.note_other(key);
    match call.name {
        "hmset" => call.out.ok(),
        _ => call.out.count(added),
    }
    Ok(())
}

pub(super) fn hincrby(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    let by = number::integer(args[3]).ok_or(NOT_AN_INTEGER)?;
    call.lapse(args[1]);
    let ms = call.ms();
    let fields = hash(call.server.data.live(args[1], ms))?;
    let before = match fields.iter().find(|(field, _)| field == args[2]) {
        Some((_, value)) => number::integer(value).ok_or("ERR hash value is not an integer")?,
        None => 0,
    };
    let Some(after) = before.checked_add(by) else {
        return Err("ERR increment or decrement would overflow".into());
    };
    let text = after.to_string().into_bytes();
    let fields = call.fields(args[1], true)?;
    match fields.iter_mut().find(|(field, _)| field == args[2]) {
        Some((_, value)) => *value = text,
        None => fields.push((args[2].to_vec(), text)),
    }
    call.touched(args[1]);
    call.note_other(args[1]);
    call.out.integer(after);
    Ok(())
}

pub(super) fn hdel(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    let key = args[1];
    let fields = call.fields(key, false)?;
    let before = fields.len();
    fields.retain(|(field, _)| !args[2..].contains(&&field[..]));
    let removed = before - fields.len();
    let is_empty = before > 0 && fields.is_empty();
    call.changed(key, removed > 0, is_empty);
    call.out.count(removed);
    Ok(())
}

pub(super) fn hget(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    call.lapse(args[1]);
    let ms = call.ms();
    let fields = hash(call.server.data.live(args[1], ms))?;
    let found = fields.iter().find(|(field, _)| field == args[2]);
    call.out.optional(found.map(|(_, value)| &value[..]));
    Ok(())
}

pub(super) fn hmget(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    call.lapse(args[1]);
    let ms = call.ms();
    let fields = hash(call.server.data.live(args[1], ms))?;
    call.out.array(args.len() - 2);
    for wanted in &args[2..] {
        let found = fields.iter().find(|(field, _)| field == wanted);
        call.out.optional(found.map(|(_, value)| &value[..]));
    }
    Ok(())
}

pub(super) fn hexists(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    call.lapse(args[1]);
    let ms = call.ms();
    let fields = hash(call.server.data.live(args[1], ms))?;
    let is_there = fields.iter().any(|(field, _)| field == args[2]);
    call.out.count(usize::from(is_there));
    Ok(())
}

pub(super) fn hlen(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    call.lapse(args[1]);
    let ms = call.ms();
    let fields = hash(call.server.data.live(args[1], ms))?;
    call.out.count(fields.len());
    Ok(())
}

/// `HRANDFIELD` with a positive count and `WITHVALUES`. Unlike Redis, it returns the first fields.
pub(super) fn hrandfield(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    let [_, key, count, with_values] = args else {
        return Err("ERR the simulated Redis knows HRANDFIELD with WITHVALUES alone".into());
    };
    let count = number::integer(count).ok_or(NOT_AN_INTEGER)?;
    let count = usize::try_from(count).map_err(|_| NOT_AN_INTEGER)?;
    if !with_values.eq_ignore_ascii_case(b"withvalues") {
        return Err("ERR syntax error".into());
    }
    call.lapse(key);
    let ms = call.ms();
    let fields = hash(call.server.data.live(key, ms))?;
    call.out.array(fields.len().min(count));
    for (field, value) in fields.iter().take(count) {
        call.out.array(2);
        call.out.bulk(field);
        call.out.bulk(value);
    }
    Ok(())
}

/// `HGETALL`, `HKEYS` and `HVALS`.
pub(super) fn hgetall(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    call.lapse(args[1]);
    let ms = call.ms();
    let fields = hash(call.server.data.live(args[1], ms))?;
    let (names, values) = (call.name != "hvals", call.name != "hkeys");
    match names && values {
        true => call.out.map(fields.len()),
        false => call.out.array(fields.len()),
    }
    for (field, value) in fields {
        if names {
            call.out.bulk(field);
        }
        if values {
            call.out.bulk(value);
        }
    }
    Ok(())
}

impl Call<'_> {
    /// The fields of a hash that is to be changed. If the key does not exist, there are no fields,
    /// and the hash is created if `created` is true.
    fn fields(&mut self, key: &[u8], created: bool) -> Result<&mut Fields, super::call::Failure> {
        self.lapse(key);
        let ms = self.ms();
        let is_there = self.server.data.live(key, ms);
        hash(is_there)?;
        if is_there.is_none() && created {
            self.server.data.set(key, Value::Hash(Vec::new()), false);
        }
        match self.server.data.value_mut(key) {
            Some(Value::Hash(fields)) => Ok(fields),
            _ => {
                self.server.nothing.clear();
                Ok(&mut self.server.nothing)
            }
        }
    }

    /// Handles added or removed members of a value. If `is_empty` is true, the key is removed.
    pub(super) fn changed(&mut self, key: &[u8], is_changed: bool, is_empty: bool) {
        if is_empty {
            self.server.data.remove(key);
        }
        if is_changed {
            self.touched(key);
            match is_empty {
                true => self.note_removed(key),
                false => self.note_other(key),
            }
        }
    }
}
