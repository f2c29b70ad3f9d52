//! Labels with a fixed set of values, so that no client can add a series.

use std::fmt;

use curfew_model::GapReason;

/// One label with all its values.
pub trait Label: fmt::Debug + Copy + Send + Sync + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// The label's values, in order of [`Label::index`].
    const VALUES: &'static [&'static str];

    /// The value's index in [`Label::VALUES`].
    fn index(self) -> usize;
}

/// The labels of one counter: none, one or two.
pub trait LabelSet: fmt::Debug + Copy + Send + Sync + 'static {
    /// The number of combinations.
    const COUNT: usize;

    /// The index of this combination, below [`LabelSet::COUNT`].
    fn slot(self) -> usize;

    /// The names and values of the combination at `slot`.
    fn pairs(slot: usize) -> Vec<(&'static str, &'static str)>;
}

impl LabelSet for () {
    const COUNT: usize = 1;

    fn slot(self) -> usize {
        0
    }

    fn pairs(_: usize) -> Vec<(&'static str, &'static str)> {
        Vec::new()
    }
}

impl<L: Label> LabelSet for L {
    const COUNT: usize = L::VALUES.len();

    fn slot(self) -> usize {
        self.index()
    }

    fn pairs(slot: usize) -> Vec<(&'static str, &'static str)> {
        vec![(L::NAME, L::VALUES[slot])]
    }
}

impl<A: Label, B: Label> LabelSet for (A, B) {
    const COUNT: usize = A::VALUES.len() * B::VALUES.len();

    fn slot(self) -> usize {
        self.0.index() * B::VALUES.len() + self.1.index()
    }

    fn pairs(slot: usize) -> Vec<(&'static str, &'static str)> {
        let (a, b) = (slot / B::VALUES.len(), slot % B::VALUES.len());
        vec![(A::NAME, A::VALUES[a]), (B::NAME, B::VALUES[b])]
    }
}

/// Declares labels, each with all its values in order:
///
/// ```
/// curfew_telemetry::labels! {
///     /// The counter that an order came in at.
///     Counter = "counter" {
///         /// The one by the door.
///         Door = "door",
///         /// The one at the back.
///         Back = "back",
///     }
/// }
/// assert_eq!(Counter::Back.as_str(), "back");
/// ```
#[macro_export]
macro_rules! labels {
    ($($(#[doc = $doc:literal])+ $name:ident = $label:literal { $($(#[doc = $value_doc:literal])+ $variant:ident = $value:literal,)+ })+) => {
        $(
            $(#[doc = $doc])+
            #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
            pub enum $name { $($(#[doc = $value_doc])+ $variant,)+ }

            impl $crate::Label for $name {
                const NAME: &'static str = $label;
                const VALUES: &'static [&'static str] = &[$($value),+];

                fn index(self) -> usize {
                    self as usize
                }
            }

            impl $name {
                /// The value's text in metrics and spans.
                pub fn as_str(self) -> &'static str {
                    <Self as $crate::Label>::VALUES[self as usize]
                }
            }
        )+
    };
}

labels! {
    /// A kind of span recorded regardless of the sampled share, within a budget.
    Unasked = "kind" {
        /// A request or command that was refused.
        Refusal = "refusal",
        /// A request or command that failed through a fault of the node.
        Failure = "failure",
        /// The end of a session.
        SessionEnd = "session_end",
        /// A revocation that closed no session.
        VainRevocation = "vain_revocation",
    }
}

impl Label for GapReason {
    const NAME: &'static str = "reason";
    const VALUES: &'static [&'static str] = &[
        "link_lost",
        "unvouched",
        "too_large",
        "malformed",
        "epoch",
        "trimmed",
        "unread",
        "unplaced",
    ];

    fn index(self) -> usize {
        usize::from(GapReason::index(self))
    }
}

/// This check fails if a reason of a gap has no label value.
const _: () = assert!(<GapReason as Label>::VALUES.len() == GapReason::ALL.len());
