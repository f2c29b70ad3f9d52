//! The protocol's messages: their fields, types and tags.

use std::collections::HashMap;
use std::sync::LazyLock;

/// Each line describes one message: `name: type field tag, …`. `[T]` is a list, `{T}` is a map from
/// text.
const MESSAGES: &str = "\
Command: u32 id 1, Connect connect 4, Subscribe subscribe 5, Channel unsubscribe 6, Publish publish 7, \
    Channel presence 8, Channel presence_stats 9, History history 10, Empty ping 11, Data send 12, \
    Rpc rpc 13, Token refresh 14, SubRefresh sub_refresh 15
Connect: text token 1, bytes data 2, {Subscribe} subs 3, text name 4, text version 5, {text} headers 6, \
    i64 flag 7
Subscribe: text channel 1, text token 2, bool recover 3, text epoch 6, u64 offset 7, bytes data 8, \
    bool positioned 9, bool recoverable 10, bool join_leave 11, text delta 12, Filter tf 13, i64 flag 14, \
    i32 type 15, i32 phase 16, text cursor 17, i32 limit 18, bool asc 19
Filter: text op 1, text key 2, text cmp 3, text val 4, [text] vals 5, [Filter] nodes 6
Channel: text channel 1
Publish: text channel 1, bytes data 2, i32 type 3, text key 4, bool removed 5
History: text channel 1, i32 limit 7, Position since 8, bool reverse 9
Position: u64 offset 1, text epoch 2
Empty:
Data: bytes data 1
Rpc: bytes data 1, text method 2
Token: text token 1
SubRefresh: text channel 1, text token 2, i32 type 3
Reply: u32 id 1, Error error 2, Push push 4, ConnectResult connect 5, SubscribeResult subscribe 6, \
    Empty unsubscribe 7, Empty publish 8, PresenceResult presence 9, PresenceStats presence_stats 10, \
    HistoryResult history 11, Empty ping 12, Data rpc 13, RefreshResult refresh 14, \
    SubRefreshResult sub_refresh 15
Error: u32 code 1, text message 2, bool temporary 3
Push: i64 id 1, text channel 2, Publication pub 4, Member join 5, Member leave 6, Unsubscribed unsubscribe 7, \
    Data message 8, Subscribed subscribe 9, ConnectResult connect 10, Disconnect disconnect 11, \
    SubRefreshResult refresh 12
Publication: text channel 10, bytes data 4, u64 offset 6, text epoch 14, bool delta 8, ClientInfo info 5, \
    {text} tags 7, i64 time 9, text key 11, bool removed 12, i64 score 13, bytes prev_data 15, u64 version 16
ClientInfo: text user 1, text client 2, bytes conn_info 3, bytes chan_info 4
Member: ClientInfo info 1
Unsubscribed: u32 code 2, text reason 3
Subscribed: bool recoverable 1, text epoch 4, u64 offset 5, bool positioned 6, bytes data 7
Disconnect: u32 code 1, text reason 2, bool reconnect 3
ConnectResult: text client 1, text version 2, bool expires 3, u32 ttl 4, bytes data 5, \
    {SubscribeResult} subs 6, u32 ping 7, bool pong 8, text session 9, text node 10, i64 time 11
SubscribeResult: bool expires 1, u32 ttl 2, bool recoverable 3, bool positioned 10, bool was_recovering 12, \
    bool recovered 8, text epoch 6, u64 offset 9, bool delta 13, bytes data 11, [Publication] publications 7, \
    i64 id 14, i32 type 15, i32 phase 16, text cursor 17, [Publication] state 18, u32 publish_debounce 19
RefreshResult: text client 1, text version 2, bool expires 3, u32 ttl 4
SubRefreshResult: bool expires 1, u32 ttl 2
PresenceResult: {ClientInfo} presence 1
PresenceStats: u32 num_clients 1, u32 num_users 2
HistoryResult: text epoch 2, u64 offset 3, [Publication] publications 1";

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Unsigned,
    Signed,
    Bool,
    Text,
    /// Bytes in Protobuf; any JSON value in JSON.
    Bytes,
    Message(&'static str),
}

/// A field of a message.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) tag: u32,
    pub(super) kind: Kind,
    pub(super) repeated: bool,
    pub(super) map: bool,
}

/// The fields of a message, in the order in which transcripts show them.
pub(super) fn fields(message: &str) -> &'static [Field] {
    static SCHEMA: LazyLock<HashMap<&'static str, Vec<Field>>> = LazyLock::new(|| {
        let message = |line: &'static str| {
            let (name, fields) = line.split_once(':').expect("a line has a name and fields");
            let fields = fields.split(',').map(str::trim);
            (
                name,
                fields
                    .filter(|field| !field.is_empty())
                    .map(field)
                    .collect(),
            )
        };
        MESSAGES.lines().map(message).collect()
    });
    SCHEMA
        .get(message)
        .unwrap_or_else(|| panic!("no message is called {message}"))
}

fn field(text: &'static str) -> Field {
    let mut words = text.split_whitespace();
    let mut next = || words.next().expect("a field has a type, a name and a tag");
    let (kind, name, tag) = (next(), next(), next());
    Field {
        name,
        tag: tag.parse().expect("a tag is a number"),
        repeated: kind.starts_with('['),
        map: kind.starts_with('{'),
        kind: match kind.trim_matches(['[', ']', '{', '}']) {
            "u32" | "u64" => Kind::Unsigned,
            "i32" | "i64" => Kind::Signed,
            "bool" => Kind::Bool,
            "text" => Kind::Text,
            "bytes" => Kind::Bytes,
            message => Kind::Message(message),
        },
    }
}
