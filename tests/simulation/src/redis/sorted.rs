//! Commands on sorted sets.

use super::call::{Call, Done, Failure, NOT_A_FLOAT, NOT_AN_INTEGER, SYNTAX};
use super::data::{Value, sorted};
use super::number;
use super::sorted_set::{Name, Score, SortedSet};
use super::strings::range;

/// The options of `ZADD`.
#[derive(Debug, Default)]
struct Add {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
    ch: bool,
    incr: bool,
}

/// `ZADD` and `ZINCRBY`.
pub(super) fn zadd(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    let key = args[1];
    let (options, pairs) = match call.name {
        "zincrby" => {
            let options = Add {
                incr: true,
                ..Add::default()
            };
            (options, &args[2..])
        }
        _ => Add::parse(&args[2..])?,
    };
    let scores = pairs
        .iter()
        .step_by(2)
        .map(|score| number::float(score).ok_or(NOT_A_FLOAT));
    let scores = scores.collect::<Result<Vec<f64>, _>>()?;
    call.lapse(key);
    let ms = call.ms();
    if sorted(call.server.data.live(key, ms))?.is_none() {
        if options.xx {
            match options.incr {
                true => call.out.nil(),
                false => call.out.integer(0),
            }
            return Ok(());
        }
        call.server
            .data
            .set(key, Value::Sorted(SortedSet::default()), false);
    }
    let Some(Value::Sorted(set)) = call.server.data.value_mut(key) else {
        return Ok(());
    };
    let (mut added, mut updated, mut last) = (0, 0, None);
    let mut failure = None;
    for (member, score) in pairs.iter().skip(1).step_by(2).zip(scores) {
        match options.apply(set.score(member), score) {
            Ok(Some(after)) => {
                last = Some(after);
                match set.score(member) {
                    None => added += 1,
                    Some(before) if before != after => updated += 1,
                    Some(_) => continue,
                }
                set.insert(member, after);
            }
            Ok(None) => last = None,
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    let is_empty = set.len() == 0;
    call.changed(key, added + updated > 0, is_empty);
    if let Some(failure) = failure {
        return Err(failure);
    }
    match (options.incr, last) {
        (true, Some(score)) => call.out.double(score),
        (true, None) => call.out.nil(),
        (false, _) => call
            .out
            .count(if options.ch { added + updated } else { added }),
    }
    Ok(())
}

impl Add {
    fn parse<'s, 'a>(args: &'s [&'a [u8]]) -> Result<(Self, &'s [&'a [u8]]), Failure> {
        let mut add = Self::default();
        let mut at = 0;
        while let Some(option) = args.get(at) {
            match option.to_ascii_uppercase().as_slice() {
                b"NX" => add.nx = true,
                b"XX" => add.xx = true,
                b"GT" => add.gt = true,
                b"LT" => add.lt = true,
                b"CH" => add.ch = true,
                b"INCR" => add.incr = true,
                _ => break,
            }
            at += 1;
        }
        let pairs = &args[at..];
        if pairs.is_empty() || !pairs.len().is_multiple_of(2) {
            return Err(SYNTAX.into());
        }
        if add.nx && add.xx {
            return Err("ERR XX and NX options at the same time are not compatible".into());
        }
        if [add.gt, add.lt, add.nx]
            .iter()
            .filter(|is_set| **is_set)
            .count()
            > 1
        {
            return Err("ERR GT, LT, and/or NX options at the same time are not compatible".into());
        }
        if add.incr && pairs.len() > 2 {
            return Err("ERR INCR option supports a single increment-element pair".into());
        }
        Ok((add, pairs))
    }

    /// The new score of a member; `None` if the options forbid the change.
    fn apply(&self, before: Option<f64>, score: f64) -> Result<Option<f64>, Failure> {
        let Some(before) = before else {
            return Ok((!self.xx).then_some(score));
        };
        if self.nx {
            return Ok(None);
        }
        let after = if self.incr { before + score } else { score };
        if after.is_nan() {
            return Err("ERR resulting score is not a number (NaN)".into());
        }
        let refused = (self.lt && after >= before) || (self.gt && after <= before);
        Ok((!refused).then_some(after))
    }
}

pub(super) fn zrem(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    let key = args[1];
    call.lapse(key);
    let ms = call.ms();
    sorted(call.server.data.live(key, ms))?;
    call.remove_members(
        key,
        args[2..].iter().map(|member| member.to_vec()).collect(),
    );
    Ok(())
}

pub(super) fn zremrangebyscore(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    let key = args[1];
    let (min, max) = scores(args[2], args[3])?;
    call.lapse(key);
    let ms = call.ms();
    let set = sorted(call.server.data.live(key, ms))?;
    let members = set.map(|set| set.by_score(min, max).map(|(member, _)| member.to_vec()));
    let members = members.into_iter().flatten().collect();
    call.remove_members(key, members);
    Ok(())
}

pub(super) fn zcard(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    call.lapse(args[1]);
    let ms = call.ms();
    let set = sorted(call.server.data.live(args[1], ms))?;
    call.out.count(set.map_or(0, SortedSet::len));
    Ok(())
}

pub(super) fn zcount(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    let (min, max) = scores(args[2], args[3])?;
    call.lapse(args[1]);
    let ms = call.ms();
    let set = sorted(call.server.data.live(args[1], ms))?;
    call.out
        .count(set.map_or(0, |set| set.by_score(min, max).count()));
    Ok(())
}

pub(super) fn zscore(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    call.lapse(args[1]);
    let ms = call.ms();
    let set = sorted(call.server.data.live(args[1], ms))?;
    match set.and_then(|set| set.score(args[2])) {
        Some(score) => call.out.double(score),
        None => call.out.nil(),
    }
    Ok(())
}

pub(super) fn zrank(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    call.lapse(args[1]);
    let ms = call.ms();
    let set = sorted(call.server.data.live(args[1], ms))?;
    match set.and_then(|set| set.iter().position(|(member, _)| member == args[2])) {
        Some(place) => call.out.count(place),
        None => call.out.nil(),
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Place,
    Score,
    Name,
}

/// `ZRANGE key from to [BYSCORE|BYLEX] [REV] [LIMIT skipped count] [WITHSCORES]`, and
/// `ZRANGEBYSCORE` and `ZRANGEBYLEX`.
pub(super) fn zrange(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    let mut by = match call.name {
        "zrangebyscore" => By::Score,
        "zrangebylex" => By::Name,
        _ => By::Place,
    };
    let is_plain = call.name == "zrange";
    let (mut reversed, mut with_scores, mut limit) = (false, false, None);
    let mut options = args[4..].iter();
    while let Some(option) = options.next() {
        match option.to_ascii_uppercase().as_slice() {
            b"WITHSCORES" => with_scores = true,
            b"REV" if is_plain => reversed = true,
            b"BYSCORE" if is_plain => by = By::Score,
            b"BYLEX" if is_plain => by = By::Name,
            b"LIMIT" => {
                let (Some(skipped), Some(count)) = (options.next(), options.next()) else {
                    return Err(SYNTAX.into());
                };
                let skipped = number::integer(skipped).ok_or(NOT_AN_INTEGER)?;
                let count = number::integer(count).ok_or(NOT_AN_INTEGER)?;
                limit = Some((skipped, count));
            }
            _ => return Err(SYNTAX.into()),
        }
    }
    if limit.is_some() && by == By::Place {
        return Err(
            "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX"
                .into(),
        );
    }
    if with_scores && by == By::Name {
        return Err("ERR syntax error, WITHSCORES not supported in combination with BYLEX".into());
    }
    // A reversed range has its ends in reverse order too, unless it is a range by index.
    let (from, to) = match reversed && by != By::Place {
        true => (args[3], args[2]),
        false => (args[2], args[3]),
    };
    let (mut min, mut max) = (Score::ALL, Score::ALL);
    let (mut first, mut last) = (Name::First, Name::Last);
    let (mut start, mut end) = (0, -1);
    match by {
        By::Score => (min, max) = scores(from, to)?,
        By::Name => (first, last) = (name(from)?, name(to)?),
        By::Place => {
            start = number::integer(from).ok_or(NOT_AN_INTEGER)?;
            end = number::integer(to).ok_or(NOT_AN_INTEGER)?;
        }
    }
    call.lapse(args[1]);
    let ms = call.ms();
    let Some(set) = sorted(call.server.data.live(args[1], ms))? else {
        call.out.array(0);
        return Ok(());
    };
    let mut found: Vec<(&[u8], f64)> = match by {
        By::Place => {
            let places = range(start, end, set.len());
            let (skipped, count) = (places.start, places.len());
            match reversed {
                false => set.iter().skip(skipped).take(count).collect(),
                true => set.iter().rev().skip(skipped).take(count).collect(),
            }
        }
        By::Score => limited(set.by_score(min, max), reversed, limit),
        By::Name => limited(set.by_name(first, last), reversed, limit),
    };
    // With a negative number of skipped members, Redis returns no members.
    if limit.is_some_and(|(skipped, _)| skipped < 0) {
        found.clear();
    }
    let pairs = with_scores && call.out.resp3;
    call.out.array(if with_scores && !pairs {
        found.len() * 2
    } else {
        found.len()
    });
    for (member, score) in found {
        if pairs {
            call.out.array(2);
        }
        call.out.bulk(member);
        if with_scores {
            call.out.double(score);
        }
    }
    Ok(())
}

fn limited<'k>(
    walk: impl Iterator<Item = (&'k [u8], f64)>,
    reversed: bool,
    limit: Option<(i64, i64)>,
) -> Vec<(&'k [u8], f64)> {
    let (skipped, count) = limit.unwrap_or((0, -1));
    let skipped = usize::try_from(skipped).unwrap_or_default();
    // A negative count means all members.
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if !reversed {
        return walk.skip(skipped).take(count).collect();
    }
    let all: Vec<_> = walk.collect();
    all.into_iter().rev().skip(skipped).take(count).collect()
}

/// The two ends of a range of scores.
fn scores(min: &[u8], max: &[u8]) -> Result<(Score, Score), Failure> {
    let score = |text: &[u8]| {
        let excluded = text.first() == Some(&b'(');
        let at = number::float(&text[usize::from(excluded)..])?;
        Some(Score { at, excluded })
    };
    match (score(min), score(max)) {
        (Some(min), Some(max)) => Ok((min, max)),
        _ => Err("ERR min or max is not a float".into()),
    }
}

/// One end of a range of names.
fn name(text: &[u8]) -> Result<Name<'_>, Failure> {
    match text {
        b"-" => Ok(Name::First),
        b"+" => Ok(Name::Last),
        [b'[', name @ ..] => Ok(Name::Including(name)),
        [b'(', name @ ..] => Ok(Name::Excluding(name)),
        _ => Err("ERR min or max not valid string range item".into()),
    }
}

impl Call<'_> {
    fn remove_members(&mut self, key: &[u8], members: Vec<Vec<u8>>) {
        let (mut removed, mut is_empty) = (0, false);
        if let Some(Value::Sorted(set)) = self.server.data.value_mut(key) {
            removed = members.iter().filter(|member| set.remove(member)).count();
            is_empty = set.len() == 0;
        }
        self.changed(key, removed > 0, is_empty);
        self.out.count(removed);
    }
}
