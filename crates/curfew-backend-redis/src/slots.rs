//! The slots of a Redis Cluster (Redis Cluster Specification, "Key distribution model").

use std::sync::LazyLock;

/// The number of slots of a cluster.
const SLOTS: u16 = 16_384;

/// One of the 16,384 parts of the key space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Slot(pub(crate) u16);

impl Slot {
    /// The slot of the revocations.
    pub(crate) const REVOKED: Self = Self(crc16(b"revoked") % SLOTS);

    /// The first and the last slot.
    pub(crate) const ALL: (Self, Self) = (Self(0), Self(SLOTS - 1));
}

/// The slot of a key: the hash of the text between its first `{` and the next `}`, or of the whole
/// key if there is no such text.
pub(crate) fn slot_of(key: &[u8]) -> Slot {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let after = &key[open + 1..];
        let close = after.iter().position(|byte| *byte == b'}')?;
        (close > 0).then(|| &after[..close])
    });
    Slot(crc16(tag.unwrap_or(key)) % SLOTS)
}

/// CRC-16/XMODEM: polynomial 0x1021, starting at 0.
const fn crc16(bytes: &[u8]) -> u16 {
    let mut crc: u16 = 0;
    let mut at = 0;
    while at < bytes.len() {
        let index = (crc >> 8) as u8 ^ bytes[at];
        crc = (crc << 8) ^ TABLE[index as usize];
        at += 1;
    }
    crc
}

/// The change of the checksum for each value of its upper byte.
const TABLE: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            let carry = crc & 0x8000 != 0;
            crc <<= 1;
            if carry {
                crc ^= 0x1021;
            }
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// Appends letters to `begin`, so that the result is a hash tag whose keys are in `slot`.
pub(crate) fn tag_in_slot(begin: &str, slot: Slot) -> String {
    /// Three of these letters are enough to reach every slot from any beginning.
    const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    /// For each change of the slot, three letters that cause it. The checksum is linear, so the
    /// same letters cause the same change after every beginning.
    static SUFFIXES: LazyLock<Vec<[u8; 3]>> = LazyLock::new(|| {
        let mut suffixes = vec![[0; 3]; usize::from(SLOTS)];
        for a in *LETTERS {
            for b in *LETTERS {
                for c in *LETTERS {
                    suffixes[usize::from(crc16(&[a, b, c]) % SLOTS)] = [a, b, c];
                }
            }
        }
        suffixes
    });
    let mut bytes = begin.as_bytes().to_vec();
    bytes.extend([0; 3]);
    let before = crc16(&bytes) % SLOTS;
    let suffix = SUFFIXES[usize::from(before ^ slot.0)];
    let suffix = suffix.map(char::from);
    begin.chars().chain(suffix).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_leads_to_every_slot() {
        for slot in 0..SLOTS {
            let tag = tag_in_slot("0123456789abcdef", Slot(slot));
            assert_eq!(slot_of(format!("x:{{{tag}}}:y").as_bytes()), Slot(slot));
            assert!(
                tag.bytes().all(|byte| byte.is_ascii_alphanumeric()),
                "{tag}"
            );
        }
    }

    #[test]
    fn slots_are_those_of_redis() {
        // The check value is from the specification. The slots are the answers of a real Redis.
        assert_eq!(crc16(b"123456789"), 0x31c3);
        for (key, expect) in [
            ("foo", 12182),
            ("bar", 5061),
            ("{foo}.a", 12182),
            ("a{foo}b{bar}", 12182),
            ("{}foo", crc16(b"{}foo") % SLOTS),
            ("", 0),
        ] {
            assert_eq!(slot_of(key.as_bytes()), Slot(expect), "{key}");
        }
        assert_eq!(slot_of(b"curfew:{revoked}:all"), Slot::REVOKED);
    }
}
