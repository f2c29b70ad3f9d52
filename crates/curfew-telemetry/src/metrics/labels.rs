//! Labels: closed sets, so that no client can add a series.

use std::fmt;

use curfew_model::GapReason;

/// One label with every value it can have.
pub trait Label: fmt::Debug + Copy + Send + Sync + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// Its values, in order of [`Label::index`].
    const VALUES: &'static [&'static str];

    /// The value's place in [`Label::VALUES`].
    fn index(self) -> usize;
}

/// The labels of one counter: none, one or two.
pub trait LabelSet: fmt::Debug + Copy + Send + Sync + 'static {
    /// How many combinations there are.
    const COUNT: usize;

    /// This combination's place, below [`LabelSet::COUNT`].
    fn slot(self) -> usize;

    /// Names and values of the combination at `slot`.
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

/// Declares labels, each with every value it can have, in order:
///
/// ```
/// curfew_telemetry::labels! {
///     /// Where an order came in.
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
                /// The value, in metrics and spans.
                pub fn as_str(self) -> &'static str {
                    <Self as $crate::Label>::VALUES[self as usize]
                }
            }
        )+
    };
}

labels! {
    /// Something that is recorded at any sampled share, within a budget.
    Unasked = "kind" {
        /// A request or command that was refused.
        Refusal = "refusal",
        /// One that failed through a fault of ours.
        Failure = "failure",
        /// A session's end.
        SessionEnd = "session_end",
        /// A revocation that closed no session.
        VainRevocation = "vain_revocation",
    }

    /// Why something that came from the backend was not used.
    BackendDropReason = "reason" {
        /// It does not have the form it should.
        Malformed = "malformed",
        /// It is larger than anything Curfew publishes.
        TooLarge = "too_large",
    }

    /// Why something that the broker was asked for failed, or the connection to it.
    BrokerError = "error" {
        /// There is no connection.
        NotConnected = "not_connected",
        /// The connection broke, or could not be made.
        Connection = "connection",
        /// No answer came in time.
        Timeout = "timeout",
        /// The server is not, or no longer, the right one.
        Misrouted = "misrouted",
        /// The server refused.
        Refused = "refused",
        /// The lease was over, under which it was asked for.
        Late = "late",
        /// What it said makes no sense.
        Unexpected = "unexpected",
    }

    /// What Redis was asked for.
    RedisCommand = "command" {
        /// `PUBLISH` or `SPUBLISH`: a publication, within a script, or word to other nodes.
        Publish = "publish",
        /// `SUBSCRIBE` or `SSUBSCRIBE`: the first listener of a channel.
        Subscribe = "subscribe",
        /// `UNSUBSCRIBE` or `SUNSUBSCRIBE`.
        Unsubscribe = "unsubscribe",
        /// `EXISTS`: an admission's look for revocations.
        Exists = "exists",
        /// `HGETALL`: one record.
        Hgetall = "hgetall",
        /// `ZRANGE`: a list.
        Zrange = "zrange",
        /// Several commands in one go: the records of a session.
        Pipeline = "pipeline",
        /// Several commands between `MULTI` and `EXEC`.
        Transaction = "transaction",
        /// Any other.
        Other = "other",
    }

}

impl Label for GapReason {
    const NAME: &'static str = "reason";
    const VALUES: &'static [&'static str] = &["link_lost", "unvouched", "too_large", "malformed"];

    fn index(self) -> usize {
        usize::from(GapReason::index(self))
    }
}

impl RedisCommand {
    /// What several commands in one go are called.
    pub const PIPELINE: &str = "PIPELINE";

    /// What several commands that are executed as one are called.
    pub const TRANSACTION: &str = "MULTI";

    /// The label for a command by its name, or for several.
    pub fn of(name: &str) -> Self {
        match name {
            "PUBLISH" | "SPUBLISH" => Self::Publish,
            "SUBSCRIBE" | "SSUBSCRIBE" => Self::Subscribe,
            "UNSUBSCRIBE" | "SUNSUBSCRIBE" => Self::Unsubscribe,
            "EXISTS" => Self::Exists,
            "HGETALL" => Self::Hgetall,
            "ZRANGE" => Self::Zrange,
            Self::PIPELINE => Self::Pipeline,
            Self::TRANSACTION => Self::Transaction,
            _ => Self::Other,
        }
    }
}
