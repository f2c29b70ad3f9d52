//! The vocabulary of Curfew: the types that every other crate shares.
//!
//! Owns: identifiers, channels and their patterns, positions in streams, presence, principals,
//! revocations, commands with their replies and pushes, the two public tables [`ErrorCode`] and
//! [`Disconnect`], the delivery lease, and the JSON rules for messages and tokens.
//! Knows nothing of: sockets, tasks, Redis, JWTs. The crate does no I/O; its only clocks are
//! [`SystemClock`] and [`boottime`].
//! Start at [`Command`] and [`Push`].
//!
//! ```
//! use curfew_model::{Channel, ChannelError, Revocation, RevocationKey};
//!
//! let room = Channel::parse("room:acme:1")?;
//! assert_eq!(room.as_str(), "room:acme:1");
//! assert_eq!(Channel::parse("$system"), Err(ChannelError::Reserved));
//!
//! // This revocation covers the tokens that were issued up to the Unix time 1900000000.
//! let revocation = Revocation::reauth(1_900_000_000);
//! assert!(revocation.covers(Some(1_900_000_000)));
//! assert!(!revocation.covers(Some(1_900_000_001)));
//! # Ok::<(), ChannelError>(())
//! ```

mod channel;
mod clock;
mod command;
mod disconnect;
pub mod env;
mod error_code;
mod gap;
mod ids;
pub mod json;
mod lease;
pub mod pattern;
mod percent;
mod presence;
mod principal;
mod problems;
mod publication;
mod repeats;
mod revocation;
mod revocation_key;
mod secret;
pub mod setting;
mod stream;
mod token_bucket;
mod trace;

pub use channel::{Channel, ChannelError, digest};
pub use clock::{Clock, SystemClock};
pub use command::{
    ClientRequest, Command, CommandId, CommandsBy, DataForm, HistoryRange, Message, MessageKind,
    Payload, Push, Reply, SubscribeOptions, Subscribed,
};
pub use disconnect::{Advice, DISCONNECTS, Disconnect};
pub use error_code::{AuthFailure, ErrorCode};
pub use gap::GapReason;
pub use ids::{NodeId, ParseIdError, SessionId, TicketId, host_name};
pub use lease::{DeliveryLease, LeaseSnapshot, Stretch, boottime};
pub use percent::{percent_decode, percent_decode_str};
pub use presence::{MAX_PRESENCE_SESSIONS, PresenceChange, PresenceEntry, Present};
pub use principal::{
    ANONYMOUS_ISSUER, Claims, ISSUER_TOKEN, ISSUER_USER, Principal, PrincipalParts, of_issuer,
};
pub use problems::{Problem, Problems};
pub use publication::Publication;
pub use repeats::{REPEAT_INTERVAL, Repeats};
pub use revocation::Revocation;
pub use revocation_key::{Ineffective, RevocationKey, RevocationKeyError, Spelling};
pub use secret::Secret;
pub use stream::{
    DEFAULT_HISTORY_LIMIT, Epoch, EpochError, MAX_HISTORY_LIMIT, MAX_OFFSET,
    MAX_PUBLICATION_KEY_BYTES, Position, PositionError, PublicationKey, Publisher, StreamEntry,
};
pub use token_bucket::{Quota, TokenBucket};
pub use trace::{TraceContext, TraceId};

/// An action on a channel. The policy allows or denies it.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Receive the channel's publications.
    Subscribe,
    /// Publish into the channel.
    Publish,
    /// Read the stored publications of the channel.
    History,
    /// List the sessions that are subscribed to the channel.
    Presence,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 4] = [
        Self::Subscribe,
        Self::Publish,
        Self::History,
        Self::Presence,
    ];

    /// The action's name in rules, grants and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Subscribe => "subscribe",
            Self::Publish => "publish",
            Self::History => "history",
            Self::Presence => "presence",
        }
    }
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
