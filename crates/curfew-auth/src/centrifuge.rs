//! Claims of the Centrifuge protocol that describe a connection or a subscription. The claims grant
//! nothing. They hold three things: data about a user that other users see, the channels that an
//! application requests, and options.
//!
//! The claims are read leniently, after the token was verified. A member of the wrong type counts
//! as absent, and is no reason to refuse a session.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use curfew_model::{Channel, Claims};
use serde::Deserialize;
use serde_json::value::RawValue;
use tracing::debug;

/// Maximum size of `info` in bytes. It is small because each publication and each presence entry
/// carries `info`.
const MAX_INFO_BYTES: usize = 1024;

/// Standard base64 (RFC 4648 §4), with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A value that an application has put into a token. `Debug` shows its size only.
#[derive(Clone, PartialEq, Eq)]
pub enum TokenData {
    /// JSON text exactly as in the token, including white space.
    Json(Box<str>),
    /// Bytes, which are base64 in the token.
    Bytes(Box<[u8]>),
}

impl TokenData {
    /// The JSON value without white space; `None` for bytes that are not JSON.
    pub fn into_json(self) -> Option<Box<str>> {
        let value: serde_json::Value = match &self {
            Self::Json(text) => serde_json::from_str(text).ok()?,
            Self::Bytes(bytes) => serde_json::from_slice(bytes).ok()?,
        };
        Some(value.to_string().into())
    }

    /// The bytes, or the text of the JSON value as bytes.
    pub fn into_bytes(self) -> Box<[u8]> {
        match self {
            Self::Json(text) => text.into_boxed_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// The claims of a connection token that describe its connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionClaims {
    /// True if the token has `exp` or `expire_at`. The client must then renew the token.
    pub expires: bool,
    /// `info` or `b64info`: the data about the connection that other clients see, at most 1 KiB.
    pub info: Option<TokenData>,
    /// `channels` and `subs`: the requested server-side subscriptions, each channel once, sorted by
    /// name. The policy decides on each subscription.
    pub channels: Vec<WishedChannel>,
}

/// A requested server-side subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WishedChannel {
    /// The channel.
    pub channel: Channel,
    /// The options of the subscription.
    pub options: SubscriptionClaims,
}

/// The claims that describe a subscription: those of a subscription token, or the options of a
/// server-side subscription.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubscriptionClaims {
    /// True if a subscription token has `exp` or `expire_at`. The client must then renew the token.
    pub expires: bool,
    /// `info` or `b64info`: the data about the subscription that other clients see, at most 1 KiB.
    pub info: Option<TokenData>,
    /// `data` or `b64data`: the data for the subscriber.
    pub data: Option<TokenData>,
    /// `override`: the channel's settings that the token overrides.
    pub overrides: Overrides,
}

/// Settings of a channel that a token overrides for its subscription. `None` keeps the channel's
/// setting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overrides {
    /// The subscriber takes part in the channel's presence.
    pub presence: Option<bool>,
    /// Other subscribers are notified of the subscriber's join and leave.
    pub join_leave: Option<bool>,
    /// The subscriber receives joins and leaves without asking.
    pub force_push_join_leave: Option<bool>,
    /// The subscription is recoverable even if the client does not request it.
    pub force_recovery: Option<bool>,
    /// The subscription tracks its position even if the client does not request it.
    pub force_positioning: Option<bool>,
}

/// The members that are read from the claims of a token, or from the options of a server-side
/// subscription. A member may have any type.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Members<'a> {
    #[serde(borrow)]
    info: Option<&'a RawValue>,
    #[serde(borrow)]
    b64info: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    b64data: Option<&'a RawValue>,
    #[serde(borrow, rename = "override")]
    overrides: Option<&'a RawValue>,
    #[serde(borrow)]
    channels: Option<&'a RawValue>,
    #[serde(borrow)]
    subs: Option<&'a RawValue>,
    #[serde(borrow)]
    exp: Option<&'a RawValue>,
    #[serde(borrow)]
    expire_at: Option<&'a RawValue>,
}

/// A setting in `override`: an object with the member `value`.
#[derive(Deserialize)]
struct Switch {
    /// The upstream implementation omits the member if its value is `false`.
    #[serde(default)]
    value: bool,
}

impl ConnectionClaims {
    /// Reads the claims of a connection token.
    pub fn of(claims: &Claims) -> Self {
        let members = Members::of(claims);
        Self {
            expires: members.expires(),
            info: members.info(),
            channels: members.channels(),
        }
    }
}

impl SubscriptionClaims {
    /// Reads the claims of a subscription token.
    pub fn of(claims: &Claims) -> Self {
        Members::of(claims).options()
    }
}

impl<'a> Members<'a> {
    fn of(claims: &'a Claims) -> Self {
        serde_json::from_str(claims.as_json()).unwrap_or_default()
    }

    fn expires(&self) -> bool {
        self.exp.is_some() || self.expire_at.is_some()
    }

    fn info(&self) -> Option<TokenData> {
        let info = payload("info", self.info, self.b64info)?;
        if info.len() > MAX_INFO_BYTES {
            ignored("info", "has more than 1024 bytes");
            return None;
        }
        Some(info)
    }

    fn options(&self) -> SubscriptionClaims {
        SubscriptionClaims {
            expires: self.expires(),
            info: self.info(),
            data: payload("data", self.data, self.b64data),
            overrides: self.overrides.map(Overrides::read).unwrap_or_default(),
        }
    }

    fn channels(&self) -> Vec<WishedChannel> {
        let mut wished: BTreeMap<Channel, SubscriptionClaims> = BTreeMap::new();
        let listed: Vec<&RawValue> = read("channels", self.channels).unwrap_or_default();
        for name in listed {
            if let Some(channel) = read("channels", Some(name)).and_then(channel) {
                wished.insert(channel, SubscriptionClaims::default());
            }
        }
        let described: BTreeMap<String, &RawValue> = read("subs", self.subs).unwrap_or_default();
        for (name, options) in described {
            let options = match options.get() {
                "null" => Some(Members::default()),
                _ => read_object("subs", options),
            };
            if let (Some(channel), Some(options)) = (channel(name), options) {
                wished.insert(channel, options.options());
            }
        }
        let server_side = |(channel, options)| WishedChannel { channel, options };
        wished.into_iter().map(server_side).collect()
    }
}

impl Overrides {
    fn read(member: &RawValue) -> Self {
        let switches: BTreeMap<String, &RawValue> =
            read("override", Some(member)).unwrap_or_default();
        let switch = |name: &str| {
            let member = switches.get(name).filter(|member| member.get() != "null")?;
            read_object("override", member).map(|switch: Switch| switch.value)
        };
        Self {
            presence: switch("presence"),
            join_leave: switch("join_leave"),
            force_push_join_leave: switch("force_push_join_leave"),
            force_recovery: switch("force_recovery"),
            force_positioning: switch("force_positioning"),
        }
    }
}

impl TokenData {
    /// The number of bytes.
    fn len(&self) -> usize {
        match self {
            Self::Json(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }
}

impl fmt::Debug for TokenData {
    /// Prints the size only: values of claims never reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenData({} bytes)", self.len())
    }
}

/// Reads a member; `None` if the member is absent or does not have the type `T`.
fn read<'a, T: Deserialize<'a>>(claim: &'static str, member: Option<&'a RawValue>) -> Option<T> {
    let read = serde_json::from_str(member?.get()).ok();
    if read.is_none() {
        ignored(claim, "has the wrong type");
    }
    read
}

/// Reads a member that is an object.
fn read_object<'a, T: Deserialize<'a>>(claim: &'static str, member: &'a RawValue) -> Option<T> {
    // serde would accept an array for a struct.
    if !member.get().starts_with('{') {
        ignored(claim, "has the wrong type");
        return None;
    }
    read(claim, Some(member))
}

/// Reads a pair of members that hold one value as JSON or as base64. The base64 member takes
/// precedence if it is valid and not empty.
fn payload(
    claim: &'static str,
    json: Option<&RawValue>,
    base64: Option<&RawValue>,
) -> Option<TokenData> {
    let text: Option<String> = read(claim, base64);
    if let Some(text) = text.filter(|text| !text.is_empty()) {
        match BASE64.decode(text) {
            Ok(bytes) => return Some(TokenData::Bytes(bytes.into())),
            Err(_) => ignored(claim, "is not base64"),
        }
    }
    Some(TokenData::Json(json?.get().into()))
}

/// Reads the name of a channel.
fn channel(name: String) -> Option<Channel> {
    let channel = Channel::parse(&name).ok();
    if channel.is_none() {
        ignored("channels", "has an invalid channel name");
    }
    channel
}

/// Logs that a member counts as absent. The log line omits the member's value, which may be a
/// secret.
fn ignored(claim: &'static str, problem: &'static str) {
    debug!(claim, problem, "claim ignored");
}

#[cfg(test)]
mod tests;
