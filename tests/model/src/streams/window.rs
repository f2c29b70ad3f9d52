//! A node's own window, which holds the last publications that have arrived on its link.

use super::rules::StreamRules;
use super::server::{Answer, Position};

/// The publications from one offset to another, which are the entries of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    /// Offset of the first entry; beyond the top if there is none.
    pub from: u8,
    /// The position of the last entry.
    pub top: Position,
    /// True if a read of this generation has found the window's epoch.
    pub confirmed: bool,
    /// True if an entry beyond the top was lost on a link that stays up. The node does not know
    /// this.
    pub behind: bool,
    /// Offset of an entry that is missing within the window; only without SR13 or SR14. The node
    /// does not know this.
    pub hole: Option<u8>,
}

impl Window {
    /// A window with only the entry that has just arrived.
    fn of(frame: Position) -> Self {
        Self {
            from: frame.offset,
            top: frame,
            confirmed: false,
            behind: false,
            hole: None,
        }
    }

    /// Handles a frame on the link.
    pub(super) fn receive(
        window: &mut Option<Self>,
        frame: Position,
        most: u8,
        rules: &StreamRules,
    ) {
        if most == 0 {
            return;
        }
        let Some(held) = window.as_mut().filter(|held| held.top.is_of_epoch(frame)) else {
            *window = Some(Self::of(frame));
            return;
        };
        if frame.offset <= held.top.offset {
            return;
        }
        let is_next = frame.offset == held.top.offset + 1;
        if !is_next && rules.window_without_holes {
            // The new window stays in the same epoch, so it stays confirmed if a read has found
            // this epoch.
            *held = Self {
                confirmed: held.confirmed,
                ..Self::of(frame)
            };
            return;
        }
        if !is_next {
            held.hole = Some(held.top.offset + 1);
        }
        held.top = frame;
        held.trim(most);
    }

    /// Handles the answer to a read that may fill the window. `behind` is true if a frame was lost
    /// on the link after the read was sent.
    pub(super) fn fill(
        window: &mut Option<Self>,
        (answer, behind): (Answer, bool),
        most: u8,
        rules: &StreamRules,
    ) {
        if most == 0 {
            return;
        }
        let read = Self {
            from: answer.first,
            confirmed: true,
            behind,
            ..Self::of(answer.top)
        };
        let mut filled = match *window {
            None => read,
            Some(held) if held.top.is_of_epoch(read.top) => {
                let held = Self {
                    confirmed: true,
                    behind,
                    ..held
                };
                let touches = read.top.offset + 1 >= held.from;
                match touches || !rules.fill_touching {
                    true => Self {
                        from: held.from.min(read.from),
                        hole: held.hole.or((!touches).then_some(read.top.offset + 1)),
                        top: Position {
                            offset: held.top.offset.max(read.top.offset),
                            ..held.top
                        },
                        ..held
                    },
                    false => held,
                }
            }
            // One of the two epochs has ended, but the node does not know which one.
            Some(_) if rules.fill_same_epoch => {
                *window = None;
                return;
            }
            Some(_) => read,
        };
        filled.trim(most);
        *window = Some(filled);
    }

    fn trim(&mut self, most: u8) {
        self.from = self.from.max((self.top.offset + 1).saturating_sub(most));
        self.hole = self.hole.filter(|hole| *hole >= self.from);
    }

    /// The window's answer for a client at `since`; `None` if only Redis can answer.
    pub(super) fn serve(&self, since: Option<Position>, rules: &StreamRules) -> Option<Answer> {
        let confirmed = self.confirmed || !rules.window_confirmed;
        let serves = since.is_none_or(|since| {
            let reaches = !rules.window_compares_first || since.offset + 1 >= self.from;
            let within = !rules.window_compares_top || since.offset <= self.top.offset;
            since.is_of_epoch(self.top) && reaches && within
        });
        (confirmed && serves).then_some(Answer {
            top: self.top,
            first: self.from,
            last: self.top.offset,
            hole: self.hole,
        })
    }
}
