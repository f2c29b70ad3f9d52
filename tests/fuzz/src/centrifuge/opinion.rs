//! The table of commands: the expected result for each command that serde_json or prost has parsed.

use curfew_model::{Command, Epoch, HistoryRange, MAX_OFFSET, SubscribeOptions};

/// The expected result for a command.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    Pong,
    /// The connection closes.
    Refused,
    /// The command is answered with the error that has this number.
    Form(u32),
    /// The command is accepted. The fields are the command's id, and its description by [`told`].
    Command(u32, String),
}

/// A request with the values that the client sent.
pub(super) enum Request {
    Connect {
        token: String,
        subs: Vec<(String, Subscribe)>,
    },
    Subscribe(Subscribe),
    Publish {
        channel: String,
        data: Vec<u8>,
        kind: i32,
    },
    /// `unsubscribe`, `presence` or `presence_stats`.
    OfChannel(&'static str, String),
    History {
        channel: String,
        limit: i32,
        since: Option<(u64, String)>,
        reverse: bool,
    },
    Refresh(String),
    SubRefresh {
        channel: String,
        token: String,
        kind: i32,
    },
    /// `rpc`, `send` or `ping`.
    Empty(&'static str),
}

#[derive(Default)]
pub(super) struct Subscribe {
    pub(super) channel: String,
    pub(super) token: String,
    pub(super) recover: bool,
    pub(super) epoch: String,
    pub(super) offset: u64,
    pub(super) join_leave: bool,
    pub(super) delta: String,
    pub(super) has_filter: bool,
    pub(super) flag: i64,
    pub(super) kind: i32,
}

impl Subscribe {
    fn told(&self) -> Option<String> {
        let is_good = ["", "fossil"].contains(&self.delta.as_str());
        let since = match self.recover {
            true => place(&self.epoch, self.offset),
            false => "-".to_owned(),
        };
        is_good.then(|| {
            format!(
                "{since} {} {} {} {:?}",
                self.join_leave,
                self.recover && self.flag & 2 == 2,
                self.delta == "fossil",
                self.token
            )
        })
    }
}

fn place(epoch: &str, offset: u64) -> String {
    let is_epoch = epoch.len() == 8 && epoch.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let epoch = match epoch {
        "" => "any",
        epoch if is_epoch => epoch,
        _ => "none",
    };
    format!("{epoch}:{}", offset.min(MAX_OFFSET))
}

/// The options in the form of [`Subscribe::told`].
fn options(options: &SubscribeOptions<'_>) -> String {
    let since = options
        .since
        .map(|since| position(since.epoch, since.offset));
    format!(
        "{} {} {} {} {:?}",
        since.unwrap_or_else(|| "-".to_owned()),
        options.join_leave,
        options.must_recover,
        options.delta,
        options.token.as_deref().unwrap_or_default()
    )
}

fn position(epoch: Epoch, offset: u64) -> String {
    let epoch = match epoch {
        Epoch::ANY => "any".to_owned(),
        Epoch::NONE => "none".to_owned(),
        epoch => epoch.to_string(),
    };
    format!("{epoch}:{offset}")
}

/// Describes a decoded command as text. Equal commands have the same text.
pub(super) fn told(command: &Command<'_>) -> String {
    let name = command.name();
    match command {
        Command::Auth {
            token,
            subscriptions,
        } => {
            let token = token.as_deref().unwrap_or_default();
            let subs = subscriptions.iter();
            let subs = subs.map(|(channel, wishes)| format!(" {channel:?} {}", options(wishes)));
            format!("{name} {token:?}{}", subs.collect::<String>())
        }
        Command::Subscribe {
            channel,
            options: wishes,
        } => format!("{name} {channel:?} {}", options(wishes)),
        Command::Unsubscribe { channel } => format!("{name} {channel:?}"),
        Command::Presence { channel, is_count } => format!("{name} {channel:?} {is_count}"),
        Command::Publish {
            channel,
            data,
            trace: None,
            key: None,
        } => format!("{name} {channel:?} {:?}", data.as_bytes()),
        Command::History {
            channel,
            limit,
            range,
            epoch,
        } => {
            let epoch = epoch.map(|epoch| position(epoch, 0));
            let range = match range {
                HistoryRange::Since(since) => {
                    format!("since {}", position(since.epoch, since.offset))
                }
                HistoryRange::Before(offset) => format!("before {offset}"),
            };
            let epoch = epoch.unwrap_or_else(|| "-".to_owned());
            format!("{name} {channel:?} {limit} {range} {epoch}")
        }
        Command::Refresh { token } => format!("{name} {token:?}"),
        Command::RefreshSubscription { channel, token } => {
            format!("{name} {channel:?} {token:?}")
        }
        Command::Call | Command::Send | Command::Ping => name.to_owned(),
        Command::Publish { .. } => {
            panic!("the Centrifuge protocol has neither traces nor idempotency keys: {command:?}")
        }
    }
}

/// The verdict on a command with this id and request. If a command has several requests, only the
/// first one counts.
pub(super) fn verdict(id: u32, has_send: bool, request: Option<Request>) -> Verdict {
    if id == 0 && !has_send {
        return Verdict::Pong;
    }
    let Some(request) = request else {
        return Verdict::Refused;
    };
    if id == 0 && !matches!(request, Request::Empty("send")) {
        return Verdict::Refused;
    }
    match request.judge() {
        Ok(told) => Verdict::Command(id, told),
        Err(0) => Verdict::Refused,
        Err(code) => Verdict::Form(code),
    }
}

impl Request {
    /// The description of the command by [`told`], or the number of its error. The number 0 means
    /// that the connection closes.
    fn judge(self) -> Result<String, u32> {
        let (needs_channel, channel) = match &self {
            Self::Subscribe(Subscribe { channel, .. })
            | Self::Publish { channel, .. }
            | Self::OfChannel(_, channel)
            | Self::History { channel, .. } => (true, channel.as_str()),
            _ => (false, ""),
        };
        if needs_channel && channel.is_empty() {
            return Err(0);
        }
        Ok(match self {
            Self::Connect { token, subs } => {
                let mut told = format!("auth {token:?}");
                for (channel, sub) in subs {
                    told += &format!(" {channel:?} {}", sub.told().ok_or(0_u32)?);
                }
                told
            }
            Self::Subscribe(sub) => {
                let told = sub.told().ok_or(0_u32)?;
                match (sub.has_filter, sub.kind) {
                    (true, _) => return Err(107),
                    (false, 0) => format!("subscribe {:?} {told}", sub.channel),
                    _ => return Err(108),
                }
            }
            Self::Publish { kind, .. } if kind != 0 => return Err(108),
            Self::Publish { data, .. } if data.is_empty() => return Err(107),
            Self::Publish { channel, data, .. } => format!("publish {channel:?} {data:?}"),
            Self::OfChannel("unsubscribe", channel) => format!("unsubscribe {channel:?}"),
            Self::OfChannel(name, channel) => {
                format!("presence {channel:?} {}", name == "presence_stats")
            }
            Self::History {
                channel,
                limit,
                since,
                reverse,
            } => {
                let limit = if (0..=300).contains(&limit) {
                    limit
                } else {
                    300
                };
                let epoch = match &since {
                    Some((_, epoch)) if !epoch.is_empty() => place(epoch, 0),
                    _ => "-".to_owned(),
                };
                let range = match (since, reverse) {
                    (None, false) => "since any:0".to_owned(),
                    (None, true) => format!("before {}", u64::MAX),
                    (Some((offset, epoch)), false) => format!("since {}", place(&epoch, offset)),
                    (Some((0, _)), true) => return Err(107),
                    (Some((offset, _)), true) => format!("before {}", offset.min(MAX_OFFSET)),
                };
                format!("history {channel:?} {limit} {range} {epoch}")
            }
            Self::Refresh(token) if token.is_empty() => return Err(0),
            Self::Refresh(token) => format!("refresh {token:?}"),
            Self::SubRefresh { kind, .. } if kind != 0 => return Err(108),
            Self::SubRefresh { token, .. } if token.is_empty() => return Err(107),
            Self::SubRefresh { channel, token, .. } => format!("sub_refresh {channel:?} {token:?}"),
            Self::Empty(name) => name.to_owned(),
        })
    }
}

/// The content of a request that carries commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Carried {
    pub(super) node: String,
    pub(super) session: String,
    pub(super) data: Vec<u8>,
}

impl Carried {
    /// Returns the content; `None` if its `data` is empty, because every request must carry a
    /// message in `data`.
    pub(super) fn checked(self) -> Option<Self> {
        (!self.data.is_empty()).then_some(self)
    }
}
