//! Everything that is known about a stream: the data at each position.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// A position in the stream: its epoch and offset.
pub(super) type Place = (String, i64);

/// The position in an answer or a frame.
pub(super) fn place(told: &Value) -> Place {
    let epoch = told["epoch"].as_str().unwrap_or_else(|| panic!("{told}"));
    let offset = told["offset"].as_i64().unwrap_or_else(|| panic!("{told}"));
    (epoch.to_owned(), offset)
}

/// The data at each position, as answers to publishers, frames to clients and the history show it.
#[derive(Debug, Default)]
pub(super) struct Book {
    by_place: BTreeMap<Place, Value>,
    /// The offset of each publication, by epoch and data. In an epoch, data is published only once,
    /// even if it is sent several times.
    by_data: BTreeMap<(String, String), i64>,
}

impl Book {
    pub(super) fn note(&mut self, place: Place, data: &Value) {
        let known = self.by_place.entry(place.clone());
        let known = known.or_insert_with(|| data.clone());
        assert_eq!(known, data, "two publications at {place:?}");
        let (epoch, offset) = place;
        let of_data = (epoch, data.to_string());
        let first = *self.by_data.entry(of_data.clone()).or_insert(offset);
        assert_eq!(first, offset, "{of_data:?} was published twice");
    }

    pub(super) fn len(&self) -> usize {
        self.by_place.len()
    }

    pub(super) fn epochs(&self) -> usize {
        let epochs: BTreeSet<&String> = self.by_place.keys().map(|(epoch, _)| epoch).collect();
        epochs.len()
    }

    /// The highest offset in `epoch` that a client or a publisher knows.
    pub(super) fn top(&self, epoch: &str) -> i64 {
        let from = (epoch.to_owned(), 0);
        let to = (epoch.to_owned(), i64::MAX);
        let last = self.by_place.range(from..=to).next_back();
        last.map_or(0, |((_, offset), _)| *offset)
    }

    /// ST3: the history has every publication of its epoch that a client or a publisher knows,
    /// except those that are trimmed because of the size.
    pub(super) fn compare(&mut self, history: &Value, size: u32) {
        let (epoch, top) = place(history);
        let kept = top.min(size.into());
        let publications = history["publications"].as_array().unwrap();
        let offsets: Vec<_> = publications
            .iter()
            .map(|one| one["offset"].as_i64().unwrap())
            .collect();
        let expect: Vec<_> = (top - kept + 1..=top).rev().collect();
        assert_eq!(offsets, expect, "{history}");
        for one in publications {
            let offset = one["offset"].as_i64().unwrap();
            self.note((epoch.clone(), offset), &one["data"]);
        }
        assert_eq!(
            self.top(&epoch),
            top,
            "a client or a publisher knows of a publication that the history lacks"
        );
    }
}
