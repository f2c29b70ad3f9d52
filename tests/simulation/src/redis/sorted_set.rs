//! A sorted set: its members are ordered by score, then by name.
//!
//! Owns: the order of members, and ranges in this order. Knows nothing of: commands, keys.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

/// Members with their scores.
#[derive(Debug, Clone, Default)]
pub(super) struct SortedSet {
    scores: BTreeMap<Arc<[u8]>, f64>,
    order: BTreeSet<Placed>,
}

#[derive(Debug, Clone)]
struct Placed {
    score: f64,
    member: Arc<[u8]>,
}

/// One end of a range of names.
#[derive(Debug, Clone, Copy)]
pub(super) enum Name<'a> {
    /// Before every name.
    First,
    /// After every name.
    Last,
    Including(&'a [u8]),
    Excluding(&'a [u8]),
}

/// One end of a range of scores.
#[derive(Debug, Clone, Copy)]
pub(super) struct Score {
    pub(super) at: f64,
    pub(super) excluded: bool,
}

impl SortedSet {
    pub(super) fn len(&self) -> usize {
        self.scores.len()
    }

    pub(super) fn score(&self, member: &[u8]) -> Option<f64> {
        self.scores.get(member).copied()
    }

    pub(super) fn insert(&mut self, member: &[u8], score: f64) {
        let member: Arc<[u8]> = member.into();
        if let Some(before) = self.scores.insert(Arc::clone(&member), score) {
            self.order.remove(&Placed {
                score: before,
                member: Arc::clone(&member),
            });
        }
        self.order.insert(Placed { score, member });
    }

    pub(super) fn remove(&mut self, member: &[u8]) -> bool {
        let Some((member, score)) = self.scores.remove_entry(member) else {
            return false;
        };
        self.order.remove(&Placed { score, member })
    }

    /// The members in order.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (&[u8], f64)> {
        self.order
            .iter()
            .map(|placed| (&placed.member[..], placed.score))
    }

    /// Members whose score is between the two ends, in order.
    pub(super) fn by_score(&self, min: Score, max: Score) -> impl Iterator<Item = (&[u8], f64)> {
        let from = Placed {
            score: min.at,
            member: Arc::from([]),
        };
        self.order
            .range(from..)
            .map(|placed| (&placed.member[..], placed.score))
            .skip_while(move |(_, score)| !min.is_below(*score))
            .take_while(move |(_, score)| max.is_above(*score))
    }

    /// Members whose name is between the two ends, in order. Useful only if all scores are equal.
    pub(super) fn by_name<'a>(
        &'a self,
        min: Name<'a>,
        max: Name<'a>,
    ) -> impl Iterator<Item = (&'a [u8], f64)> {
        let first = self.order.first().map(|placed| placed.score);
        let last = self.order.last().map(|placed| placed.score);
        let from = match (min, first) {
            (Name::Including(name) | Name::Excluding(name), Some(score)) if first == last => {
                Bound::Included(Placed {
                    score,
                    member: name.into(),
                })
            }
            _ => Bound::Unbounded,
        };
        self.order
            .range((from, Bound::Unbounded))
            .map(|placed| (&placed.member[..], placed.score))
            .skip_while(move |(name, _)| !min.is_below(name))
            .take_while(move |(name, _)| max.is_above(name))
    }
}

impl Score {
    pub(super) const ALL: Self = Self {
        at: 0.0,
        excluded: false,
    };

    fn is_below(self, score: f64) -> bool {
        score > self.at || (!self.excluded && score == self.at)
    }

    fn is_above(self, score: f64) -> bool {
        score < self.at || (!self.excluded && score == self.at)
    }
}

impl Name<'_> {
    fn is_below(self, name: &[u8]) -> bool {
        match self {
            Self::First => true,
            Self::Last => false,
            Self::Including(end) => name >= end,
            Self::Excluding(end) => name > end,
        }
    }

    fn is_above(self, name: &[u8]) -> bool {
        match self {
            Self::First => false,
            Self::Last => true,
            Self::Including(end) => name <= end,
            Self::Excluding(end) => name < end,
        }
    }
}

impl Ord for Placed {
    fn cmp(&self, other: &Self) -> Ordering {
        // Minus zero and zero are the same score.
        let (one, two) = (self.score + 0.0, other.score + 0.0);
        one.total_cmp(&two)
            .then_with(|| self.member.cmp(&other.member))
    }
}

impl PartialOrd for Placed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Placed {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Placed {}
