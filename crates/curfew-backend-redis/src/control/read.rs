//! Reads revocation keys in every spelling.

use curfew_backend::Revoked;
use curfew_model::{RevocationKey, Spelling};
use futures_util::future::try_join_all;
use redis::{Value, cmd, from_redis_value, pipe};

use super::known_revocations::{Known, MAX_VALUE_BYTES};
use crate::connect::Connection;
use crate::fault::Fault;
use crate::keys::Keys;

/// Maximum number of keys read in one transaction. Their values take at most one mebibyte.
const AT_ONCE: usize = 256;

/// Maximum total size of the names in one command, in bytes. A longer name gets a command of its
/// own.
const NAMES_AT_ONCE: usize = 256 * 1024;

/// Maximum number of reads under way at once.
const READS_AT_ONCE: usize = 4;

/// Maximum number of names in one `EXISTS`. This number is enough for 512 sessions.
const EXISTS_AT_ONCE: usize = 4096;

/// The key of a revocation in one spelling.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SpelledKey {
    pub(crate) key: RevocationKey,
    pub(crate) spelling: Spelling,
}

impl SpelledKey {
    /// The key in each of its known [`spellings`](RevocationKey::spellings).
    pub(crate) fn all(key: &RevocationKey) -> impl Iterator<Item = Self> {
        key.spellings().map(|spelling| Self {
            key: key.clone(),
            spelling,
        })
    }

    /// The entry of this key and spelling in the index.
    pub(super) fn member(&self) -> String {
        self.key.written(self.spelling)
    }

    /// The name of the Redis key.
    pub(crate) fn name(&self, keys: &Keys) -> String {
        keys.spelled(&self.key, self.spelling)
    }

    /// The revocation that the key holds.
    pub(crate) fn revoked(&self, known: &Known) -> Revoked {
        Revoked {
            key: self.key.clone(),
            revocation: known.revocation(),
        }
    }
}

/// Splits a list into groups of at most `count` elements and of bounded total size.
pub(super) fn groups<T>(
    mut rest: &[T],
    count: usize,
    size: impl Fn(&T) -> usize,
) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let mut end = 0;
        while end < rest.len().min(count) {
            bytes += size(&rest[end]);
            if bytes > NAMES_AT_ONCE && end > 0 {
                break;
            }
            end += 1;
        }
        let (group, later) = rest.split_at(end);
        rest = later;
        (!group.is_empty()).then_some(group)
    })
}

fn name_groups(names: &[Vec<u8>], count: usize) -> impl Iterator<Item = &[Vec<u8>]> {
    groups(names, count, Vec::len)
}

/// Reads the keys of these names. Returns the value and expiry of each key, or `None` for a key
/// that does not exist.
pub(super) async fn read_names(
    connection: &Connection,
    names: &[Vec<u8>],
) -> Result<Vec<Option<Known>>, Fault> {
    let groups: Vec<_> = name_groups(names, AT_ONCE).collect();
    let mut known = Vec::with_capacity(names.len());
    for several in groups.chunks(READS_AT_ONCE) {
        let reads = several
            .iter()
            .map(|names| read_group(connection.clone(), names, true));
        for read in try_join_all(reads).await? {
            known.extend(read);
        }
    }
    Ok(known)
}

/// Like [`read_names`], for one key that the connection watches.
pub(super) async fn read_watched(
    connection: &Connection,
    name: &str,
) -> Result<Option<Known>, Fault> {
    let names = [name.as_bytes().to_vec()];
    let read = read_group(connection.clone(), &names, false).await?;
    Ok(read.into_iter().next().flatten())
}

/// Reads a group of keys, in a transaction if `atomic` is true. Without a transaction, a key could
/// be written or removed between `GETRANGE` and `PEXPIRETIME`. `GETRANGE` gives the same answer for
/// a missing key and for an empty value, and an empty value covers every token. A watched key is
/// read without a transaction, because a transaction would end the watch.
async fn read_group(
    mut connection: Connection,
    names: &[Vec<u8>],
    atomic: bool,
) -> Result<Vec<Option<Known>>, Fault> {
    let mut pipeline = pipe();
    if atomic {
        pipeline.atomic();
    }
    for name in names {
        // One byte more than the limit is read, which shows if the value is longer than the limit.
        pipeline
            .cmd("GETRANGE")
            .arg(name)
            .arg(0)
            .arg(MAX_VALUE_BYTES)
            .cmd("PEXPIRETIME")
            .arg(name);
    }
    let replies: Vec<Value> = pipeline
        .ignore_errors()
        .query_async(&mut connection)
        .await?;
    if replies.len() != names.len() * 2 {
        return Err(Fault::Unexpected("GETRANGE"));
    }
    let mut replies = replies.into_iter();
    let mut known = Vec::with_capacity(names.len());
    while let (Some(value), Some(expiry)) = (replies.next(), replies.next()) {
        let value = match value {
            Value::BulkString(value) => Some(value),
            Value::ServerError(error) if error.code() == "WRONGTYPE" => None,
            Value::ServerError(error) => return Err(Fault::Redis(error.into())),
            _ => return Err(Fault::Unexpected("GETRANGE")),
        };
        let expiry = from_redis_value(expiry).map_err(|_| Fault::Unexpected("PEXPIRETIME"))?;
        known.push(Known::new(value, expiry));
    }
    Ok(known)
}

/// Finds the names under which a key exists. Returns the index of each of these names in `names`,
/// with the value and expiry of the key.
pub(crate) async fn find_names(
    connection: &mut Connection,
    names: &[Vec<u8>],
) -> Result<Vec<(usize, Known)>, Fault> {
    let mut there = Vec::new();
    let mut first = 0;
    for group in name_groups(names, EXISTS_AT_ONCE) {
        // The keys are counted first, because nearly always no key exists. The count includes keys
        // of any type.
        let count: u64 = cmd("EXISTS").arg(group).query_async(connection).await?;
        if count > 0 {
            let mut pipeline = pipe();
            for name in group {
                pipeline.cmd("EXISTS").arg(name);
            }
            let each: Vec<u64> = pipeline.query_async(connection).await?;
            let places = (first..).zip(each);
            there.extend(places.filter_map(|(at, count)| (count > 0).then_some(at)));
        }
        first += group.len();
    }
    let names: Vec<Vec<u8>> = there.iter().map(|at| names[*at].clone()).collect();
    let known = read_names(connection, &names).await?;
    let found = there.into_iter().zip(known);
    Ok(found.filter_map(|(at, known)| Some((at, known?))).collect())
}

/// Finds the keys in `wanted` that exist in Redis, in every spelling.
pub(super) async fn find(
    connection: &mut Connection,
    keys: &Keys,
    wanted: &[RevocationKey],
) -> Result<Vec<(SpelledKey, Known)>, Fault> {
    let mut written = Vec::with_capacity(wanted.len() * 2);
    let mut names = Vec::with_capacity(wanted.len() * 2);
    for key in wanted {
        for spelling in key.spellings() {
            written.push((key, spelling));
            names.push(keys.spelled(key, spelling).into_bytes());
        }
    }
    let found = find_names(connection, &names).await?;
    let found = found.into_iter().map(|(at, known)| {
        let (key, spelling) = written[at];
        let key = key.clone();
        (SpelledKey { key, spelling }, known)
    });
    Ok(found.collect())
}

/// Reads these keys. Returns the value and expiry of each key, or `None` for a key that does not
/// exist.
pub(crate) async fn read(
    connection: &Connection,
    keys: &Keys,
    written: &[SpelledKey],
) -> Result<Vec<Option<Known>>, Fault> {
    let names: Vec<Vec<u8>> = written
        .iter()
        .map(|written| written.name(keys).into_bytes())
        .collect();
    read_names(connection, &names).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_bounded_by_count_and_size() {
        let names = |sizes: &[usize]| sizes.iter().map(|size| vec![0; *size]).collect::<Vec<_>>();
        let lengths = |sizes: &[usize]| -> Vec<usize> {
            let names = names(sizes);
            name_groups(&names, 3).map(<[_]>::len).collect()
        };
        assert!(lengths(&[]).is_empty());
        assert_eq!(lengths(&[1, 1, 1, 1]), [3, 1]);
        let half = NAMES_AT_ONCE / 2;
        assert_eq!(lengths(&[half, half, 1]), [2, 1]);
        assert_eq!(lengths(&[1, NAMES_AT_ONCE * 2, 1]), [1, 1, 1]);
    }
}
