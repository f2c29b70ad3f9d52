//! Labels with a fixed set of values, so that no client can add a series to the metrics.

use std::fmt;

use curfew_model::GapReason;

/// A label. A value of an implementing type is one value of the label.
pub trait Label: fmt::Debug + Copy + Send + Sync + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// All values of the label, in the order of [`Label::index`].
    const VALUES: &'static [&'static str];

    /// Returns the index of this value in [`Label::VALUES`].
    fn index(self) -> usize;
}

/// The labels of a metric: none, one or two. A value of an implementing type is one combination of
/// label values.
pub trait LabelSet: fmt::Debug + Copy + Send + Sync + 'static {
    /// The number of possible combinations.
    const COUNT: usize;

    /// Returns the index of this combination, which is less than [`LabelSet::COUNT`].
    fn slot(self) -> usize;

    /// Returns the label names and values of the combination with the index `slot`.
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

/// Declares labels. Each label lists all its values:
///
/// ```
/// curfew_telemetry::labels! {
///     /// The counter at which an order was placed.
///     Counter = "counter" {
///         /// The counter by the door.
///         Door = "door",
///         /// The counter at the back.
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
    /// A kind of span that is recorded even if it is not sampled, up to a number of spans per
    /// second.
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

/// The build fails if a [`GapReason`] has no label value.
const _: () = assert!(<GapReason as Label>::VALUES.len() == GapReason::ALL.len());
