//! Checks of ST1, ST2, ST3, ST5 and ST7: every frame of a subscription must fit the frames before
//! it and the positions that Redis has given. ST4 follows from R1 and R2, which cover all frames.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::timeline::{Line, Timeline};
use super::{Check, Violation};
use crate::node::LEASE;
use crate::record::{Place, marker, place};

/// The numbers of publications by position, and the time of the first publication in each epoch.
struct Placed {
    numbers: BTreeMap<Place, u64>,
    begun: BTreeMap<String, Duration>,
}

/// The state of a subscription, derived from its frames.
struct Told<'a> {
    timeline: &'a Timeline<'a>,
    /// The last position that the client has received; `None` before the answer.
    at: Option<Place>,
    /// The offset up to which an answer with `recovered` promises all publications; 0 without such
    /// an answer.
    recovers: u64,
}

impl Check<'_> {
    /// True if the publication `number` has two positions in one epoch.
    pub(super) fn is_doubled(&self, number: u64) -> bool {
        let of_number = self.record.placed.iter().filter(|(.., of)| *of == number);
        let mut epochs: Vec<&str> = of_number.map(|(_, (epoch, _), _)| epoch.as_str()).collect();
        let count = epochs.len();
        epochs.sort_unstable();
        epochs.dedup();
        epochs.len() < count
    }

    pub(super) fn streams(&self, found: &mut Vec<Violation>) {
        if !self.record.streams {
            return;
        }
        let placed = self.placed(found);
        for timeline in self.lines.values() {
            let mut told = Told {
                timeline,
                at: None,
                recovers: 0,
            };
            for line in timeline.lines.iter().filter(|line| line.whole) {
                let wrong = self.told(&mut told, line, &placed);
                if let Some((promise, why)) = wrong {
                    found.push(Violation {
                        promise,
                        at: line.at,
                        what: format!(
                            "{why}: client {} of process {}, since {:?}: {}",
                            timeline.wire.client,
                            timeline.wire.node,
                            timeline.wire.since,
                            line.shown()
                        ),
                    });
                    // Later frames would only repeat this fault.
                    break;
                }
            }
        }
    }

    /// Collects the positions of all publications. Reports positions that are given twice or
    /// skipped.
    fn placed(&self, found: &mut Vec<Violation>) -> Placed {
        let (mut numbers, mut begun) = (BTreeMap::new(), BTreeMap::new());
        let mut tops: BTreeMap<&str, u64> = BTreeMap::new();
        for (at, place, number) in &self.record.placed {
            let (epoch, offset) = place;
            let top = tops.entry(epoch).or_default();
            if *offset != *top + 1 {
                found.push(Violation {
                    promise: "ST5",
                    at: *at,
                    what: format!(
                        "publication {number} has the position {place:?} after offset {top}"
                    ),
                });
            }
            *top = *offset;
            numbers.insert(place.clone(), *number);
            begun.entry(epoch.clone()).or_insert(*at);
        }
        Placed { numbers, begun }
    }

    /// Applies a frame. Returns the promise that the frame breaks, and the reason.
    fn told(
        &self,
        told: &mut Told<'_>,
        line: &Line<'_>,
        placed: &Placed,
    ) -> Option<(&'static str, String)> {
        let begins = |word: &[u8]| line.payload.starts_with(word);
        let kind = [
            (&br#"{"type":"message""#[..], "message"),
            (br#"{"type":"gap""#, "gap"),
            (br#"{"type":"ok""#, "ok"),
        ];
        let (_, kind) = kind.into_iter().find(|(word, _)| begins(word))?;
        let frame: Value = serde_json::from_slice(line.payload).ok()?;
        let of = place(&frame);
        match kind {
            // Answers to publications have no epoch, and are skipped.
            "ok" => self.answered(told, line, &frame, of?, placed),
            "message" => {
                let offset = frame["offset"].as_u64()?;
                let Some((epoch, at)) = &mut told.at else {
                    return Some(("ST7", "the frame came before the answer".to_owned()));
                };
                if offset != *at + 1 {
                    return Some((
                        "ST1",
                        format!("the message does not follow offset {at} of {epoch}"),
                    ));
                }
                *at = offset;
                let number = placed.numbers.get(&(epoch.clone(), offset)).copied();
                (number != marker(line.payload)).then(|| {
                    (
                        "ST1",
                        format!("Redis has publication {number:?} at offset {offset} of {epoch}"),
                    )
                })
            }
            _ => {
                let Some((epoch, offset)) = of else {
                    // The frames of channels without a stream have no positions.
                    let is_other =
                        frame["channel"] != crate::client::CHANNELS[crate::client::STREAM];
                    return (!is_other).then(|| ("ST1", "the gap has no position".to_owned()));
                };
                let Some((known, at)) = &told.at else {
                    return Some(("ST7", "the frame came before the answer".to_owned()));
                };
                if *at < told.recovers {
                    let why = format!(
                        "a gap at offset {at}, although the answer promised recovery up to {}",
                        told.recovers
                    );
                    return Some(("ST2", why));
                }
                if *known == epoch && offset <= *at {
                    return Some(("ST1", format!("the gap skips nothing after offset {at}")));
                }
                told.at = Some((epoch, offset));
                told.recovers = 0;
                None
            }
        }
    }

    /// Applies the answer to `subscribe`. Returns the promise that the answer breaks, and the
    /// reason.
    fn answered(
        &self,
        told: &mut Told<'_>,
        line: &Line<'_>,
        frame: &Value,
        of: Place,
        placed: &Placed,
    ) -> Option<(&'static str, String)> {
        if told.at.is_some() {
            return Some(("ST1", "the subscription got a second answer".to_owned()));
        }
        let since = told.timeline.wire.since.clone();
        match (since, frame["recovered"].as_bool()) {
            (Some(since), Some(true)) => {
                if since.0 != of.0 || since.1 > of.1 {
                    return Some((
                        "ST2",
                        "`recovered` is true, but the position does not follow `since`".to_owned(),
                    ));
                }
                let begun = placed.begun.get(&of.0);
                let is_over = self.record.losses.iter().find(|(lost_at, _)| {
                    begun.is_some_and(|begun| begun < lost_at) && line.at > *lost_at + LEASE
                });
                if let Some((lost_at, _)) = is_over {
                    return Some((
                        "ST5",
                        format!("recovered, although Redis lost its data at {lost_at:?}"),
                    ));
                }
                told.recovers = of.1;
                told.at = Some(since);
                None
            }
            (Some(_), Some(false)) | (None, None) => {
                told.at = Some(of);
                None
            }
            (_, recovered) => Some((
                "ST2",
                format!("`recovered` is {recovered:?}, which does not fit `since`"),
            )),
        }
    }
}
