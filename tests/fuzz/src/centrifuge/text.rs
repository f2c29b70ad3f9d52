//! Messages in JSON, parsed by serde_json.

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::opinion::{self, Request, Verdict};

#[derive(Deserialize)]
struct Command<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    connect: Option<&'a RawValue>,
    #[serde(borrow)]
    subscribe: Option<&'a RawValue>,
    #[serde(borrow)]
    unsubscribe: Option<&'a RawValue>,
    #[serde(borrow)]
    publish: Option<&'a RawValue>,
    #[serde(borrow)]
    presence: Option<&'a RawValue>,
    #[serde(borrow)]
    presence_stats: Option<&'a RawValue>,
    #[serde(borrow)]
    history: Option<&'a RawValue>,
    #[serde(borrow)]
    ping: Option<&'a RawValue>,
    #[serde(borrow)]
    send: Option<&'a RawValue>,
    #[serde(borrow)]
    rpc: Option<&'a RawValue>,
    #[serde(borrow)]
    refresh: Option<&'a RawValue>,
    #[serde(borrow)]
    sub_refresh: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Emulation {
    node: Option<String>,
    session: Option<String>,
    data: Option<String>,
}

#[derive(Deserialize)]
struct Connect<'a> {
    token: Option<String>,
    #[serde(borrow)]
    subs: Option<Subs<'a>>,
}

/// The members of an object in their order.
struct Subs<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Subs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Subs<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Subs<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Subs(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

#[derive(Deserialize)]
struct Subscribe<'a> {
    channel: Option<String>,
    token: Option<String>,
    recover: Option<bool>,
    epoch: Option<String>,
    #[serde(borrow)]
    offset: Option<&'a RawValue>,
    join_leave: Option<bool>,
    delta: Option<String>,
    #[serde(borrow)]
    tf: Option<&'a RawValue>,
    #[serde(borrow)]
    flag: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct OfChannel {
    channel: Option<String>,
}

#[derive(Deserialize)]
struct Publish<'a> {
    channel: Option<String>,
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    key: Option<String>,
    removed: Option<bool>,
}

/// The data of [`Publish`]. It is parsed separately, because only this member may be `null`.
#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct History<'a> {
    channel: Option<String>,
    #[serde(borrow)]
    limit: Option<&'a RawValue>,
    #[serde(borrow)]
    since: Option<&'a RawValue>,
    reverse: Option<bool>,
}

#[derive(Deserialize)]
struct Since<'a> {
    #[serde(borrow)]
    offset: Option<&'a RawValue>,
    epoch: Option<String>,
}

#[derive(Deserialize)]
struct Refresh<'a> {
    channel: Option<String>,
    token: Option<String>,
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
}

pub(super) fn verdict(line: &str) -> Verdict {
    read(line).unwrap_or(Verdict::Refused)
}

/// Parses an object. The derived parser alone would also accept an array.
fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Option<T> {
    let trimmed = text.trim_start_matches([' ', '\t', '\r', '\n']);
    trimmed.starts_with('{').then_some(())?;
    serde_json::from_str(text).ok()
}

/// Parses an integer from its text. A missing integer is 0.
fn number<T: TryFrom<i128> + Default>(raw: Option<&RawValue>) -> Option<T> {
    let Some(raw) = raw else {
        return Some(T::default());
    };
    let (text, digits) = (raw.get(), raw.get().trim_start_matches('-'));
    // A type without negative values allows no minus sign.
    let has_sign = text.starts_with('-') && T::try_from(-1).is_err();
    let is_whole = !has_sign && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_whole.then_some(())?;
    T::try_from(text.parse().ok()?).ok()
}

fn read(line: &str) -> Option<Verdict> {
    let command: Command<'_> = object(line)?;
    let id = number(command.id)?;
    let requests = [
        ("connect", command.connect),
        ("subscribe", command.subscribe),
        ("unsubscribe", command.unsubscribe),
        ("publish", command.publish),
        ("presence", command.presence),
        ("presence_stats", command.presence_stats),
        ("history", command.history),
        ("rpc", command.rpc),
        ("send", command.send),
        ("refresh", command.refresh),
        ("sub_refresh", command.sub_refresh),
        ("ping", command.ping),
    ];
    let set = || {
        requests
            .iter()
            .filter_map(|(name, raw)| Some((*name, raw.as_ref()?.get())))
    };
    if !set().all(|(_, raw)| raw.starts_with('{')) {
        return None;
    }
    let has_send = command.send.is_some();
    if id == 0 && !has_send {
        return Some(Verdict::Pong);
    }
    let request = match set().next() {
        Some((name, raw)) => Some(request(name, raw)?),
        None => None,
    };
    Some(opinion::verdict(id, has_send, request))
}

fn request(name: &'static str, raw: &str) -> Option<Request> {
    Some(match name {
        "connect" => {
            let connect: Connect<'_> = object(raw)?;
            let subs = connect
                .subs
                .map_or_else(Vec::new, |subs| subs.0)
                .into_iter();
            let subs = subs.map(|(channel, raw)| Some((channel, subscribe(raw.get())?)));
            Request::Connect {
                token: connect.token.unwrap_or_default(),
                subs: subs.collect::<Option<_>>()?,
            }
        }
        "subscribe" => Request::Subscribe(subscribe(raw)?),
        "publish" => {
            let publish: Publish<'_> = object(raw)?;
            let data = serde_json::from_str::<Data<'_>>(raw);
            // Besides a missing `data`, only a duplicate `data` can be a fault here.
            let data = match data {
                Ok(data) => data.data.get().into(),
                Err(error) if error.to_string().contains("missing field") => Vec::new(),
                Err(_) => return None,
            };
            // The members `key` and `removed` are parsed only to check their types.
            drop((publish.key, publish.removed));
            Request::Publish {
                channel: publish.channel.unwrap_or_default(),
                data,
                kind: number(publish.kind)?,
            }
        }
        "unsubscribe" | "presence" | "presence_stats" => {
            let of: OfChannel = object(raw)?;
            Request::OfChannel(name, of.channel.unwrap_or_default())
        }
        "history" => {
            let history: History<'_> = object(raw)?;
            let since = match history.since {
                Some(raw) => {
                    let since: Since<'_> = object(raw.get())?;
                    Some((number(since.offset)?, since.epoch.unwrap_or_default()))
                }
                None => None,
            };
            Request::History {
                channel: history.channel.unwrap_or_default(),
                limit: number(history.limit)?,
                since,
                reverse: history.reverse.unwrap_or_default(),
            }
        }
        "refresh" => {
            let refresh: Token = object(raw)?;
            Request::Refresh(refresh.token.unwrap_or_default())
        }
        "sub_refresh" => {
            let refresh: Refresh<'_> = object(raw)?;
            Request::SubRefresh {
                channel: refresh.channel.unwrap_or_default(),
                token: refresh.token.unwrap_or_default(),
                kind: number(refresh.kind)?,
            }
        }
        name => Request::Empty(name),
    })
}

fn subscribe(raw: &str) -> Option<opinion::Subscribe> {
    let read: Subscribe<'_> = object(raw)?;
    if read.tf.is_some_and(|tf| !tf.get().starts_with('{')) {
        return None;
    }
    Some(opinion::Subscribe {
        channel: read.channel.unwrap_or_default(),
        token: read.token.unwrap_or_default(),
        recover: read.recover.unwrap_or_default(),
        epoch: read.epoch.unwrap_or_default(),
        offset: number(read.offset)?,
        join_leave: read.join_leave.unwrap_or_default(),
        delta: read.delta.unwrap_or_default(),
        has_filter: read.tf.is_some(),
        flag: number(read.flag)?,
        kind: number(read.kind)?,
    })
}

/// The content of a request that carries commands; `None` for any other body.
pub(super) fn carried(body: &[u8]) -> Option<opinion::Carried> {
    let body = str::from_utf8(body).ok()?.trim_ascii();
    let read: Emulation = serde_json::from_str(body).ok()?;
    let carried = opinion::Carried {
        node: read.node.unwrap_or_default(),
        session: read.session.unwrap_or_default(),
        data: read.data.unwrap_or_default().into_bytes(),
    };
    carried.checked()
}
