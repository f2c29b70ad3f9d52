//! Decoding of a command, the same for both encodings.

pub(crate) mod emulation;
mod fields;
pub(crate) mod json;
pub(crate) mod protobuf;

use std::borrow::Cow;

use curfew_model::{
    ClientRequest, Command, CommandId, Epoch, ErrorCode, HistoryRange, MAX_HISTORY_LIMIT,
    MAX_OFFSET, Payload, Position, SubscribeOptions,
};
use curfew_protocol::DecodeError;
use fields::{
    CHANNEL, COMMAND, CONNECT, Field, HISTORY, PUBLISH, REFRESH, STREAM_POSITION, SUB_REFRESH,
    SUBSCRIBE,
};

/// The only supported format of differences between publications.
const FOSSIL: &str = "fossil";

/// The bit in `flag` by which a subscriber refuses a subscription without recovery.
const REJECT_UNRECOVERED: i64 = 2;

/// A fault that ends the reading of a message.
enum Fault {
    /// The message does not follow the protocol.
    NotTheProtocol(&'static str),
    /// Arrays and objects are nested too deep.
    TooDeep,
}

type Read<T> = Result<T, Fault>;

/// A value in a message, read by the rules of the message's encoding.
trait Value<'a>: Copy {
    fn text(self) -> Read<Cow<'a, str>>;
    fn flag(self) -> Read<bool>;
    fn u32(self) -> Read<u32>;
    fn u64(self) -> Read<u64>;
    fn i32(self) -> Read<i32>;
    fn i64(self) -> Read<i64>;
    fn payload(self) -> Read<Payload<'a>>;

    /// Fails unless the value can be a message.
    fn expect_message(self) -> Read<()>;

    /// Passes the known fields of a message to `take`. A repeated field is a fault, because
    /// decoders differ in which occurrence they use.
    fn fields(
        self,
        known: &'static [Field],
        take: &mut dyn FnMut(&'static str, Self) -> Read<()>,
    ) -> Read<()>;

    /// Passes the entries of a map to `take`. In Protobuf, each occurrence of the field holds one
    /// entry.
    fn entries(self, take: &mut dyn FnMut(Cow<'a, str>, Self) -> Read<()>) -> Read<()>;
}

/// The fields of a message that were seen: one bit for each known field.
#[derive(Default)]
struct Seen(u32);

impl Seen {
    /// Notes the field that has index `at` in the list of known fields. Fails if the field was seen
    /// before.
    fn note(&mut self, at: usize) -> Read<()> {
        let bit = 1 << at;
        if self.0 & bit != 0 {
            return Err(Fault::NotTheProtocol("a field is repeated"));
        }
        self.0 |= bit;
        Ok(())
    }
}

/// The reason for which a request is not a command.
enum Refused {
    Fault(Fault),
    /// The request is answered with an error.
    Form(ErrorCode, &'static str),
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

fn breach<T>(message: &'static str) -> Result<T, Refused> {
    Err(Refused::Fault(Fault::NotTheProtocol(message)))
}

fn form<T>(code: ErrorCode, message: &'static str) -> Result<T, Refused> {
    Err(Refused::Form(code, message))
}

/// Decodes a message that holds one command.
fn decode<'a, V: Value<'a>>(message: V) -> Result<ClientRequest<'a>, DecodeError> {
    let mut id = 0;
    let mut first: Option<(usize, V)> = None;
    let mut sends = false;
    let read = message.fields(COMMAND, &mut |name, value| {
        if name == "id" {
            id = value.u32()?;
            return Ok(());
        }
        value.expect_message()?;
        sends |= name == "send";
        let rank = COMMAND.iter().position(|field| field.name == name);
        let rank = rank.unwrap_or(COMMAND.len());
        if first.is_none_or(|(best, _)| rank < best) {
            first = Some((rank, value));
        }
        Ok(())
    });
    let id = (id != 0).then(|| CommandId::from_number(id.into()));
    let command = match (read, first) {
        (Err(fault), _) => Err(Refused::Fault(fault)),
        (Ok(()), _) if id.is_none() && !sends => return Ok(ClientRequest::Pong),
        (Ok(()), None) => breach("the command has no request"),
        (Ok(()), Some((rank, request))) => match COMMAND[rank].name {
            "send" => Ok(Command::Send),
            _ if id.is_none() => breach("the command has no id"),
            name => command(name, request),
        },
    };
    match command {
        Ok(command) => Ok(ClientRequest::Command { id, command }),
        Err(Refused::Form(code, message)) => Err(DecodeError::Form {
            id,
            code,
            message: message.into(),
        }),
        Err(Refused::Fault(Fault::TooDeep)) if id.is_some() => Err(DecodeError::Form {
            id,
            code: ErrorCode::BadRequest,
            message: format!(
                "arrays and objects are nested deeper than {}",
                json::MAX_DEPTH
            )
            .into(),
        }),
        Err(Refused::Fault(Fault::TooDeep)) => Err(DecodeError::NotTheProtocol {
            message: "arrays and objects are nested too deep",
        }),
        Err(Refused::Fault(Fault::NotTheProtocol(message))) => {
            Err(DecodeError::NotTheProtocol { message })
        }
    }
}

fn command<'a, V: Value<'a>>(name: &str, request: V) -> Result<Command<'a>, Refused> {
    match name {
        "connect" => connect(request),
        "subscribe" => subscribe(request),
        "unsubscribe" => Ok(Command::Unsubscribe {
            channel: channel(request)?,
        }),
        "publish" => publish(request),
        "presence" | "presence_stats" => Ok(Command::Presence {
            channel: channel(request)?,
            is_count: name == "presence_stats",
        }),
        "history" => history(request),
        "rpc" => Ok(Command::Call),
        "refresh" => refresh(request),
        "sub_refresh" => sub_refresh(request),
        _ => Ok(Command::Ping),
    }
}

/// The members of `connect` that describe the client (its data, name, version and headers) are not
/// read.
fn connect<'a, V: Value<'a>>(request: V) -> Result<Command<'a>, Refused> {
    let mut token = Cow::Borrowed("");
    let mut subscriptions = Vec::new();
    request.fields(CONNECT, &mut |name, value| {
        match name {
            "token" => token = value.text()?,
            _ => value.entries(&mut |channel, value| {
                let options = Subscribe::read(value)?.options()?;
                subscriptions.push((channel, options));
                Ok(())
            })?,
        }
        Ok(())
    })?;
    let token = (!token.is_empty()).then_some(token);
    Ok(Command::Auth {
        token,
        subscriptions,
    })
}

/// A request to subscribe, as it was sent.
#[derive(Default)]
struct Subscribe<'a> {
    channel: Cow<'a, str>,
    token: Cow<'a, str>,
    recover: bool,
    epoch: Cow<'a, str>,
    offset: u64,
    join_leave: bool,
    delta: Cow<'a, str>,
    has_filter: bool,
    flag: i64,
    kind: i32,
}

impl<'a> Subscribe<'a> {
    fn read<V: Value<'a>>(request: V) -> Read<Self> {
        let mut read = Self::default();
        request.fields(SUBSCRIBE, &mut |name, value| {
            match name {
                "channel" => read.channel = value.text()?,
                "token" => read.token = value.text()?,
                "recover" => read.recover = value.flag()?,
                "epoch" => read.epoch = value.text()?,
                "offset" => read.offset = value.u64()?,
                "join_leave" => read.join_leave = value.flag()?,
                "delta" => read.delta = value.text()?,
                "tf" => {
                    value.expect_message()?;
                    read.has_filter = true;
                }
                "flag" => read.flag = value.i64()?,
                _ => read.kind = value.i32()?,
            }
            Ok(())
        })?;
        Ok(read)
    }

    fn options(self) -> Read<SubscribeOptions<'a>> {
        let delta = match &*self.delta {
            "" => false,
            FOSSIL => true,
            _ => {
                return Err(Fault::NotTheProtocol(
                    "`delta` is unknown: use fossil or leave it out",
                ));
            }
        };
        Ok(SubscribeOptions {
            since: self.recover.then(|| position(&self.epoch, self.offset)),
            join_leave: self.join_leave,
            must_recover: self.recover && self.flag & REJECT_UNRECOVERED != 0,
            delta,
            token: (!self.token.is_empty()).then_some(self.token),
        })
    }
}

fn subscribe<'a, V: Value<'a>>(request: V) -> Result<Command<'a>, Refused> {
    let mut read = Subscribe::read(request)?;
    let (has_filter, kind) = (read.has_filter, read.kind);
    let channel = named(std::mem::take(&mut read.channel))?;
    let options = read.options()?;
    if has_filter {
        return form(
            ErrorCode::BadRequest,
            "filters are not supported: leave `tf` out",
        );
    }
    if kind != 0 {
        return form(
            ErrorCode::NotAvailable,
            "only subscriptions to streams are supported: leave `type` out",
        );
    }
    Ok(Command::Subscribe { channel, options })
}

fn publish<'a, V: Value<'a>>(request: V) -> Result<Command<'a>, Refused> {
    let mut channel = Cow::Borrowed("");
    let mut data = None;
    let mut of_map = false;
    request.fields(PUBLISH, &mut |name, value| {
        match name {
            "channel" => channel = value.text()?,
            "data" => data = Some(value.payload()?),
            "type" => of_map |= value.i32()? != 0,
            // `key` and `removed` belong to publications to maps. Their types are checked, and
            // their values are ignored.
            "key" => drop(value.text()?),
            _ => _ = value.flag()?,
        }
        Ok(())
    })?;
    let channel = named(channel)?;
    if of_map {
        return form(
            ErrorCode::NotAvailable,
            "only publications to streams are supported: leave `type` out",
        );
    }
    match data.filter(|data| !data.as_bytes().is_empty()) {
        Some(data) => Ok(Command::Publish {
            channel,
            data,
            trace: None,
            key: None,
        }),
        None => form(
            ErrorCode::BadRequest,
            "a publication needs `data` that is not empty",
        ),
    }
}

fn history<'a, V: Value<'a>>(request: V) -> Result<Command<'a>, Refused> {
    let mut channel = Cow::Borrowed("");
    let (mut limit, mut since, mut reverse) = (0, None, false);
    request.fields(HISTORY, &mut |name, value| {
        match name {
            "channel" => channel = value.text()?,
            "limit" => limit = value.i32()?,
            "since" => {
                let (mut offset, mut epoch) = (0, Cow::Borrowed(""));
                value.fields(STREAM_POSITION, &mut |name, value| {
                    match name {
                        "offset" => offset = value.u64()?,
                        _ => epoch = value.text()?,
                    }
                    Ok(())
                })?;
                since = Some(position(&epoch, offset));
            }
            _ => reverse = value.flag()?,
        }
        Ok(())
    })?;
    let channel = named(channel)?;
    let range = match (since, reverse) {
        (None, false) => HistoryRange::ALL,
        (Some(since), false) => HistoryRange::Since(since),
        (None, true) => HistoryRange::Before(u64::MAX),
        (Some(Position { offset: 0, .. }), true) => {
            return form(
                ErrorCode::BadRequest,
                "no publication comes before offset 0: leave `since` or `reverse` out",
            );
        }
        (Some(since), true) => HistoryRange::Before(since.offset),
    };
    let epoch = since.map(|since| since.epoch);
    Ok(Command::History {
        channel,
        // A negative limit means no limit.
        limit: u64::try_from(limit).map_or(MAX_HISTORY_LIMIT, |limit| limit.min(MAX_HISTORY_LIMIT)),
        range,
        epoch: epoch.filter(|epoch| *epoch != Epoch::ANY),
    })
}

fn refresh<'a, V: Value<'a>>(request: V) -> Result<Command<'a>, Refused> {
    let mut token = Cow::Borrowed("");
    request.fields(REFRESH, &mut |_, value| {
        token = value.text()?;
        Ok(())
    })?;
    match token.is_empty() {
        true => breach("`refresh` needs a token"),
        false => Ok(Command::Refresh { token }),
    }
}

fn sub_refresh<'a, V: Value<'a>>(request: V) -> Result<Command<'a>, Refused> {
    let (mut channel, mut token) = (Cow::Borrowed(""), Cow::Borrowed(""));
    let mut kind = 0;
    request.fields(SUB_REFRESH, &mut |name, value| {
        match name {
            "channel" => channel = value.text()?,
            "token" => token = value.text()?,
            _ => kind = value.i32()?,
        }
        Ok(())
    })?;
    if kind != 0 {
        return form(
            ErrorCode::NotAvailable,
            "only subscriptions to streams are supported: leave `type` out",
        );
    }
    if token.is_empty() {
        return form(ErrorCode::BadRequest, "`sub_refresh` needs a token");
    }
    // The channel may be empty, because old clients name the channel only in the token.
    Ok(Command::RefreshSubscription { channel, token })
}

/// The channel of a request from which no other field is read.
fn channel<'a, V: Value<'a>>(request: V) -> Result<Cow<'a, str>, Refused> {
    let mut channel = Cow::Borrowed("");
    request.fields(CHANNEL, &mut |_, value| {
        channel = value.text()?;
        Ok(())
    })?;
    named(channel)
}

fn named(channel: Cow<'_, str>) -> Result<Cow<'_, str>, Refused> {
    match channel.is_empty() {
        true => breach("the request has no channel"),
        false => Ok(channel),
    }
}

/// A client's position. An empty epoch means any epoch. A string that cannot be an epoch becomes
/// [`Epoch::NONE`], which no stream ever has.
fn position(epoch: &str, offset: u64) -> Position {
    Position {
        epoch: match epoch {
            "" => Epoch::ANY,
            epoch => epoch.parse().unwrap_or(Epoch::NONE),
        },
        offset: offset.min(MAX_OFFSET),
    }
}
