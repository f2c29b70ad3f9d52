//! Decoding of a message to a command.

use std::borrow::Cow;

use curfew_model::json::{Fault, Kind, Value, scan};
use curfew_model::{
    ClientRequest, Command, CommandId, DEFAULT_HISTORY_LIMIT, Epoch, ErrorCode, HistoryRange,
    MAX_OFFSET, MAX_PUBLICATION_KEY_BYTES, Payload, Position, SubscribeOptions, TraceContext,
};

use super::{MAX_DEPTH, MAX_ID_BYTES, RULES};
use crate::DecodeError;

/// Maximum number of characters of an unknown member's name that the answer quotes.
const MAX_SHOWN_CHARS: usize = 64;

/// The members of a message, as found in its text.
#[derive(Default)]
struct Members<'a> {
    kind: Option<Value<'a>>,
    id: Option<Value<'a>>,
    channel: Option<Value<'a>>,
    data: Option<Value<'a>>,
    /// True if any member of `rare` was found. Most messages have no rare member, and then `rare`
    /// is not read.
    has_rare: bool,
    rare: RareMembers<'a>,
    /// A fault of a member's name: a repetition if there is one, otherwise the first fault.
    wrong: Option<Wrong<'a>>,
}

#[derive(Default)]
struct RareMembers<'a> {
    token: Option<Value<'a>>,
    since: Option<Value<'a>>,
    before: Option<Value<'a>>,
    limit: Option<Value<'a>>,
    key: Option<Value<'a>>,
    join_leave: Option<Value<'a>>,
    traceparent: Option<Value<'a>>,
    tracestate: Option<Value<'a>>,
}

enum Wrong<'a> {
    Unknown(Cow<'a, str>),
    /// The name is not valid Unicode.
    Unreadable,
    Repeated(&'static str),
}

pub(super) fn decode(text: &str) -> Result<ClientRequest<'_>, DecodeError> {
    let mut members = Members::default();
    let scanned = scan(text, RULES, |name, value| members.take(name, value));
    let repeated = match members.wrong {
        Some(Wrong::Repeated(name)) => Some(name),
        _ => None,
    };
    // The id is parsed only after the scan, and only if a command or an error needs the id, because
    // parsing copies it.
    let (written_id, ambiguous) = (members.id, repeated == Some("id"));
    let read_id = || if ambiguous { Ok(None) } else { id(written_id) };
    let refuse = |code, message: Cow<'static, str>| DecodeError::Form {
        id: read_id().ok().flatten(),
        code,
        message,
    };
    let bad = |message: Cow<'static, str>| refuse(ErrorCode::BadRequest, message);

    match scanned {
        Err(Fault::NotJson | Fault::Repeated) => {
            return Err(DecodeError::NotTheProtocol {
                message: "the message is not JSON",
            });
        }
        Err(Fault::TooDeep) => {
            return Err(bad(format!(
                "arrays and objects are nested deeper than {MAX_DEPTH}"
            )
            .into()));
        }
        Ok(scanned) if !scanned.is_object => {
            return Err(bad("a message must be one JSON object".into()));
        }
        Ok(_) => {}
    }
    if let Some(name) = repeated {
        return Err(bad(format!("member `{name}` is repeated").into()));
    }
    let id = read_id().map_err(|message| bad(message.into()))?;

    let kind = match members.kind.take() {
        None => return Err(bad("member `type` is missing".into())),
        Some(kind) => kind.as_str().ok_or_else(|| bad(no_text("type", kind)))?,
    };
    let command = match members.command(&kind) {
        Ok(Some(command)) => command,
        Ok(None) => {
            let known = Command::NAMES.join(", ");
            let message = format!("unknown type: use one of {known}");
            return Err(refuse(ErrorCode::UnknownType, message.into()));
        }
        Err(message) => return Err(bad(message)),
    };
    // A member that was not taken by now does not belong to the command.
    if let Some(Wrong::Unreadable) = members.wrong {
        return Err(bad("a member's name has half of a surrogate pair".into()));
    }
    match members.left_over() {
        Some(name) => Err(bad(format!("unknown member `{name}` of {kind}").into())),
        None => Ok(ClientRequest::Command { id, command }),
    }
}

impl<'a> Members<'a> {
    fn take(&mut self, name: Value<'a>, value: Value<'a>) {
        let Some(name) = name.as_str() else {
            self.wrong.get_or_insert(Wrong::Unreadable);
            return;
        };
        let (name, place) = match &*name {
            "type" => ("type", &mut self.kind),
            "id" => ("id", &mut self.id),
            "channel" => ("channel", &mut self.channel),
            "data" => ("data", &mut self.data),
            _ => return self.take_rare(name, value),
        };
        if place.replace(value).is_some() {
            self.wrong = Some(Wrong::Repeated(name));
        }
    }

    #[cold]
    fn take_rare(&mut self, name: Cow<'a, str>, value: Value<'a>) {
        self.has_rare = true;
        let rare = &mut self.rare;
        let (name, place) = match &*name {
            "token" => ("token", &mut rare.token),
            "since" => ("since", &mut rare.since),
            "before" => ("before", &mut rare.before),
            "limit" => ("limit", &mut rare.limit),
            "key" => ("key", &mut rare.key),
            "join_leave" => ("join_leave", &mut rare.join_leave),
            "traceparent" => ("traceparent", &mut rare.traceparent),
            "tracestate" => ("tracestate", &mut rare.tracestate),
            _ => {
                self.wrong.get_or_insert(Wrong::Unknown(name));
                return;
            }
        };
        if place.replace(value).is_some() {
            // A repetition takes precedence over an unknown name, because a message with two values
            // for a member is ambiguous.
            self.wrong = Some(Wrong::Repeated(name));
        }
    }

    /// Takes the members that a command of this type needs; `None` for an unknown type.
    fn command(&mut self, kind: &str) -> Result<Option<Command<'a>>, Cow<'static, str>> {
        Ok(Some(match kind {
            "publish" => Command::Publish {
                channel: string("channel", &mut self.channel)?,
                data: Payload::Json(required("data", &mut self.data)?.raw),
                trace: match self.has_rare {
                    true => trace(self.rare.traceparent.take(), self.rare.tracestate.take()),
                    false => None,
                },
                key: match self.has_rare {
                    true => key(self.rare.key.take())?,
                    false => None,
                },
            },
            "subscribe" => Command::Subscribe {
                channel: string("channel", &mut self.channel)?,
                options: SubscribeOptions {
                    since: self.rare.since.take().map(since).transpose()?,
                    join_leave: boolean("join_leave", self.rare.join_leave.take())?,
                    ..SubscribeOptions::default()
                },
            },
            "presence" => Command::Presence {
                channel: string("channel", &mut self.channel)?,
                is_count: false,
            },
            "history" => Command::History {
                channel: string("channel", &mut self.channel)?,
                limit: match self.rare.limit.take() {
                    Some(limit) => number("limit", limit)?,
                    None => DEFAULT_HISTORY_LIMIT,
                },
                range: self.history_range()?,
                epoch: None,
            },
            "unsubscribe" => Command::Unsubscribe {
                channel: string("channel", &mut self.channel)?,
            },
            "auth" => Command::Auth {
                token: match self.rare.token.is_some() {
                    true => Some(string("token", &mut self.rare.token)?),
                    false => None,
                },
                subscriptions: Vec::new(),
            },
            "refresh" => Command::Refresh {
                token: string("token", &mut self.rare.token)?,
            },
            "ping" => Command::Ping,
            _ => return Ok(None),
        }))
    }

    fn history_range(&mut self) -> Result<HistoryRange, Cow<'static, str>> {
        match (self.rare.since.take(), self.rare.before.take()) {
            (Some(_), Some(_)) => Err("give `since` or `before`, not both".into()),
            (Some(value), None) => Ok(HistoryRange::Since(since(value)?)),
            (None, Some(value)) => Ok(HistoryRange::Before(number("before", value)?)),
            // Without `since` and `before`, the newest publications are read.
            (None, None) => Ok(HistoryRange::Before(u64::MAX)),
        }
    }

    fn left_over(&self) -> Option<Cow<'_, str>> {
        if let Some(Wrong::Unknown(name)) = &self.wrong {
            return Some(match name.char_indices().nth(MAX_SHOWN_CHARS) {
                Some((cut, _)) => format!("{}…", &name[..cut]).into(),
                None => Cow::Borrowed(name),
            });
        }
        let (channel, data) = (("channel", self.channel), ("data", self.data));
        let found = |found: &(&'static str, Option<Value<'a>>)| found.1.is_some();
        let left = match self.has_rare {
            false => [channel, data].into_iter().find(found),
            true => {
                let rare = &self.rare;
                [
                    ("token", rare.token),
                    channel,
                    data,
                    ("since", rare.since),
                    ("before", rare.before),
                    ("limit", rare.limit),
                    ("key", rare.key),
                    ("join_leave", rare.join_leave),
                    ("traceparent", rare.traceparent),
                    ("tracestate", rare.tracestate),
                ]
                .into_iter()
                .find(found)
            }
        };
        left.map(|(name, _)| name.into())
    }
}

/// The id, if there is one; the error describes the fault.
fn id(id: Option<Value<'_>>) -> Result<Option<CommandId>, &'static str> {
    let Some(id) = id else { return Ok(None) };
    let bytes = match id.kind {
        Kind::Number => id.raw.len(),
        // The length is measured without quotes and escapes.
        Kind::String { .. } => match id.as_str() {
            Some(text) => text.len(),
            None => return Err("member `id` has half of a surrogate pair"),
        },
        Kind::Other => usize::MAX,
    };
    if bytes <= MAX_ID_BYTES {
        Ok(Some(CommandId::from_json(id.raw)))
    } else {
        Err("member `id` must be a number or a string of at most 64 bytes")
    }
}

/// The position in member `since`. A string that cannot be an epoch becomes [`Epoch::NONE`], which
/// no stream ever has.
fn since(value: Value<'_>) -> Result<Position, Cow<'static, str>> {
    let (mut epoch, mut offset, mut is_good) = (None, None, true);
    let scanned = scan(value.raw, RULES, |name, value| {
        let is_first = match name.as_str().as_deref() {
            Some("epoch") => epoch.replace(value).is_none(),
            Some("offset") => offset.replace(value).is_none(),
            _ => false,
        };
        is_good &= is_first;
    });
    let is_good = is_good && scanned.is_ok_and(|scanned| scanned.is_object);
    let epoch = epoch.and_then(|epoch| epoch.as_str());
    let offset = offset.map(|offset| number("offset", offset));
    match (epoch, offset) {
        (Some(epoch), Some(Ok(offset))) if is_good => Ok(Position {
            epoch: epoch.parse().unwrap_or(Epoch::NONE),
            offset,
        }),
        _ => Err(format!(
            "member `since` must be an object with `epoch`, a string, and `offset`, a whole number from 0 to {MAX_OFFSET}"
        )
        .into()),
    }
}

/// The value of a number member, which must have no sign, point or exponent.
fn number(name: &str, value: Value<'_>) -> Result<u64, Cow<'static, str>> {
    let number = value.raw.parse().ok();
    let number = number.filter(|number| *number <= MAX_OFFSET);
    number.ok_or_else(|| {
        format!("member `{name}` must be a whole number from 0 to {MAX_OFFSET}").into()
    })
}

/// The value of a boolean member; false if the member is absent.
fn boolean(name: &str, value: Option<Value<'_>>) -> Result<bool, Cow<'static, str>> {
    match value.map(|value| value.raw) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(format!("member `{name}` must be true or false").into()),
    }
}

fn key(value: Option<Value<'_>>) -> Result<Option<Cow<'_, str>>, Cow<'static, str>> {
    let Some(value) = value else {
        return Ok(None);
    };
    match value.as_str() {
        Some(key) if (1..=MAX_PUBLICATION_KEY_BYTES).contains(&key.len()) => Ok(Some(key)),
        _ => Err(format!(
            "member `key` must be a string of 1 to {MAX_PUBLICATION_KEY_BYTES} bytes"
        )
        .into()),
    }
}

/// The trace context of a publication. A malformed context is ignored, as in HTTP, because the
/// publication must not be lost for it.
fn trace(written: Option<Value<'_>>, state: Option<Value<'_>>) -> Option<TraceContext> {
    let trace = TraceContext::parse(&written?.as_str()?)?;
    Some(match state.and_then(|state| state.as_str()) {
        Some(state) => trace.with_state(&state),
        None => trace,
    })
}

fn required<'a>(
    name: &'static str,
    place: &mut Option<Value<'a>>,
) -> Result<Value<'a>, Cow<'static, str>> {
    place
        .take()
        .ok_or_else(|| format!("member `{name}` is missing").into())
}

fn string<'a>(
    name: &'static str,
    place: &mut Option<Value<'a>>,
) -> Result<Cow<'a, str>, Cow<'static, str>> {
    let value = required(name, place)?;
    value.as_str().ok_or_else(|| no_text(name, value))
}

/// The fault of a value that is not a text.
fn no_text(name: &str, value: Value<'_>) -> Cow<'static, str> {
    match value.is_string() {
        true => format!("member `{name}` has half of a surrogate pair").into(),
        false => format!("member `{name}` must be a string").into(),
    }
}
