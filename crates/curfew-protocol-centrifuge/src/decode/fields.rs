//! The fields that are read from requests. All other fields are ignored.

/// A field of a message, with its name in JSON and its tag in Protobuf.
pub(super) struct Field {
    pub(super) tag: u32,
    pub(super) name: &'static str,
    pub(super) kind: FieldKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldKind {
    /// A single value. In JSON, `null` means that the field is absent.
    One,
    /// A payload. In JSON, every value is a payload, `null` included.
    Data,
    /// A map. In Protobuf, the field occurs once for each entry.
    Map,
}

pub(super) const fn one(tag: u32, name: &'static str) -> Field {
    let kind = FieldKind::One;
    Field { tag, name, kind }
}

const fn data(tag: u32) -> Field {
    let (name, kind) = ("data", FieldKind::Data);
    Field { tag, name, kind }
}

/// The fields of a command. The requests are in order of precedence: if a command has several
/// requests, the first one in this list counts.
pub(super) const COMMAND: &[Field] = &[
    one(4, "connect"),
    one(5, "subscribe"),
    one(6, "unsubscribe"),
    one(7, "publish"),
    one(8, "presence"),
    one(9, "presence_stats"),
    one(10, "history"),
    one(13, "rpc"),
    one(12, "send"),
    one(14, "refresh"),
    one(15, "sub_refresh"),
    one(11, "ping"),
    one(1, "id"),
];

pub(super) const CONNECT: &[Field] = &[
    one(1, "token"),
    Field {
        tag: 3,
        name: "subs",
        kind: FieldKind::Map,
    },
];

pub(super) const SUBSCRIBE: &[Field] = &[
    one(1, "channel"),
    one(2, "token"),
    one(3, "recover"),
    one(6, "epoch"),
    one(7, "offset"),
    one(11, "join_leave"),
    one(12, "delta"),
    one(13, "tf"),
    one(14, "flag"),
    one(15, "type"),
];

pub(super) const PUBLISH: &[Field] = &[
    one(1, "channel"),
    data(2),
    one(3, "type"),
    one(4, "key"),
    one(5, "removed"),
];

pub(super) const HISTORY: &[Field] = &[
    one(1, "channel"),
    one(7, "limit"),
    one(8, "since"),
    one(9, "reverse"),
];

pub(super) const STREAM_POSITION: &[Field] = &[one(1, "offset"), one(2, "epoch")];

/// The fields of the requests from which only the channel is read.
pub(super) const CHANNEL: &[Field] = &[one(1, "channel")];

pub(super) const REFRESH: &[Field] = &[one(1, "token")];

pub(super) const SUB_REFRESH: &[Field] = &[one(1, "channel"), one(2, "token"), one(3, "type")];
