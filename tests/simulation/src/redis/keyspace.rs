//! Commands on keys of any type: existence, expiry, and removal.

use super::call::{Call, Done, Failure, NO_SUCH_KEY, NOT_AN_INTEGER, SYNTAX};
use super::data::digest;
use super::{Effect, glob, number};

pub(super) fn del(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    let removed = args[1..].iter().filter(|key| call.remove(key)).count();
    call.out.count(removed);
    Ok(())
}

pub(super) fn exists(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    let ms = call.ms();
    let mut count = 0;
    for key in &args[1..] {
        call.lapse(key);
        count += usize::from(call.server.data.live(key, ms).is_some());
    }
    call.out.count(count);
    Ok(())
}

pub(super) fn type_of(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    call.lapse(args[1]);
    let ms = call.ms();
    let entry = call.server.data.live(args[1], ms);
    call.out
        .simple(entry.map_or("none", |entry| entry.value.type_name()));
    Ok(())
}

pub(super) fn expire(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    let key = args[1];
    let (mut nx, mut xx, mut gt, mut lt) = (false, false, false, false);
    for option in &args[3..] {
        match option.to_ascii_uppercase().as_slice() {
            b"NX" => nx = true,
            b"XX" => xx = true,
            b"GT" => gt = true,
            b"LT" => lt = true,
            _ => {
                let option = String::from_utf8_lossy(option);
                return Err(format!("ERR Unsupported option {option}").into());
            }
        }
    }
    if nx && (xx || gt || lt) {
        return Err("ERR NX and XX, GT or LT options at the same time are not compatible".into());
    }
    if gt && lt {
        return Err("ERR GT and LT options at the same time are not compatible".into());
    }
    let end = expiry(call, args[2])?;
    call.lapse(key);
    let ms = call.ms();
    let Some(entry) = call.server.data.live(key, ms) else {
        call.out.integer(0);
        return Ok(());
    };
    let current = entry.expires_at();
    let refused = (nx && current.is_some())
        || (xx && current.is_none())
        || (gt && current.is_none_or(|current| end <= current))
        || (lt && current.is_some_and(|current| end >= current));
    if refused {
        call.out.integer(0);
        return Ok(());
    }
    if end <= ms && !call.server.replica {
        call.remove(key);
    } else {
        call.server.data.set_expiry(key, Some(end));
        call.touched(key);
        call.note_other(key);
    }
    call.out.integer(1);
    Ok(())
}

/// The expiry that `EXPIRE` or a similar command sets, in milliseconds since 1970.
fn expiry(call: &Call<'_>, text: &[u8]) -> Result<i64, Failure> {
    let number = number::integer(text).ok_or(NOT_AN_INTEGER)?;
    let unit = if call.name.starts_with('p') { 1 } else { 1000 };
    let base = if call.name.ends_with("at") {
        0
    } else {
        call.ms()
    };
    number
        .checked_mul(unit)
        .and_then(|end| end.checked_add(base))
        .ok_or_else(|| format!("ERR invalid expire time in '{}' command", call.name).into())
}

pub(super) fn persist(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    call.lapse(args[1]);
    let ms = call.ms();
    let entry = call.server.data.live(args[1], ms);
    let had_expiry = entry.is_some_and(|entry| entry.expires_at().is_some());
    if had_expiry {
        call.server.data.set_expiry(args[1], None);
        call.touched(args[1]);
        call.note_other(args[1]);
    }
    call.out.count(usize::from(had_expiry));
    Ok(())
}

/// `TTL`, `PTTL`, `EXPIRETIME` and `PEXPIRETIME`.
pub(super) fn ttl(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    call.lapse(args[1]);
    let ms = call.ms();
    let Some(entry) = call.server.data.live(args[1], ms) else {
        call.out.integer(-2);
        return Ok(());
    };
    let base = if call.name.ends_with("time") { 0 } else { ms };
    let left = entry.expires_at().map(|end| (end - base).max(0));
    call.out.integer(match left {
        None => -1,
        Some(left) if call.name.starts_with('p') => left,
        Some(left) => (left + 500) / 1000,
    });
    Ok(())
}

pub(super) fn rename(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    let (from, to) = (args[1], args[2]);
    call.lapse(from);
    let ms = call.ms();
    if call.server.data.live(from, ms).is_none() {
        return Err(NO_SUCH_KEY.into());
    }
    let only_new = call.name == "renamenx";
    if from != to {
        call.lapse(to);
        if only_new && call.server.data.live(to, ms).is_some() {
            call.out.integer(0);
            return Ok(());
        }
        if let Some(entry) = call.server.data.remove(from) {
            call.place(to, entry);
            call.touched(from);
            call.note_removed(from);
            call.touched(to);
        }
    } else if only_new {
        call.out.integer(0);
        return Ok(());
    }
    match only_new {
        true => call.out.integer(1),
        false => call.out.ok(),
    }
    Ok(())
}

/// `COPY source destination [DB 0] [REPLACE]`.
pub(super) fn copy(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    let (from, to) = (args[1], args[2]);
    let mut replace = false;
    let mut options = args[3..].iter();
    while let Some(option) = options.next() {
        match option.to_ascii_uppercase().as_slice() {
            b"REPLACE" => replace = true,
            b"DB" => match options.next() {
                Some(&b"0") => {}
                Some(_) => return Err("ERR the simulated Redis has one database".into()),
                None => return Err(SYNTAX.into()),
            },
            _ => return Err(SYNTAX.into()),
        }
    }
    if from == to {
        return Err("ERR source and destination objects are the same".into());
    }
    call.lapse(from);
    call.lapse(to);
    let ms = call.ms();
    let there = call.server.data.live(to, ms).is_some();
    let copied = match call.server.data.live(from, ms) {
        Some(entry) if replace || !there => Some(entry.clone()),
        _ => None,
    };
    call.out.count(usize::from(copied.is_some()));
    if let Some(entry) = copied {
        call.place(to, entry);
        call.touched(to);
    }
    Ok(())
}

impl Call<'_> {
    /// Stores the entry of another key, with its expiry, under this key.
    fn place(&mut self, key: &[u8], entry: super::data::Entry) {
        match &entry.value {
            super::data::Value::String(value) => self.note_set(key, value),
            _ => self.note_other(key),
        }
        let end = entry.expires_at();
        self.server.data.set(key, entry.value, false);
        self.server.data.set_expiry(key, end);
    }
}

pub(super) fn dbsize(call: &mut Call<'_>, _: &[&[u8]]) -> Done {
    call.out.count(call.server.data.len());
    Ok(())
}

pub(super) fn keys(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    let ms = call.ms();
    let found: Vec<&[u8]> = call
        .server
        .data
        .iter()
        .map(|(key, _)| key)
        .filter(|key| glob::matches(args[1], key))
        .filter(|key| !call.server.data.is_due(key, ms))
        .collect();
    call.out.array(found.len());
    for key in found {
        call.out.bulk(key);
    }
    Ok(())
}

pub(super) fn flush(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    match args.get(1).map(|option| option.to_ascii_uppercase()) {
        None => {}
        Some(option) if args.len() == 2 && (option == b"ASYNC" || option == b"SYNC") => {}
        Some(_) => return Err(SYNTAX.into()),
    }
    call.server.touch_all_watched(call.now);
    let gone: Vec<Vec<u8>> = call
        .server
        .data
        .iter()
        .map(|(key, _)| key.to_vec())
        .collect();
    call.server.data.clear();
    for key in gone {
        call.note(Effect::Removed { key });
    }
    call.server.invalidate_all();
    call.out.ok();
    Ok(())
}

/// The options of `SCAN` and similar commands.
#[derive(Debug)]
pub(super) struct Scan<'a> {
    cursor: u64,
    count: usize,
    pattern: Option<&'a [u8]>,
    kind: Option<&'a [u8]>,
}

pub(super) fn scan(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    let scan = Scan::parse(args[1], &args[2..], true)?;
    let ms = call.ms();
    let mut all: Vec<(u64, &[u8])> = call
        .server
        .data
        .iter()
        .map(|(key, _)| (digest(key), key))
        .collect();
    all.sort_unstable();
    let (next, found) = scan.walk(all.into_iter());
    let found: Vec<&[u8]> = found
        .into_iter()
        .filter(|key| match (call.server.data.live(key, ms), scan.kind) {
            (Some(entry), Some(kind)) => {
                kind.eq_ignore_ascii_case(entry.value.type_name().as_bytes())
            }
            (entry, None) => entry.is_some(),
            (None, _) => false,
        })
        .collect();
    call.out.array(2);
    call.out.bulk(next.to_string().as_bytes());
    call.out.array(found.len());
    for key in found {
        call.out.bulk(key);
    }
    Ok(())
}

impl<'a> Scan<'a> {
    pub(super) fn parse(
        cursor: &[u8],
        options: &[&'a [u8]],
        of_keys: bool,
    ) -> Result<Self, Failure> {
        let cursor = str::from_utf8(cursor)
            .ok()
            .and_then(|cursor| cursor.parse().ok());
        let mut scan = Self {
            cursor: cursor.ok_or("ERR invalid cursor")?,
            count: 10,
            pattern: None,
            kind: None,
        };
        for pair in options.chunks(2) {
            let [option, value] = pair else {
                return Err(SYNTAX.into());
            };
            match option.to_ascii_uppercase().as_slice() {
                b"COUNT" => {
                    let count = number::integer(value).ok_or(NOT_AN_INTEGER)?;
                    scan.count = usize::try_from(count).unwrap_or_default();
                    if scan.count == 0 {
                        return Err(SYNTAX.into());
                    }
                }
                b"MATCH" => scan.pattern = Some(value),
                b"TYPE" if of_keys => scan.kind = Some(value),
                _ => return Err(SYNTAX.into()),
            }
        }
        Ok(scan)
    }

    /// Walks over the sorted items, from the cursor on. Returns the cursor for the next call (0 if
    /// no items are left) and the items that match the pattern.
    pub(super) fn walk<'k>(
        &self,
        all: impl Iterator<Item = (u64, &'k [u8])>,
    ) -> (u64, Vec<&'k [u8]>) {
        let mut found = Vec::new();
        let mut last = 0;
        let rest = all.skip_while(|(at, _)| *at < self.cursor);
        for (seen, (at, name)) in rest.enumerate() {
            // Items with the same digest are returned together, because the cursor would otherwise
            // skip some of them.
            if seen >= self.count && at != last {
                return (at, found);
            }
            last = at;
            if self
                .pattern
                .is_none_or(|pattern| glob::matches(pattern, name))
            {
                found.push(name);
            }
        }
        (0, found)
    }
}
