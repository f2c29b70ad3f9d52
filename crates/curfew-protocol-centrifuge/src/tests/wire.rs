//! The protocol's messages, defined for another implementation of Protobuf, prost.

use std::collections::BTreeMap;

use prost::Message;

macro_rules! messages {
    ($($name:ident { $($(#[$field:meta])* $member:ident: $kind:ty,)* })+) => {
        $(
            #[derive(Clone, PartialEq, Message)]
            pub(super) struct $name { $($(#[$field])* pub(super) $member: $kind,)* }
        )+
    };
}

messages! {
    Command {
        #[prost(uint32, tag = "1")] id: u32,
        #[prost(message, tag = "4")] connect: Option<ConnectRequest>,
        #[prost(message, tag = "5")] subscribe: Option<SubscribeRequest>,
        #[prost(message, tag = "6")] unsubscribe: Option<ChannelRequest>,
        #[prost(message, tag = "7")] publish: Option<PublishRequest>,
        #[prost(message, tag = "8")] presence: Option<ChannelRequest>,
        #[prost(message, tag = "9")] presence_stats: Option<ChannelRequest>,
        #[prost(message, tag = "10")] history: Option<HistoryRequest>,
        #[prost(message, tag = "11")] ping: Option<Empty>,
        #[prost(message, tag = "12")] send: Option<Empty>,
        #[prost(message, tag = "13")] rpc: Option<Empty>,
        #[prost(message, tag = "14")] refresh: Option<RefreshRequest>,
        #[prost(message, tag = "15")] sub_refresh: Option<SubRefreshRequest>,
    }
    Empty {}
    ConnectRequest {
        #[prost(string, tag = "1")] token: String,
        #[prost(bytes = "vec", tag = "2")] data: Vec<u8>,
        #[prost(btree_map = "string, message", tag = "3")] subs: BTreeMap<String, SubscribeRequest>,
        #[prost(string, tag = "4")] name: String,
        #[prost(string, tag = "5")] version: String,
        #[prost(btree_map = "string, string", tag = "6")] headers: BTreeMap<String, String>,
    }
    SubscribeRequest {
        #[prost(string, tag = "1")] channel: String,
        #[prost(string, tag = "2")] token: String,
        #[prost(bool, tag = "3")] recover: bool,
        #[prost(string, tag = "6")] epoch: String,
        #[prost(uint64, tag = "7")] offset: u64,
        #[prost(bytes = "vec", tag = "8")] data: Vec<u8>,
        #[prost(bool, tag = "9")] positioned: bool,
        #[prost(bool, tag = "10")] recoverable: bool,
        #[prost(bool, tag = "11")] join_leave: bool,
        #[prost(string, tag = "12")] delta: String,
        #[prost(message, tag = "13")] tf: Option<Empty>,
        #[prost(int64, tag = "14")] flag: i64,
        #[prost(int32, tag = "15")] kind: i32,
    }
    ChannelRequest {
        #[prost(string, tag = "1")] channel: String,
    }
    PublishRequest {
        #[prost(string, tag = "1")] channel: String,
        #[prost(bytes = "vec", tag = "2")] data: Vec<u8>,
        #[prost(int32, tag = "3")] kind: i32,
        #[prost(string, tag = "4")] key: String,
        #[prost(bool, tag = "5")] removed: bool,
    }
    StreamPosition {
        #[prost(uint64, tag = "1")] offset: u64,
        #[prost(string, tag = "2")] epoch: String,
    }
    HistoryRequest {
        #[prost(string, tag = "1")] channel: String,
        #[prost(int32, tag = "7")] limit: i32,
        #[prost(message, tag = "8")] since: Option<StreamPosition>,
        #[prost(bool, tag = "9")] reverse: bool,
    }
    RefreshRequest {
        #[prost(string, tag = "1")] token: String,
    }
    SubRefreshRequest {
        #[prost(string, tag = "1")] channel: String,
        #[prost(string, tag = "2")] token: String,
        #[prost(int32, tag = "3")] kind: i32,
    }

    Reply {
        #[prost(uint32, tag = "1")] id: u32,
        #[prost(message, tag = "2")] error: Option<Error>,
        #[prost(message, tag = "4")] push: Option<Push>,
        #[prost(message, tag = "5")] connect: Option<ConnectResult>,
        #[prost(message, tag = "6")] subscribe: Option<SubscribeResult>,
        #[prost(message, tag = "7")] unsubscribe: Option<Empty>,
        #[prost(message, tag = "8")] publish: Option<Empty>,
        #[prost(message, tag = "9")] presence: Option<PresenceResult>,
        #[prost(message, tag = "10")] presence_stats: Option<PresenceStatsResult>,
        #[prost(message, tag = "11")] history: Option<HistoryResult>,
        #[prost(message, tag = "12")] ping: Option<Empty>,
        #[prost(message, tag = "14")] refresh: Option<RefreshResult>,
        #[prost(message, tag = "15")] sub_refresh: Option<SubRefreshResult>,
    }
    Error {
        #[prost(uint32, tag = "1")] code: u32,
        #[prost(string, tag = "2")] message: String,
        #[prost(bool, tag = "3")] temporary: bool,
    }
    Push {
        #[prost(string, tag = "2")] channel: String,
        #[prost(message, tag = "4")] publication: Option<Publication>,
        #[prost(message, tag = "5")] join: Option<Presence>,
        #[prost(message, tag = "6")] leave: Option<Presence>,
        #[prost(message, tag = "7")] unsubscribe: Option<Unsubscribe>,
        #[prost(message, tag = "11")] disconnect: Option<Disconnect>,
    }
    ClientInfo {
        #[prost(string, tag = "1")] user: String,
        #[prost(string, tag = "2")] client: String,
        #[prost(bytes = "vec", tag = "3")] conn_info: Vec<u8>,
        #[prost(bytes = "vec", tag = "4")] chan_info: Vec<u8>,
    }
    Publication {
        #[prost(bytes = "vec", tag = "4")] data: Vec<u8>,
        #[prost(message, tag = "5")] info: Option<ClientInfo>,
        #[prost(uint64, tag = "6")] offset: u64,
        #[prost(bool, tag = "8")] delta: bool,
        #[prost(string, tag = "14")] epoch: String,
    }
    Presence {
        #[prost(message, tag = "1")] info: Option<ClientInfo>,
    }
    Unsubscribe {
        #[prost(uint32, tag = "2")] code: u32,
        #[prost(string, tag = "3")] reason: String,
    }
    Disconnect {
        #[prost(uint32, tag = "1")] code: u32,
        #[prost(string, tag = "2")] reason: String,
    }
    ConnectResult {
        #[prost(string, tag = "1")] client: String,
        #[prost(string, tag = "2")] version: String,
        #[prost(bool, tag = "3")] expires: bool,
        #[prost(uint32, tag = "4")] ttl: u32,
        #[prost(btree_map = "string, message", tag = "6")] subs: BTreeMap<String, SubscribeResult>,
        #[prost(uint32, tag = "7")] ping: u32,
        #[prost(bool, tag = "8")] pong: bool,
        #[prost(string, tag = "9")] session: String,
        #[prost(string, tag = "10")] node: String,
    }
    SubscribeResult {
        #[prost(bool, tag = "1")] expires: bool,
        #[prost(uint32, tag = "2")] ttl: u32,
        #[prost(bool, tag = "3")] recoverable: bool,
        #[prost(string, tag = "6")] epoch: String,
        #[prost(message, repeated, tag = "7")] publications: Vec<Publication>,
        #[prost(bool, tag = "8")] recovered: bool,
        #[prost(uint64, tag = "9")] offset: u64,
        #[prost(bool, tag = "10")] positioned: bool,
        #[prost(bytes = "vec", tag = "11")] data: Vec<u8>,
        #[prost(bool, tag = "12")] was_recovering: bool,
        #[prost(bool, tag = "13")] delta: bool,
    }
    PresenceResult {
        #[prost(btree_map = "string, message", tag = "1")] presence: BTreeMap<String, ClientInfo>,
    }
    PresenceStatsResult {
        #[prost(uint32, tag = "1")] num_clients: u32,
        #[prost(uint32, tag = "2")] num_users: u32,
    }
    HistoryResult {
        #[prost(message, repeated, tag = "1")] publications: Vec<Publication>,
        #[prost(string, tag = "2")] epoch: String,
        #[prost(uint64, tag = "3")] offset: u64,
    }
    RefreshResult {
        #[prost(bool, tag = "3")] expires: bool,
        #[prost(uint32, tag = "4")] ttl: u32,
    }
    SubRefreshResult {
        #[prost(bool, tag = "1")] expires: bool,
        #[prost(uint32, tag = "2")] ttl: u32,
    }
}
