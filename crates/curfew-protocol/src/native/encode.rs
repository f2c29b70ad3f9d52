//! Encoding of replies and pushes. It uses no library, because every delivered publication has to
//! be encoded, and the encoding must be fast.

use std::fmt::Write as _;

use bytes::{BufMut as _, BytesMut};
use curfew_model::{
    Channel, CommandId, Disconnect, Position, PresenceChange, Present, Publication, Push, Reply,
    TraceId,
};

use crate::json::{self, strip_string};

/// Estimated length of a `message` push without its channel, data and sender, in bytes.
const MESSAGE_OVERHEAD: usize = 64;

pub(super) fn reply(id: Option<&CommandId>, reply: &Reply<'_>, out: &mut BytesMut) -> bool {
    match reply {
        Reply::Connected {
            session,
            user,
            expires_at,
            ping_interval,
            renew_in: _,
            subscriptions: _,
            commands_by: _,
        } => {
            // The reply does not repeat the id of `auth`, because a session authenticates once.
            open("connected", out);
            put_string("session", &session.to_string(), out);
            put_string("user", user, out);
            put_number("expires_at", *expires_at, out);
            put_number("ping_interval", *ping_interval, out);
        }
        Reply::AuthFailed {
            reason,
            message,
            trace,
        } => {
            open("auth_failed", out);
            put_string("reason", reason.as_str(), out);
            put_string("message", message, out);
            put_trace(*trace, out);
        }
        // The close that follows states the reason.
        Reply::NotOpened { .. } => return false,
        Reply::Subscribed(subscribed) => {
            if !ok(id, out) {
                return false;
            }
            put_position(subscribed.position, out);
            if let Some(recovered) = subscribed.recovered {
                put_bool("recovered", recovered, out);
            }
        }
        Reply::Unsubscribed => {
            if !ok(id, out) {
                return false;
            }
        }
        Reply::Published { position } => {
            if !ok(id, out) {
                return false;
            }
            if let Some(position) = position {
                put_number("offset", position.offset, out);
            }
        }
        Reply::History {
            position,
            publications,
            truncated,
        } => {
            open("history", out);
            put_id(id, out);
            put_position(Some(*position), out);
            put_name("publications", out);
            put_publications(publications, out);
            if *truncated {
                put_bool("truncated", true, out);
            }
        }
        Reply::Presence {
            sessions,
            users,
            truncated,
        } => {
            open("presence", out);
            put_id(id, out);
            put_name("sessions", out);
            put_sessions(sessions, out);
            put_number("users", *users, out);
            put_bool("truncated", *truncated, out);
        }
        Reply::Error {
            code,
            message,
            trace,
        } => {
            open("error", out);
            put_id(id, out);
            put_string("code", code.as_str(), out);
            put_string("message", message, out);
            put_trace(*trace, out);
        }
        // These replies answer commands that this protocol's decoder never returns.
        Reply::PresenceCount { .. }
        | Reply::Unrecoverable
        | Reply::SubscriptionExpired
        | Reply::SubscriptionRefreshed { .. } => {
            return false;
        }
        Reply::Refreshed { expires_at, .. } => {
            open("refreshed", out);
            put_id(id, out);
            put_number("expires_at", *expires_at, out);
        }
        Reply::Pong => {
            open("pong", out);
            put_id(id, out);
        }
    }
    out.put_u8(b'}');
    true
}

pub(super) fn push(push: &Push<'_>, out: &mut BytesMut) {
    match push {
        Push::Message {
            channel,
            data,
            from,
            position,
            ..
        } => {
            let names = channel.as_str().len() + from.map_or(0, str::len);
            out.reserve(MESSAGE_OVERHEAD + names + data.len());
            open("message", out);
            put_string("channel", channel.as_str(), out);
            put_name("data", out);
            out.put_slice(data);
            if let Some(from) = from {
                put_string("from", from, out);
            }
            if let Some(position) = position {
                put_number("offset", position.offset, out);
            }
        }
        Push::Gap { channel, position } => {
            open("gap", out);
            put_string("channel", channel.as_str(), out);
            put_position(*position, out);
        }
        Push::Presence {
            channel,
            change,
            present,
        } => {
            open(change.as_str(), out);
            put_string("channel", channel.as_str(), out);
            put_string("session", &present.session.to_string(), out);
            put_user(present, out);
        }
        Push::Expiring { expires_at } => {
            open("expiring", out);
            put_number("expires_at", *expires_at, out);
        }
        Push::Unsubscribed { channel, reason } => {
            open("unsubscribed", out);
            put_string("channel", channel.as_str(), out);
            put_string("reason", reason.as_str(), out);
        }
        Push::Closing {
            disconnect,
            retry_after_ms,
            trace,
        } => {
            closing(disconnect, *retry_after_ms, out);
            put_trace(*trace, out);
        }
    }
    out.put_u8(b'}');
}

/// See [`crate::Protocol::is_of`].
pub(super) fn is_of(message: &[u8], channel: &Channel) -> bool {
    let changes = [PresenceChange::Join, PresenceChange::Leave].map(PresenceChange::as_str);
    let kinds = ["message", "gap"].into_iter().chain(changes);
    let behind_kind = |kind: &str| {
        let rest = message.strip_prefix(b"{\"type\":\"")?;
        rest.strip_prefix(kind.as_bytes())?
            .strip_prefix(b"\",\"channel\":")
    };
    let mut named = kinds.filter_map(behind_kind);
    named.any(|rest| strip_string(rest, channel.as_str()).is_some())
}

/// Opens the reply to a command that succeeded. Without an id, returns false and writes nothing.
fn ok(id: Option<&CommandId>, out: &mut BytesMut) -> bool {
    if id.is_none() {
        return false;
    }
    open("ok", out);
    put_id(id, out);
    true
}

fn put_publications(publications: &[Publication], out: &mut BytesMut) {
    out.put_u8(b'[');
    for (at, publication) in publications.iter().enumerate() {
        if at > 0 {
            out.put_u8(b',');
        }
        // Every publication of a stream has an entry.
        let entry = publication.entry;
        let offset = entry.map_or(0, |entry| entry.position.offset);
        write!(out, "{{\"offset\":{offset}").expect("a buffer that grows takes any text");
        put_name("data", out);
        out.put_slice(&publication.data);
        if let Some(from) = &publication.from {
            put_string("from", from, out);
        }
        put_number("at", entry.map_or(0, |entry| entry.at), out);
        out.put_u8(b'}');
    }
    out.put_u8(b']');
}

fn put_sessions(sessions: &[Present], out: &mut BytesMut) {
    out.put_u8(b'[');
    for (at, present) in sessions.iter().enumerate() {
        if at > 0 {
            out.put_u8(b',');
        }
        let session = present.session;
        write!(out, "{{\"session\":\"{session}\"").expect("a buffer that grows takes any text");
        put_user(present, out);
        out.put_u8(b'}');
    }
    out.put_u8(b']');
}

fn put_user(present: &Present, out: &mut BytesMut) {
    put_string("user", &present.user, out);
    if let Some(info) = &present.info {
        put_name("info", out);
        out.put_slice(info.as_bytes());
    }
}

fn put_position(position: Option<Position>, out: &mut BytesMut) {
    if let Some(position) = position {
        put_string("epoch", position.epoch.as_str(), out);
        put_number("offset", position.offset, out);
    }
}

fn put_bool(name: &str, value: bool, out: &mut BytesMut) {
    put_name(name, out);
    out.put_slice(if value { b"true" } else { b"false" });
}

fn closing(disconnect: &Disconnect, retry_after_ms: Option<u64>, out: &mut BytesMut) {
    open("closing", out);
    put_number("code", disconnect.code.into(), out);
    put_string("reason", disconnect.reason, out);
    put_string("message", disconnect.message, out);
    put_bool("reconnect", disconnect.advice.reconnect(), out);
    if let Some(retry_after_ms) = retry_after_ms {
        put_number("retry_after_ms", retry_after_ms, out);
    }
}

fn open(kind: &str, out: &mut BytesMut) {
    out.put_slice(b"{\"type\":\"");
    out.put_slice(kind.as_bytes());
    out.put_u8(b'"');
}

fn put_id(id: Option<&CommandId>, out: &mut BytesMut) {
    if let Some(id) = id {
        put_name("id", out);
        out.put_slice(id.as_json().as_bytes());
    }
}

/// Writes the name of a member after the first. The name needs no escaping.
fn put_name(name: &str, out: &mut BytesMut) {
    out.put_slice(b",\"");
    out.put_slice(name.as_bytes());
    out.put_slice(b"\":");
}

fn put_number(name: &str, number: u64, out: &mut BytesMut) {
    put_name(name, out);
    write!(out, "{number}").expect("a buffer that grows takes any text");
}

fn put_trace(trace: Option<TraceId>, out: &mut BytesMut) {
    if let Some(trace) = trace {
        put_string("trace", &trace.to_string(), out);
    }
}

fn put_string(name: &str, text: &str, out: &mut BytesMut) {
    put_name(name, out);
    json::put_string(text.as_bytes(), out);
}
