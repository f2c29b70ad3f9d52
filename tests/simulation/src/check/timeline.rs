//! The bytes of one connection as frames, and the tokens in force at each frame.

use std::time::Duration;

use curfew_model::SessionId;
use serde_json::Value;

use crate::client::MESSAGE;
use crate::frame::{self, Frame, TEXT};
use crate::record::{Token, Wire};

/// The kinds of frames that the checks treat differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `connected`.
    Connected,
    /// `message`.
    Message,
    /// `ok`, `refreshed`, `pong`, `gap`, `presence`, `join`, `leave`.
    Answer,
    /// `auth_failed`.
    Refused,
    /// A notice, which needs no access.
    Notice,
}

impl Kind {
    /// True for frames that only a session with access may get.
    pub(super) fn is_access(self) -> bool {
        !matches!(self, Self::Refused | Self::Notice)
    }
}

/// A frame, or the first part of a frame.
#[derive(Debug)]
pub(super) struct Line<'a> {
    /// Start of the call that wrote the frame's last byte.
    pub(super) at: Duration,
    pub(super) kind: Kind,
    /// True if the whole frame was written.
    pub(super) whole: bool,
    pub(super) payload: &'a [u8],
}

impl Line<'_> {
    /// True if the frame refuses a revoked token.
    pub(super) fn is_revoked(&self) -> bool {
        // Nodes give the second reason for a token that was issued in the same second as a cutoff.
        let reasons = ["\"revoked\"", "\"reauth_required\""];
        let shown = self.shown();
        self.kind == Kind::Refused && reasons.iter().any(|reason| shown.contains(reason))
    }

    /// The start of the frame in readable form.
    pub(super) fn shown(&self) -> String {
        let length = self.payload.len().min(160);
        String::from_utf8_lossy(&self.payload[..length]).into_owned()
    }
}

/// The frames of a connection, with the tokens that the node has confirmed.
#[derive(Debug)]
pub(super) struct Timeline<'a> {
    pub(super) wire: &'a Wire,
    pub(super) session: Option<SessionId>,
    pub(super) lines: Vec<Line<'a>>,
    /// The numbers of the tokens that a node has confirmed to the client, with the times.
    /// `connected` confirms the first token, `refreshed` each later one.
    told: Vec<(usize, Duration)>,
}

impl<'a> Timeline<'a> {
    pub(super) fn of(wire: &'a Wire) -> Self {
        let mut timeline = Self {
            wire,
            session: None,
            lines: Vec::new(),
            told: Vec::new(),
        };
        let (mut at, mut write) = (0, 0);
        while let Some(frame) = frame::first(&wire.bytes[at..]) {
            at = (at + frame.size).min(wire.bytes.len());
            while wire.writes[write].0 < at {
                write += 1;
            }
            if frame.opcode == TEXT && !frame.payload.is_empty() {
                timeline.take(wire.writes[write].1, frame);
            }
            if !frame.whole {
                break;
            }
        }
        timeline
    }

    fn take(&mut self, at: Duration, frame: Frame<'a>) {
        let payload = frame.payload;
        let kind = match payload {
            _ if payload.starts_with(MESSAGE) => Kind::Message,
            _ if payload.starts_with(br#"{"type":"connected""#) => Kind::Connected,
            _ if payload.starts_with(br#"{"type":"ok""#) => Kind::Answer,
            _ if payload.starts_with(br#"{"type":"pong""#) => Kind::Answer,
            _ if payload.starts_with(br#"{"type":"refreshed""#) => Kind::Answer,
            // These frames report about a channel, so they need the same access as a message.
            _ if payload.starts_with(br#"{"type":"gap""#) => Kind::Answer,
            _ if payload.starts_with(br#"{"type":"presence""#) => Kind::Answer,
            _ if payload.starts_with(br#"{"type":"join""#) => Kind::Answer,
            _ if payload.starts_with(br#"{"type":"leave""#) => Kind::Answer,
            _ if payload.starts_with(br#"{"type":"auth_failed""#) => Kind::Refused,
            _ => Kind::Notice,
        };
        if kind == Kind::Connected {
            let message: Value = serde_json::from_slice(payload).unwrap_or_default();
            let session = message["session"].as_str();
            self.session = session.and_then(|session| session.parse().ok());
            self.told.push((0, at));
        }
        if payload.starts_with(br#"{"type":"refreshed""#) {
            let number = self.told.len();
            self.told.push((number, at));
        }
        self.lines.push(Line {
            at,
            kind,
            whole: frame.whole,
            payload,
        });
    }

    /// Time of `connected`.
    pub(super) fn opened(&self) -> Option<Duration> {
        self.told.first().map(|(_, at)| *at)
    }

    /// The tokens that may be in force at the time `at`: the token that was confirmed last, and the
    /// tokens that the client has sent since.
    pub(super) fn in_force(&self, at: Duration) -> &'a [Token] {
        let told = self.told.partition_point(|(_, told)| *told < at);
        let first = self.told[..told].last().map_or(0, |(number, _)| *number);
        self.shown_by(at).get(first..).unwrap_or_default()
    }

    fn shown_by(&self, at: Duration) -> &'a [Token] {
        let tokens = &self.wire.tokens;
        &tokens[..tokens.partition_point(|token| token.sent_at <= at)]
    }

    /// The last token that the client had sent by the time `at`.
    pub(super) fn shown(&self, at: Duration) -> Option<&'a Token> {
        self.shown_by(at).last()
    }

    /// The time at which a node confirmed the token to the client.
    pub(super) fn accepted(&self, token: &Token) -> Option<Duration> {
        let number = self
            .wire
            .tokens
            .iter()
            .position(|shown| shown.id == token.id)?;
        let told = self.told.iter().find(|(told, _)| *told == number);
        told.map(|(_, at)| *at)
    }
}
