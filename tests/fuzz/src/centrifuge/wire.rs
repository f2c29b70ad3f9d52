//! Messages in Protobuf, parsed by prost.

use prost::Message;

use super::opinion::{self, Request, Verdict};

macro_rules! messages {
    ($($name:ident { $($(#[$field:meta])* $member:ident: $kind:ty,)* })+) => {
        $(
            #[derive(Clone, PartialEq, Message)]
            struct $name { $($(#[$field])* $member: $kind,)* }
        )+
    };
}

messages! {
    // The requests stay bytes, and are parsed only when they are used.
    Command {
        #[prost(uint32, tag = "1")] id: u32,
        #[prost(bytes = "vec", optional, tag = "4")] connect: Option<Vec<u8>>,
        #[prost(bytes = "vec", optional, tag = "5")] subscribe: Option<Vec<u8>>,
        #[prost(bytes = "vec", optional, tag = "6")] unsubscribe: Option<Vec<u8>>,
        #[prost(bytes = "vec", optional, tag = "7")] publish: Option<Vec<u8>>,
        #[prost(bytes = "vec", optional, tag = "8")] presence: Option<Vec<u8>>,
        #[prost(bytes = "vec", optional, tag = "9")] presence_stats: Option<Vec<u8>>,
        #[prost(bytes = "vec", optional, tag = "10")] history: Option<Vec<u8>>,
        #[prost(bytes = "vec", optional, tag = "11")] ping: Option<Vec<u8>>,
        #[prost(bytes = "vec", optional, tag = "12")] send: Option<Vec<u8>>,
        #[prost(bytes = "vec", optional, tag = "13")] rpc: Option<Vec<u8>>,
        #[prost(bytes = "vec", optional, tag = "14")] refresh: Option<Vec<u8>>,
        #[prost(bytes = "vec", optional, tag = "15")] sub_refresh: Option<Vec<u8>>,
    }
    Emulation {
        #[prost(string, tag = "1")] node: String,
        #[prost(string, tag = "2")] session: String,
        #[prost(bytes = "vec", tag = "3")] data: Vec<u8>,
    }
    Connect {
        #[prost(string, tag = "1")] token: String,
        #[prost(message, repeated, tag = "3")] subs: Vec<Entry>,
    }
    Entry {
        #[prost(string, tag = "1")] key: String,
        #[prost(message, optional, tag = "2")] value: Option<Subscribe>,
    }
    Subscribe {
        #[prost(string, tag = "1")] channel: String,
        #[prost(string, tag = "2")] token: String,
        #[prost(bool, tag = "3")] recover: bool,
        #[prost(string, tag = "6")] epoch: String,
        #[prost(uint64, tag = "7")] offset: u64,
        #[prost(bool, tag = "11")] join_leave: bool,
        #[prost(string, tag = "12")] delta: String,
        #[prost(bytes = "vec", optional, tag = "13")] tf: Option<Vec<u8>>,
        #[prost(int64, tag = "14")] flag: i64,
        #[prost(int32, tag = "15")] kind: i32,
    }
    OfChannel {
        #[prost(string, tag = "1")] channel: String,
    }
    Publish {
        #[prost(string, tag = "1")] channel: String,
        #[prost(bytes = "vec", tag = "2")] data: Vec<u8>,
        #[prost(int32, tag = "3")] kind: i32,
        #[prost(string, tag = "4")] key: String,
        #[prost(bool, tag = "5")] removed: bool,
    }
    Since {
        #[prost(uint64, tag = "1")] offset: u64,
        #[prost(string, tag = "2")] epoch: String,
    }
    History {
        #[prost(string, tag = "1")] channel: String,
        #[prost(int32, tag = "7")] limit: i32,
        #[prost(message, optional, tag = "8")] since: Option<Since>,
        #[prost(bool, tag = "9")] reverse: bool,
    }
    Refresh {
        #[prost(string, tag = "1")] token: String,
    }
    SubRefresh {
        #[prost(string, tag = "1")] channel: String,
        #[prost(string, tag = "2")] token: String,
        #[prost(int32, tag = "3")] kind: i32,
    }
}

/// The result of prost for one message.
pub(super) struct Opinion {
    pub(super) verdict: Verdict,
    /// True if prost would encode the message to the same bytes. The message then has no duplicate
    /// fields.
    pub(super) is_plain: bool,
}

/// Parses the first message of `rest`, and removes it from `rest`; `None` if there is no valid
/// message.
pub(super) fn take(rest: &mut &[u8]) -> Option<Opinion> {
    let length = prost::decode_length_delimiter(&mut *rest).ok()?;
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    let Ok(command) = Command::decode(bytes) else {
        // prost refuses the message, so Curfew must refuse it too.
        return None;
    };
    let mut is_plain = command.encode_to_vec() == bytes;
    let requests = [
        ("connect", &command.connect),
        ("subscribe", &command.subscribe),
        ("unsubscribe", &command.unsubscribe),
        ("publish", &command.publish),
        ("presence", &command.presence),
        ("presence_stats", &command.presence_stats),
        ("history", &command.history),
        ("rpc", &command.rpc),
        ("send", &command.send),
        ("refresh", &command.refresh),
        ("sub_refresh", &command.sub_refresh),
        ("ping", &command.ping),
    ];
    let first = requests
        .into_iter()
        .find_map(|(name, bytes)| Some((name, bytes.as_ref()?)));
    let has_send = command.send.is_some();
    let request = match first {
        Some(_) if command.id == 0 && !has_send => None,
        Some((name, bytes)) => match request(name, bytes, &mut is_plain) {
            Some(request) => Some(request),
            None => {
                let verdict = Verdict::Refused;
                return Some(Opinion { verdict, is_plain });
            }
        },
        None => None,
    };
    let verdict = opinion::verdict(command.id, has_send, request);
    Some(Opinion { verdict, is_plain })
}

/// The content of a request that carries commands, and a flag that is true if prost would encode
/// the request to the same bytes; `None` for any other body.
pub(super) fn carried(body: &[u8]) -> Option<(opinion::Carried, bool)> {
    let mut is_plain = true;
    let read: Emulation = read(body, &mut is_plain)?;
    let carried = opinion::Carried {
        node: read.node,
        session: read.session,
        data: read.data,
    };
    Some((carried.checked()?, is_plain))
}

fn read<T: Message + Default>(bytes: &[u8], is_plain: &mut bool) -> Option<T> {
    let message = T::decode(bytes).ok()?;
    *is_plain &= message.encode_to_vec() == bytes;
    Some(message)
}

fn request(name: &'static str, bytes: &[u8], is_plain: &mut bool) -> Option<Request> {
    Some(match name {
        "connect" => {
            let connect: Connect = read(bytes, is_plain)?;
            let subs = connect.subs.into_iter();
            let subs = subs.map(|entry| (entry.key, subscribe(entry.value.unwrap_or_default())));
            Request::Connect {
                token: connect.token,
                subs: subs.collect(),
            }
        }
        "subscribe" => Request::Subscribe(subscribe(read(bytes, is_plain)?)),
        "publish" => {
            let publish: Publish = read(bytes, is_plain)?;
            Request::Publish {
                channel: publish.channel,
                data: publish.data,
                kind: publish.kind,
            }
        }
        "unsubscribe" | "presence" | "presence_stats" => {
            Request::OfChannel(name, read::<OfChannel>(bytes, is_plain)?.channel)
        }
        "history" => {
            let history: History = read(bytes, is_plain)?;
            Request::History {
                channel: history.channel,
                limit: history.limit,
                since: history.since.map(|since| (since.offset, since.epoch)),
                reverse: history.reverse,
            }
        }
        "refresh" => Request::Refresh(read::<Refresh>(bytes, is_plain)?.token),
        "sub_refresh" => {
            let refresh: SubRefresh = read(bytes, is_plain)?;
            Request::SubRefresh {
                channel: refresh.channel,
                token: refresh.token,
                kind: refresh.kind,
            }
        }
        name => Request::Empty(name),
    })
}

fn subscribe(read: Subscribe) -> opinion::Subscribe {
    opinion::Subscribe {
        channel: read.channel,
        token: read.token,
        recover: read.recover,
        epoch: read.epoch,
        offset: read.offset,
        join_leave: read.join_leave,
        delta: read.delta,
        has_filter: read.tf.is_some(),
        flag: read.flag,
        kind: read.kind,
    }
}
