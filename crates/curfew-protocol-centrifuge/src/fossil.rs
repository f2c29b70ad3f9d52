//! Differences between publications, in the delta format of the version control system Fossil.
//!
//! A difference consists of the length of the target, commands, and a checksum of the target. A
//! command copies a part of the base or inserts bytes. Numbers are in base 64.

use std::fmt;

/// The digits of base 64, in ascending order.
const DIGITS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~";

/// Maximum number of digits of a 64-bit number.
const MAX_DIGITS: usize = 11;

/// Size of a block, in bytes. The hashes of the base's blocks serve to find parts that base and
/// target have in common.
const BLOCK: usize = 16;

/// Maximum number of base blocks that are tried at one position of the target. The limit bounds the
/// cost of a base with many equal blocks.
const MAX_TRIED: usize = 16;

/// Factor of the rolling hash of a block.
const FACTOR: u32 = 0x0100_0193;

/// The difference from which a client computes `target`, given `base`; `None` if the difference is
/// not shorter than `target`. If `is_text`, `base` and `target` are UTF-8, and so is the
/// difference.
///
/// The computation takes time and memory in proportion to the lengths of `base` and `target`.
pub fn difference(base: &[u8], target: &[u8], is_text: bool) -> Option<Vec<u8>> {
    let mut difference = Difference::new(base, target, is_text);
    difference.write();
    (difference.out.len() < target.len()).then_some(difference.out)
}

struct Difference<'d> {
    base: &'d [u8],
    target: &'d [u8],
    is_text: bool,
    /// Index in the target up to which `out` is complete.
    done: usize,
    out: Vec<u8>,
}

impl fmt::Debug for Difference<'_> {
    /// Prints no data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Difference({} bytes)", self.target.len())
    }
}

/// A part of the target that the base also contains.
#[derive(Debug, Clone, Copy)]
struct Copied {
    base: usize,
    target: usize,
    length: usize,
}

impl<'d> Difference<'d> {
    fn new(base: &'d [u8], target: &'d [u8], is_text: bool) -> Self {
        Self {
            base,
            target,
            is_text,
            done: 0,
            out: Vec::with_capacity(target.len().min(256)),
        }
    }

    fn write(&mut self) {
        put_number(self.target.len(), &mut self.out);
        self.out.push(b'\n');
        // Most publications differ from the previous publication in one place.
        let prefix = common(self.base.iter(), self.target.iter());
        let rest = self.target.len().min(self.base.len()) - prefix;
        let (base, target) = (self.base.iter().rev(), self.target.iter().rev());
        let suffix = common(base.take(rest), target);
        self.copy(Copied {
            base: 0,
            target: 0,
            length: prefix,
        });
        let end = self.target.len() - suffix;
        if end - self.done >= BLOCK {
            self.find(end);
        }
        self.copy(Copied {
            base: self.base.len() - suffix,
            target: end,
            length: suffix,
        });
        self.insert(self.target.len());
        put_number(checksum(self.target) as usize, &mut self.out);
        self.out.push(b';');
    }

    /// Searches the target from `done` to `end` for parts that the base has, and copies these
    /// parts.
    fn find(&mut self, end: usize) {
        let blocks = Blocks::new(self.base);
        let mut at = self.done;
        let mut hash = None;
        while at + BLOCK <= end {
            let block = &self.target[at..at + BLOCK];
            let value = match hash {
                Some(value) => value,
                None => hash_of(block),
            };
            let best = blocks
                .candidates(value)
                .filter(|start| self.base[*start..*start + BLOCK] == *block)
                .map(|start| self.around(start, at, end))
                .max_by_key(|copied| copied.length);
            let before = self.done;
            if let Some(best) = best {
                self.copy(best);
            }
            if self.done > before && self.done > at {
                at = self.done;
                hash = None;
            } else {
                let next = self.target.get(at + BLOCK).copied().unwrap_or_default();
                hash = Some(roll(value, block[0], next));
                at += 1;
            }
        }
    }

    /// The longest part that base and target have in common around the equal blocks at `base` and
    /// `target`.
    fn around(&self, base: usize, target: usize, end: usize) -> Copied {
        let open = &self.target[self.done..target];
        let before = common(self.base[..base].iter().rev(), open.iter().rev());
        let after = common(self.base[base..].iter(), self.target[target..end].iter());
        Copied {
            base: base - before,
            target: target - before,
            length: before + after,
        }
    }

    /// Copies a part, after inserting the unwritten bytes before it. Does nothing if the command
    /// would be no shorter than the part itself.
    fn copy(&mut self, mut copied: Copied) {
        if self.is_text {
            // The copied part shrinks to whole characters of the target. Each inserted part is then
            // valid UTF-8.
            while copied.length > 0 && !is_boundary(self.target, copied.target) {
                copied.base += 1;
                copied.target += 1;
                copied.length -= 1;
            }
            while copied.length > 0 && !is_boundary(self.target, copied.target + copied.length) {
                copied.length -= 1;
            }
        }
        if digits(copied.length) + digits(copied.base) + 2 >= copied.length {
            return;
        }
        self.insert(copied.target);
        put_number(copied.length, &mut self.out);
        self.out.push(b'@');
        put_number(copied.base, &mut self.out);
        self.out.push(b',');
        self.done = copied.target + copied.length;
    }

    /// Inserts the target's bytes from `done` to `end`.
    fn insert(&mut self, end: usize) {
        let part = &self.target[self.done..end];
        if !part.is_empty() {
            put_number(part.len(), &mut self.out);
            self.out.push(b':');
            self.out.extend_from_slice(part);
            self.done = end;
        }
    }
}

/// The number of equal items at the start of both iterators.
fn common<'i>(one: impl Iterator<Item = &'i u8>, other: impl Iterator<Item = &'i u8>) -> usize {
    one.zip(other)
        .take_while(|(one, other)| one == other)
        .count()
}

/// True if no character of the text is cut at `at`.
fn is_boundary(text: &[u8], at: usize) -> bool {
    text.get(at).is_none_or(|byte| byte & 0xc0 != 0x80)
}

/// The complete blocks of a base, found by their hashes.
struct Blocks {
    /// For each place in the hash table, the first block there, counted from 1; 0 for no block.
    /// `candidates` yields the first block first, because a copy from an earlier block can be
    /// longer.
    first: Vec<u32>,
    /// For each block, the next block at the same place in the hash table, counted from 1; 0 for no
    /// block.
    next: Vec<u32>,
}

impl Blocks {
    fn new(base: &[u8]) -> Self {
        let blocks = base.chunks_exact(BLOCK);
        let mut first = vec![0; blocks.len().next_power_of_two()];
        let mut next = vec![0; blocks.len()];
        for (at, (block, next)) in blocks.zip(&mut next).enumerate().rev() {
            let place = place(hash_of(block), first.len());
            *next = std::mem::replace(&mut first[place], at as u32 + 1);
        }
        Self { first, next }
    }

    /// Start indexes, in the base, of the blocks that may have this hash.
    fn candidates(&self, hash: u32) -> impl Iterator<Item = usize> {
        let mut number = self.first[place(hash, self.first.len())];
        std::iter::from_fn(move || {
            let index = (number as usize).checked_sub(1)?;
            number = self.next[index];
            Some(index * BLOCK)
        })
        .take(MAX_TRIED)
    }
}

/// The index of a hash in a table, whose length is a power of two.
fn place(hash: u32, length: usize) -> usize {
    // The high bits depend on every byte of the block.
    (hash.wrapping_mul(0x9e37_79b1) >> 7) as usize & (length - 1)
}

fn hash_of(block: &[u8]) -> u32 {
    block.iter().fold(0, |hash: u32, byte| {
        hash.wrapping_mul(FACTOR).wrapping_add(u32::from(*byte))
    })
}

/// The hash of the block that begins one byte later. `first` is the first byte of the old block,
/// and `next` is the last byte of the new block.
fn roll(hash: u32, first: u8, next: u8) -> u32 {
    const LEAVING: u32 = FACTOR.wrapping_pow(BLOCK as u32 - 1);
    hash.wrapping_sub(LEAVING.wrapping_mul(first.into()))
        .wrapping_mul(FACTOR)
        .wrapping_add(next.into())
}

/// The sum of the bytes as big-endian words.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.chunks(4).fold(0, |sum: u32, word| {
        let mut whole = [0; 4];
        whole[..word.len()].copy_from_slice(word);
        sum.wrapping_add(u32::from_be_bytes(whole))
    })
}

/// The number of digits of a number in base 64.
fn digits(number: usize) -> usize {
    (number.checked_ilog2().unwrap_or(0) / 6 + 1) as usize
}

fn put_number(mut number: usize, out: &mut Vec<u8>) {
    let mut written = [0; MAX_DIGITS];
    let length = digits(number);
    for digit in written[..length].iter_mut().rev() {
        *digit = DIGITS[number % 64];
        number /= 64;
    }
    out.extend_from_slice(&written[..length]);
}

#[cfg(test)]
mod tests;
