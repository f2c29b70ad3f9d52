//! Encoding of replies and pushes, the same for both encodings.

pub(crate) mod json;
pub(crate) mod protobuf;

use std::borrow::Cow;

use curfew_model::{
    Channel, CommandsBy, DataForm, Position, PresenceChange, Present, Push, Reply, SessionId,
    Subscribed,
};

use crate::codes::{self, Error};
use crate::{Over, fossil};

/// The server's version, which clients show.
const VERSION: &str = concat!("Curfew ", env!("CARGO_PKG_VERSION"));

/// The name of a field in JSON, and its tag in Protobuf.
type Field = (&'static str, u32);

/// Receives the fields of one message, in the order of their tags. Zero, false and empty texts are
/// left out, because receivers read an absent field as zero, false or empty.
pub(crate) trait Fields {
    /// True if a difference must be text.
    const IS_TEXT: bool;

    fn text(&mut self, field: Field, text: &str);
    fn id(&mut self, field: Field, id: SessionId);
    fn number(&mut self, field: Field, number: u64);
    fn flag(&mut self, field: Field, flag: bool);

    /// Writes a payload. In JSON, the payload must be a JSON value.
    fn payload(&mut self, field: Field, payload: &[u8]);

    /// Writes a message, even if it is empty.
    fn message(&mut self, field: Field, write: impl FnOnce(&mut Self));

    /// Writes several messages.
    fn messages<T>(
        &mut self,
        field: Field,
        items: impl Iterator<Item = T>,
        write: impl FnMut(&mut Self, T),
    );

    /// Writes a map whose values are messages.
    fn entries<'k, T>(
        &mut self,
        field: Field,
        items: impl Iterator<Item = (Cow<'k, str>, T)>,
        write: impl FnMut(&mut Self, T),
    );

    /// Writes the fields of a publication.
    fn publication(&mut self, publication: &Published<'_>);

    /// Calls `write`. In JSON, zeros, empty texts and empty lists are then written too, because
    /// clients read some fields without checking their presence.
    fn with_zeros(&mut self, write: impl FnOnce(&mut Self));
}

/// Receives one whole message.
pub(crate) trait Root {
    type Fields<'f>: Fields
    where
        Self: 'f;

    /// Writes a message. `write` writes its fields.
    fn write(self, write: impl FnOnce(&mut Self::Fields<'_>));

    /// Writes a publication for the subscribers of a channel. Publications have this separate
    /// method because nothing else is encoded as often.
    fn push(self, channel: &str, publication: &Published<'_>);
}

/// A publication in a message.
pub(crate) struct Published<'p> {
    pub(crate) data: &'p [u8],
    pub(crate) form: DataForm<'p>,
    pub(crate) sender: Option<&'p Present>,
    pub(crate) position: Option<Position>,
}

impl<'p> Published<'p> {
    fn new(publication: &'p curfew_model::Publication, form: DataForm<'p>) -> Self {
        Self {
            data: &publication.data,
            form,
            sender: publication.sender.as_deref(),
            position: publication.entry.map(|entry| entry.position),
        }
    }

    /// The epoch; `None` except for a stream's first publication. A subscriber that joined before
    /// the stream existed learns the epoch from this publication.
    fn epoch(&self) -> Option<&str> {
        match &self.position {
            Some(Position { epoch, offset: 1 }) => Some(epoch.as_str()),
            _ => None,
        }
    }

    fn offset(&self) -> u64 {
        self.position.map_or(0, |position| position.offset)
    }
}

/// Writes the answer to command `id`. Returns false if the protocol has no message for `reply`.
pub(crate) fn reply(root: impl Root, id: u32, reply: &Reply<'_>) -> bool {
    let error = match reply {
        Reply::AuthFailed { reason, .. } => {
            let Some(error) = codes::auth_failure(*reason) else {
                return false;
            };
            Some((error, error.message))
        }
        Reply::NotOpened { disconnect } => {
            let Some(error) = codes::not_opened(disconnect) else {
                return false;
            };
            Some((error, error.message))
        }
        Reply::SubscriptionExpired => Some((codes::TOKEN_EXPIRED, codes::TOKEN_EXPIRED.message)),
        Reply::Unrecoverable => Some((codes::UNRECOVERABLE, codes::UNRECOVERABLE.message)),
        Reply::Error { code, message, .. } => {
            let error = codes::error(*code);
            let message = match message.is_empty() {
                true => error.message,
                false => message,
            };
            Some((error, message))
        }
        _ => None,
    };
    root.write(|fields| {
        fields.number(("id", 1), id.into());
        match error {
            Some((error, message)) => {
                fields.message(("error", 2), |fields| put_error(error, message, fields));
            }
            None => result(reply, fields),
        }
    });
    true
}

/// Writes an error. Clients act on the code; the text is for people.
fn put_error(error: Error, message: &str, fields: &mut impl Fields) {
    fields.number(("code", 1), error.code.into());
    fields.text(("message", 2), message);
    fields.flag(("temporary", 3), error.is_temporary);
}

/// Writes the result of a command. An empty result is written too: clients treat a reply without a
/// result as a breach of the protocol.
fn result(reply: &Reply<'_>, fields: &mut impl Fields) {
    match reply {
        Reply::Connected {
            session,
            renew_in,
            ping_interval,
            subscriptions,
            commands_by,
            ..
        } => fields.message(("connect", 5), |fields| {
            fields.id(("client", 1), *session);
            fields.text(("version", 2), VERSION);
            put_expiry(*renew_in, (3, 4), fields);
            let subscriptions = subscriptions.iter();
            fields.entries(
                ("subs", 6),
                subscriptions.map(|(channel, subscribed)| (channel.as_str().into(), subscribed)),
                put_subscribed,
            );
            fields.number(("ping", 7), *ping_interval);
            fields.flag(("pong", 8), true);
            if let Some(CommandsBy { key, node }) = commands_by {
                fields.text(("session", 9), key);
                fields.text(("node", 10), &node.to_string());
            }
        }),
        Reply::Subscribed(subscribed) => fields.message(("subscribe", 6), |fields| {
            put_subscribed(fields, subscribed);
        }),
        Reply::Unsubscribed => fields.message(("unsubscribe", 7), |_| {}),
        Reply::Published { .. } => fields.message(("publish", 8), |_| {}),
        Reply::Presence { sessions, .. } => fields.message(("presence", 9), |fields| {
            fields.with_zeros(|fields| {
                fields.entries(
                    ("presence", 1),
                    sessions
                        .iter()
                        .map(|present| (present.session.to_string().into(), present)),
                    put_present,
                );
            });
        }),
        Reply::PresenceCount { sessions, users } => {
            fields.message(("presence_stats", 10), |fields| {
                fields.with_zeros(|fields| {
                    fields.number(("num_clients", 1), *sessions);
                    fields.number(("num_users", 2), *users);
                });
            });
        }
        Reply::History {
            position,
            publications,
            ..
        } => fields.message(("history", 11), |fields| {
            fields.with_zeros(|fields| {
                fields.messages(
                    ("publications", 1),
                    publications.iter(),
                    |fields, publication| {
                        fields.publication(&Published::new(publication, DataForm::Plain));
                    },
                );
                fields.text(("epoch", 2), position.epoch.as_str());
                fields.number(("offset", 3), position.offset);
            });
        }),
        Reply::Pong => fields.message(("ping", 12), |_| {}),
        Reply::Refreshed { renew_in, .. } => fields.message(("refresh", 14), |fields| {
            put_expiry(*renew_in, (3, 4), fields);
        }),
        Reply::SubscriptionRefreshed { renew_in } => {
            fields.message(("sub_refresh", 15), |fields| {
                put_expiry(*renew_in, (1, 2), fields);
            });
        }
        // `reply` writes these replies as errors.
        Reply::AuthFailed { .. }
        | Reply::NotOpened { .. }
        | Reply::Unrecoverable
        | Reply::SubscriptionExpired
        | Reply::Error { .. } => {}
    }
}

/// Writes the time after which to renew a token. Clients that receive `expires` need `ttl` too.
fn put_expiry(renew_in: Option<u64>, tags: (u32, u32), fields: &mut impl Fields) {
    if let Some(renew_in) = renew_in {
        fields.flag(("expires", tags.0), true);
        fields.number(("ttl", tags.1), renew_in.clamp(1, u32::MAX.into()));
    }
}

fn put_subscribed<F: Fields>(fields: &mut F, subscribed: &Subscribed<'_>) {
    put_expiry(subscribed.renew_in, (1, 2), fields);
    // A client needs a position only if the client can recover from it.
    let position = subscribed.position.filter(|_| subscribed.is_recoverable);
    let is_recoverable = position.is_some();
    fields.flag(("recoverable", 3), is_recoverable);
    if let Some(position) = position {
        fields.text(("epoch", 6), position.epoch.as_str());
    }
    let recovered = subscribed.recovered == Some(true);
    if recovered {
        let publications = subscribed.publications;
        let patches = match subscribed.is_delta {
            true => differences::<F>(publications),
            false => Vec::new(),
        };
        fields.messages(
            ("publications", 7),
            publications.iter().enumerate(),
            |fields, (at, publication)| {
                let form = match patches.get(at) {
                    None => DataForm::Plain,
                    Some(None) => DataForm::Whole,
                    Some(Some(patch)) => DataForm::Difference(patch),
                };
                fields.publication(&Published::new(publication, form));
            },
        );
    }
    fields.flag(("recovered", 8), recovered);
    // A client that recovers starts from its own position, and advances with each recovered
    // publication.
    let told = match subscribed.since {
        Some(since) if recovered => Some(since),
        _ => position,
    };
    fields.number(("offset", 9), told.map_or(0, |position| position.offset));
    fields.flag(("positioned", 10), is_recoverable);
    if let Some(data) = subscribed.data {
        fields.payload(("data", 11), data);
    }
    fields.flag(("was_recovering", 12), subscribed.since.is_some());
    fields.flag(("delta", 13), subscribed.is_delta);
}

/// The difference of each publication to the previous one; `None` for a publication that is written
/// whole.
fn differences<F: Fields>(publications: &[curfew_model::Publication]) -> Vec<Option<Vec<u8>>> {
    let pairs = publications.windows(2);
    let later = pairs.map(|pair| fossil::difference(&pair[0].data, &pair[1].data, F::IS_TEXT));
    let first = publications.first().map(|_| None);
    first.into_iter().chain(later).collect()
}

/// Writes a session as other clients see it.
fn put_present(fields: &mut impl Fields, present: &Present) {
    fields.with_zeros(|fields| fields.text(("user", 1), &present.user));
    fields.id(("client", 2), present.session);
    if let Some(info) = &present.info {
        fields.payload(("conn_info", 3), info.as_bytes());
    }
    if let Some(info) = &present.channel_info {
        fields.payload(("chan_info", 4), info.as_bytes());
    }
}

/// Writes a push. Returns false if the protocol has no message for `push`.
pub(crate) fn push(root: impl Root, transport: Over, push: &Push<'_>) -> bool {
    match push {
        Push::Message {
            channel,
            data,
            sender,
            position,
            form,
            ..
        } => {
            let publication = Published {
                data,
                form: *form,
                sender: *sender,
                position: *position,
            };
            root.push(channel.as_str(), &publication);
        }
        Push::Gap { channel, .. } => put_unsubscribed(root, channel, codes::INSUFFICIENT_STATE),
        Push::Unsubscribed { channel, reason } => {
            put_unsubscribed(root, channel, codes::unsubscribe(*reason));
        }
        Push::Presence {
            channel,
            change,
            present,
        } => {
            let field = match change {
                PresenceChange::Join => ("join", 5),
                PresenceChange::Leave => ("leave", 6),
            };
            put_push(root, Some(channel), |fields| {
                fields.message(field, |fields| {
                    fields.message(("info", 1), |fields| put_present(fields, present));
                });
            });
        }
        Push::Closing { disconnect, .. } if transport == Over::Http => {
            let (code, reason) = codes::close(disconnect);
            put_push(root, None, |fields| {
                fields.message(("disconnect", 11), |fields| {
                    fields.number(("code", 1), code.into());
                    fields.text(("reason", 2), reason);
                });
            });
        }
        // The close frame states the reason.
        Push::Closing { .. } => return false,
        // Clients renew their tokens by their own timers.
        Push::Expiring { .. } => return false,
    }
    true
}

fn put_unsubscribed(root: impl Root, channel: &Channel, (code, reason): (u32, &str)) {
    put_push(root, Some(channel), |fields| {
        fields.message(("unsubscribe", 7), |fields| {
            fields.number(("code", 2), code.into());
            fields.text(("reason", 3), reason);
        });
    });
}

fn put_push<R: Root>(root: R, channel: Option<&Channel>, write: impl FnOnce(&mut R::Fields<'_>)) {
    root.write(|fields| {
        fields.message(("push", 4), |fields| {
            fields.text(("channel", 2), channel.map_or("", Channel::as_str));
            write(fields);
        });
    });
}
