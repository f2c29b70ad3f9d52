//! A reply as a value, for tests and operators that run single commands.
//!
//! Owns: the type of replies, and their parsing from RESP. Knows nothing of: commands, connections.

/// A reply, or a push, of RESP2 or RESP3.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// Null.
    Nil,
    /// A status.
    Simple(String),
    /// An error.
    Error(String),
    /// A number.
    Integer(i64),
    /// Bytes.
    Bulk(Vec<u8>),
    /// An array.
    Array(Vec<Reply>),
    /// A map, as pairs.
    Map(Vec<(Reply, Reply)>),
    /// A set, without an order.
    Set(Vec<Reply>),
    /// A floating-point number.
    Double(f64),
    /// A boolean.
    Boolean(bool),
    /// A push, which answers no command.
    Push(Vec<Reply>),
}

impl Reply {
    /// Reads one reply from the start of these bytes. Returns the reply and the number of its
    /// bytes; `None` if the reply is incomplete or the bytes are not RESP.
    pub fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let end = bytes.windows(2).position(|two| two == b"\r\n")?;
        let (kind, text) = bytes[..end].split_first()?;
        let text = String::from_utf8_lossy(text).into_owned();
        let at = end + 2;
        let count = || text.parse::<i64>().ok();
        Some(match kind {
            b'+' => (Self::Simple(text), at),
            b'-' => (Self::Error(text), at),
            b':' => (Self::Integer(count()?), at),
            b'_' => (Self::Nil, at),
            b'#' => (Self::Boolean(text == "t"), at),
            b',' => (Self::Double(text.parse().ok()?), at),
            b'$' | b'=' => {
                let Ok(length) = usize::try_from(count()?) else {
                    return Some((Self::Nil, at));
                };
                // A verbatim text begins with the three letters of its kind and a colon.
                let skipped = if *kind == b'=' { 4 } else { 0 };
                let content = bytes.get(at + skipped..at + length)?;
                let whole = at + length + 2;
                (whole <= bytes.len()).then(|| (Self::Bulk(content.to_vec()), whole))?
            }
            b'*' | b'~' | b'>' => {
                let Ok(count) = usize::try_from(count()?) else {
                    return Some((Self::Nil, at));
                };
                let (items, end) = Self::parse_many(bytes, at, count)?;
                let reply = match kind {
                    b'*' => Self::Array(items),
                    b'~' => Self::Set(items),
                    _ => Self::Push(items),
                };
                (reply, end)
            }
            b'%' => {
                let pairs = usize::try_from(count()?).ok()?;
                let (items, end) = Self::parse_many(bytes, at, pairs * 2)?;
                let mut items = items.into_iter();
                let mut map = Vec::with_capacity(pairs);
                while let (Some(key), Some(value)) = (items.next(), items.next()) {
                    map.push((key, value));
                }
                (Self::Map(map), end)
            }
            _ => return None,
        })
    }

    fn parse_many(bytes: &[u8], mut at: usize, count: usize) -> Option<(Vec<Self>, usize)> {
        let mut items = Vec::new();
        for _ in 0..count {
            let (item, length) = Self::parse(&bytes[at..])?;
            items.push(item);
            at += length;
        }
        Some((items, at))
    }
}
