//! Commands on sets.

use super::call::{Call, Done, NOT_AN_INTEGER};
use super::data::{Set, Value, set};
use super::keyspace::Scan;

pub(super) fn sadd(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    let key = args[1];
    call.lapse(key);
    let ms = call.ms();
    if set(call.server.data.live(key, ms))?.is_none() {
        call.server.data.set(key, Value::Set(Set::default()), false);
    }
    let mut added = 0;
    if let Some(Value::Set(set)) = call.server.data.value_mut(key) {
        added = args[2..].iter().filter(|member| set.insert(member)).count();
    }
    call.changed(key, added > 0, false);
    call.out.count(added);
    Ok(())
}

pub(super) fn srem(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    let key = args[1];
    call.lapse(key);
    let ms = call.ms();
    set(call.server.data.live(key, ms))?;
    let (mut removed, mut is_empty) = (0, false);
    if let Some(Value::Set(set)) = call.server.data.value_mut(key) {
        removed = args[2..].iter().filter(|member| set.remove(member)).count();
        is_empty = set.len() == 0;
    }
    call.changed(key, removed > 0, is_empty);
    call.out.count(removed);
    Ok(())
}

pub(super) fn scard(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    call.lapse(args[1]);
    let ms = call.ms();
    let set = set(call.server.data.live(args[1], ms))?;
    call.out.count(set.map_or(0, Set::len));
    Ok(())
}

pub(super) fn sismember(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    call.lapse(args[1]);
    let ms = call.ms();
    let set = set(call.server.data.live(args[1], ms))?;
    if call.name == "smismember" {
        call.out.array(args.len() - 2);
    }
    for member in &args[2..] {
        let is_there = set.is_some_and(|set| set.contains(member));
        call.out.count(usize::from(is_there));
    }
    Ok(())
}

pub(super) fn smembers(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    call.lapse(args[1]);
    let ms = call.ms();
    let set = set(call.server.data.live(args[1], ms))?;
    call.out.set(set.map_or(0, Set::len));
    for member in set.into_iter().flat_map(Set::iter) {
        call.out.bulk(member);
    }
    Ok(())
}

pub(super) fn sscan(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    // Redis checks the cursor before the key, and the key before the options.
    Scan::parse(args[2], &[], false)?;
    call.lapse(args[1]);
    let ms = call.ms();
    let Some(set) = set(call.server.data.live(args[1], ms))? else {
        call.out.array(2);
        call.out.bulk(b"0");
        call.out.array(0);
        return Ok(());
    };
    let scan = Scan::parse(args[2], &args[3..], false)?;
    let (next, found) = scan.walk(set.0.iter().map(|(at, member)| (*at, &member[..])));
    call.out.array(2);
    call.out.bulk(next.to_string().as_bytes());
    call.out.array(found.len());
    for member in found {
        call.out.bulk(member);
    }
    Ok(())
}

/// `SPOP`: removes members of a set and returns them. Unlike Redis, it always takes the first
/// members.
pub(super) fn spop(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    let count = match args.get(2) {
        None => 1,
        Some(count) => super::number::integer(count)
            .and_then(|count| usize::try_from(count).ok())
            .ok_or(NOT_AN_INTEGER)?,
    };
    let key = args[1];
    call.lapse(key);
    let ms = call.ms();
    set(call.server.data.live(key, ms))?;
    let mut popped = Vec::new();
    let mut is_empty = false;
    if let Some(Value::Set(set)) = call.server.data.value_mut(key) {
        while popped.len() < count
            && let Some((_, member)) = set.0.pop_first()
        {
            popped.push(member);
        }
        is_empty = set.len() == 0;
    }
    call.changed(key, !popped.is_empty(), is_empty);
    if args.len() == 2 {
        call.out.optional(popped.first().map(|member| &member[..]));
        return Ok(());
    }
    call.out.set(popped.len());
    for member in popped {
        call.out.bulk(&member);
    }
    Ok(())
}
