//! Commands on strings.

use super::call::{Call, Done, Failure, NOT_AN_INTEGER, SYNTAX};
use super::data::{Value, string};
use super::number;

/// The options of `SET` and `GETEX`.
#[derive(Debug, Default)]
struct Options<'a> {
    only_new: bool,
    only_there: bool,
    get: bool,
    keep_expiry: bool,
    persist: bool,
    end: Option<End<'a>>,
}

/// An expiry in the options of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct End<'a> {
    number: &'a [u8],
    /// Unit in milliseconds.
    unit: i64,
    /// True if the time counts from now instead of from 1970.
    is_relative: bool,
}

pub(super) fn get(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    call.lapse(args[1]);
    let ms = call.ms();
    let value = string(call.server.data.live(args[1], ms))?;
    call.out.optional(value);
    Ok(())
}

pub(super) fn set(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    let (key, value) = (args[1], args[2]);
    let options = Options::parse(&args[3..], false)?;
    let expires_at = options.expires_at(call)?;
    call.lapse(key);
    let ms = call.ms();
    let entry = call.server.data.live(key, ms);
    let is_there = entry.is_some();
    if options.get {
        call.out.optional(string(entry)?);
    }
    if (options.only_new && is_there) || (options.only_there && !is_there) {
        if !options.get {
            call.out.nil();
        }
        return Ok(());
    }
    call.write(key, value.to_vec(), options.keep_expiry);
    if expires_at.is_some() {
        call.server.data.set_expiry(key, expires_at);
    }
    if !options.get {
        call.out.ok();
    }
    Ok(())
}

pub(super) fn setnx(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    call.lapse(args[1]);
    let ms = call.ms();
    let is_there = call.server.data.live(args[1], ms).is_some();
    if !is_there {
        call.write(args[1], args[2].to_vec(), false);
    }
    call.out.count(usize::from(!is_there));
    Ok(())
}

pub(super) fn setex(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    let unit = if call.name == "psetex" { 1 } else { 1000 };
    let end = expiry(call, args[2], unit, true)?;
    call.lapse(args[1]);
    call.write(args[1], args[3].to_vec(), false);
    call.server.data.set_expiry(args[1], Some(end));
    call.out.ok();
    Ok(())
}

pub(super) fn getset(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    get(call, args)?;
    call.write(args[1], args[2].to_vec(), false);
    Ok(())
}

pub(super) fn getdel(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    get(call, args)?;
    call.remove(args[1]);
    Ok(())
}

pub(super) fn getex(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    let key = args[1];
    let options = Options::parse(&args[2..], true)?;
    call.lapse(key);
    let ms = call.ms();
    let entry = call.server.data.live(key, ms);
    string(entry)?;
    let Some(had_expiry) = entry.map(|entry| entry.expires_at().is_some()) else {
        call.out.nil();
        return Ok(());
    };
    let expires_at = options.expires_at(call)?;
    get(call, args)?;
    match expires_at {
        Some(end) if end <= ms && !call.server.replica => {
            call.remove(key);
        }
        Some(end) => {
            call.server.data.set_expiry(key, Some(end));
            call.touched(key);
            call.note_other(key);
        }
        None if options.persist && had_expiry => {
            call.server.data.set_expiry(key, None);
            call.touched(key);
            call.note_other(key);
        }
        None => {}
    }
    Ok(())
}

pub(super) fn mget(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    call.out.array(args.len() - 1);
    for key in &args[1..] {
        call.lapse(key);
        let ms = call.ms();
        // A key of another type counts as missing.
        let value = string(call.server.data.live(key, ms)).unwrap_or_default();
        call.out.optional(value);
    }
    Ok(())
}

pub(super) fn mset(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    if args.len().is_multiple_of(2) {
        return Err(format!("ERR wrong number of arguments for '{}' command", call.name).into());
    }
    let only_new = call.name == "msetnx";
    let ms = call.ms();
    for pair in args[1..].chunks_exact(2) {
        call.lapse(pair[0]);
        if only_new && call.server.data.live(pair[0], ms).is_some() {
            call.out.integer(0);
            return Ok(());
        }
    }
    for pair in args[1..].chunks_exact(2) {
        call.write(pair[0], pair[1].to_vec(), false);
    }
    if only_new {
        call.out.integer(1);
    } else {
        call.out.ok();
    }
    Ok(())
}

pub(super) fn append(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    let mut value = call.read(args[1])?.unwrap_or_default();
    value.extend_from_slice(args[2]);
    call.out.count(value.len());
    call.write(args[1], value, true);
    Ok(())
}

pub(super) fn strlen(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    call.lapse(args[1]);
    let ms = call.ms();
    let value = string(call.server.data.live(args[1], ms))?;
    call.out.count(value.map_or(0, <[u8]>::len));
    Ok(())
}

pub(super) fn setrange(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    let offset = number::integer(args[2]).ok_or(NOT_AN_INTEGER)?;
    let Ok(offset) = usize::try_from(offset) else {
        return Err("ERR offset is out of range".into());
    };
    let mut value = call.read(args[1])?.unwrap_or_default();
    if args[3].is_empty() {
        call.out.count(value.len());
        return Ok(());
    }
    let end = offset + args[3].len();
    if end > 512 * 1024 * 1024 {
        return Err("ERR string exceeds maximum allowed size (proto-max-bulk-len)".into());
    }
    value.resize(value.len().max(end), 0);
    value[offset..end].copy_from_slice(args[3]);
    call.out.count(value.len());
    call.write(args[1], value, true);
    Ok(())
}

pub(super) fn getrange(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    let start = number::integer(args[2]).ok_or(NOT_AN_INTEGER)?;
    let end = number::integer(args[3]).ok_or(NOT_AN_INTEGER)?;
    call.lapse(args[1]);
    let ms = call.ms();
    let value = string(call.server.data.live(args[1], ms))?.unwrap_or_default();
    let length = i64::try_from(value.len()).unwrap_or(i64::MAX);
    let range = match start < 0 && end < 0 && start > end {
        true => 0..0,
        // An end before the first byte counts as the first byte.
        false if end.saturating_add(length) < 0 => range(start, 0, value.len()),
        false => range(start, end, value.len()),
    };
    call.out.bulk(&value[range]);
    Ok(())
}

/// The range of indexes from `start` to `end`. Negative indexes count from the end of the string.
pub(super) fn range(start: i64, end: i64, length: usize) -> std::ops::Range<usize> {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let from_end = |place: i64| match place < 0 {
        true => place.saturating_add(length),
        false => place,
    };
    let (start, end) = (from_end(start).max(0), from_end(end).min(length - 1));
    if start > end || start >= length {
        return 0..0;
    }
    let place = |place: i64| usize::try_from(place).unwrap_or_default();
    place(start)..place(end + 1)
}

pub(super) fn incr(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    let by = match call.name {
        "incr" => 1,
        "decr" => -1,
        "incrby" => number::integer(args[2]).ok_or(NOT_AN_INTEGER)?,
        _ => match number::integer(args[2]).ok_or(NOT_AN_INTEGER)? {
            i64::MIN => return Err("ERR decrement would overflow".into()),
            by => -by,
        },
    };
    let before = match call.read(args[1])? {
        Some(value) => number::integer(&value).ok_or(NOT_AN_INTEGER)?,
        None => 0,
    };
    let Some(after) = before.checked_add(by) else {
        return Err("ERR increment or decrement would overflow".into());
    };
    call.write(args[1], after.to_string().into_bytes(), true);
    call.out.integer(after);
    Ok(())
}

impl Call<'_> {
    /// A copy of a string.
    fn read(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        self.lapse(key);
        let ms = self.ms();
        Ok(string(self.server.data.live(key, ms))?.map(<[u8]>::to_vec))
    }

    /// Writes a string.
    pub(super) fn write(&mut self, key: &[u8], value: Vec<u8>, keep_expiry: bool) {
        self.note_set(key, &value);
        self.server.data.set(key, Value::String(value), keep_expiry);
        self.touched(key);
    }
}

impl<'a> Options<'a> {
    fn parse(args: &[&'a [u8]], get_only: bool) -> Result<Self, Failure> {
        let mut options = Self::default();
        let mut args = args.iter();
        while let Some(option) = args.next() {
            match option.to_ascii_uppercase().as_slice() {
                b"NX" if !get_only && !options.only_there => options.only_new = true,
                b"XX" if !get_only && !options.only_new => options.only_there = true,
                b"GET" if !get_only => options.get = true,
                b"KEEPTTL" if !get_only && options.end.is_none() => options.keep_expiry = true,
                b"PERSIST" if get_only && options.end.is_none() => options.persist = true,
                name @ (b"EX" | b"PX" | b"EXAT" | b"PXAT") => {
                    let end = End {
                        number: args.next().ok_or(SYNTAX)?,
                        unit: if name[0] == b'E' { 1000 } else { 1 },
                        is_relative: name.len() == 2,
                    };
                    // The same option may be given twice.
                    let is_other = |there: End<'_>| {
                        (there.unit, there.is_relative) != (end.unit, end.is_relative)
                    };
                    if options.keep_expiry || options.persist || options.end.is_some_and(is_other) {
                        return Err(SYNTAX.into());
                    }
                    options.end = Some(end);
                }
                _ => return Err(SYNTAX.into()),
            }
        }
        Ok(options)
    }

    /// The expiry in milliseconds since 1970.
    fn expires_at(&self, call: &Call<'_>) -> Result<Option<i64>, Failure> {
        let end = self
            .end
            .map(|end| expiry(call, end.number, end.unit, end.is_relative));
        end.transpose()
    }
}

/// Parses a time of `SET` and similar commands, in milliseconds since 1970.
fn expiry(call: &Call<'_>, text: &[u8], unit: i64, relative: bool) -> Result<i64, Failure> {
    let number = number::integer(text).ok_or(NOT_AN_INTEGER)?;
    let base = if relative { call.ms() } else { 0 };
    let moment = match number > 0 {
        true => number
            .checked_mul(unit)
            .and_then(|end| end.checked_add(base)),
        false => None,
    };
    moment.ok_or_else(|| format!("ERR invalid expire time in '{}' command", call.name).into())
}
