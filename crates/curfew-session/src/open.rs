//! The opening of a session, from an upgraded connection and its token.

use std::any::Any;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::mem::take;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use curfew_auth::{SessionKey, VerifyError};
use curfew_backend::BackendError;
use curfew_hub::{Ending, Lanes, Wire, WireId};
use curfew_model::{
    AuthFailure, Channel, CommandId, CommandsBy, Disconnect, Present, Push, Reply, SessionId,
    Subscribed, TokenBucket, TraceContext, TraceId,
};
use curfew_node::{AdmitError, Attachment, SessionIdentity};
use curfew_ws::{Decoder, DirectWriter, Transport, Upgraded};
use tokio::time::Instant;
use tracing::debug;
use tracing::field::{DisplayValue, display};

use crate::Context;
use crate::commands::subscribe_token::Grant;
use crate::credentials::Credentials;
use crate::pipeline::Pipeline;
use crate::rate::CommandRate;
use crate::timers::Deadlines;
use crate::write::Output;

/// The message for an anonymous session over `limits.anonymous_per_address`.
const ANONYMOUS_LIMIT: &str =
    "the client's address has as many sessions without a token as are allowed";

/// Range of the delay, in milliseconds, that a client over the session limit is advised to wait. An
/// earlier attempt would fail again, because the user's other sessions have just been probed.
const LIMIT_RETRY_MS: std::ops::RangeInclusive<u64> = 2000..=5000;

/// The refusal of a session, with the reason that the client receives.
#[derive(Debug)]
pub struct Refusal {
    /// The fault of the token, which the client receives in `auth_failed` before the disconnect;
    /// `None` if the token is not at fault.
    pub failure: Option<(AuthFailure, Cow<'static, str>)>,
    /// The disconnect that closes the connection.
    pub ending: Ending,
    /// The refused session, for the log; `None` unless a limit of sessions is the reason.
    pub whose: Option<Box<SessionIdentity>>,
}

impl Refusal {
    /// The refusal of a token because of `failure`.
    pub fn token(failure: AuthFailure, message: impl Into<Cow<'static, str>>) -> Self {
        let disconnect = match failure {
            AuthFailure::Revoked => Disconnect::REVOKED,
            AuthFailure::ReauthRequired => Disconnect::REAUTH_REQUIRED,
            _ => Disconnect::AUTH_FAILED,
        };
        Self {
            failure: Some((failure, message.into())),
            ..Self::from(Ending::new(disconnect))
        }
    }

    /// The name of the reason in the protocol.
    pub fn reason(&self) -> &'static str {
        match &self.failure {
            Some((failure, _)) => failure.as_str(),
            None => self.ending.disconnect.reason,
        }
    }

    fn revoked(ending: Ending) -> Self {
        let (failure, message) = revoked(ending.disconnect);
        Self {
            ending,
            ..Self::token(failure, message)
        }
    }
}

/// The fault and the message for a token that a revocation covers. The revocation ends sessions
/// with `disconnect`.
pub fn revoked(disconnect: Disconnect) -> (AuthFailure, &'static str) {
    if disconnect == Disconnect::REAUTH_REQUIRED {
        (AuthFailure::ReauthRequired, disconnect.message)
    } else {
        (AuthFailure::Revoked, "access with this token was revoked")
    }
}

impl From<VerifyError> for Refusal {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Refused(error) => Self::token(error.failure(), error.message().to_owned()),
            VerifyError::Unknown(why) => {
                let mut ending = Ending::new(Disconnect::UNAVAILABLE);
                let after = why.retry_after().filter(|after| !after.is_zero());
                ending.retry_after_ms = after.map(|after| after.as_millis() as u64 + 1);
                ending.into()
            }
        }
    }
}

impl From<AdmitError> for Refusal {
    fn from(error: AdmitError) -> Self {
        let disconnect = match error {
            AdmitError::Revoked(disconnect) => return Self::revoked(Ending::new(disconnect)),
            AdmitError::Ended(ending) if ending.is_revocation() => return Self::revoked(ending),
            AdmitError::Ended(ending) => return ending.into(),
            AdmitError::SessionLimit { whose, .. } => {
                let disconnect = match whose.principal.is_anonymous() {
                    true => Disconnect::SESSION_LIMIT.because(ANONYMOUS_LIMIT),
                    false => Disconnect::SESSION_LIMIT,
                };
                let mut ending = Ending::new(disconnect);
                ending.retry_after_ms = Some(fastrand::u64(LIMIT_RETRY_MS));
                return Self {
                    whose: Some(whose),
                    ..ending.into()
                };
            }
            AdmitError::Draining => Disconnect::DRAINING,
            AdmitError::Backend(BackendError::Unavailable(_) | BackendError::UnknownOutcome(_)) => {
                Disconnect::UNAVAILABLE
            }
            AdmitError::Backend(BackendError::Unusable(_)) => Disconnect::INTERNAL,
        };
        Ending::new(disconnect).into()
    }
}

impl From<Ending> for Refusal {
    fn from(ending: Ending) -> Self {
        Self {
            failure: None,
            ending,
            whose: None,
        }
    }
}

/// The state of an upgraded connection's authentication.
#[derive(Debug)]
pub enum Opening {
    /// The token was verified and the session admitted.
    Admitted(Attachment),
    /// The first message is to authenticate the connection.
    Awaiting(Credentials),
    /// The token was refused. The client is notified on the connection.
    Refused(Refusal),
}

/// Permits that the connection holds, released on drop.
pub struct Guards {
    /// Held during the whole connection.
    pub connection: Box<dyn Any + Send>,
    /// Held until the connection has authenticated.
    pub unauthenticated: Option<Box<dyn Any + Send>>,
}

impl fmt::Debug for Guards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guards")
    }
}

/// An upgraded connection, before and after authentication. Its task owns it: see
/// [`run`](crate::run).
#[derive(Debug)]
pub struct Session {
    pub(crate) transport: Transport,
    pub(crate) decoder: Decoder,
    /// True if the decoder holds received frames that were not acted on.
    pub(crate) saved: bool,
    /// Number of bytes read in this poll of the task.
    pub(crate) read_in_turn: usize,
    /// Result of the last attempt to write.
    pub(crate) output: Output,
    pub(crate) state: SessionState,
}

/// The state of a session except its socket.
pub(crate) struct SessionState {
    pub(crate) context: Arc<Context>,
    pub(crate) wire: WireId,
    pub(crate) live: Option<Live>,
    pub(crate) refusal: Option<Box<Refusal>>,
    /// The credentials of the upgrade request, until the first message uses them. That message may
    /// add a token.
    pub(crate) credentials: Option<Box<Credentials>>,
    /// The ending of a connection whose client was told why no session opens. The server applies
    /// the ending if the client has not closed the connection by `deadlines.auth_by`.
    pub(crate) leaving: Option<Box<Ending>>,
    /// Number of `subscribe` commands that the client may still send without being counted against
    /// its rate.
    pub(crate) batch_left: usize,
    /// The refused session, for the log line of the close.
    pub(crate) refused: Option<Box<SessionIdentity>>,
    /// The handle by which other tasks write to the socket; passed to the outbox when the session
    /// opens.
    pub(crate) direct_writer: Option<DirectWriter>,
    /// Frames for the socket before the session opens and after it has left the hub.
    pub(crate) lanes: Lanes,
    /// The commands in flight.
    pub(crate) pipeline: Pipeline,
    /// Number of publications until the next timed publication.
    pub(crate) untimed: u8,
    pub(crate) deadlines: Deadlines,
    pub(crate) opened_at: Instant,
    /// The upgrade's span if it was recorded; later spans link to it.
    pub(crate) trace: Option<Box<TraceContext>>,
    /// True once a span with the reason why the connection opened no session was begun, even if a
    /// limit kept the span from being recorded.
    pub(crate) auth_traced: bool,
    pub(crate) bad_frames: u32,
    /// `Some` only while `limits.messages_per_second` is set.
    pub(crate) rate: Option<Box<CommandRate>>,
    pub(crate) control: TokenBucket,
    pub(crate) guards: Guards,
    /// The client's address, if known.
    pub(crate) address: Option<IpAddr>,
    /// The key that the client receives as the session opens, if the client sends each command in a
    /// separate request.
    pub(crate) key: Option<Box<SessionKey>>,
}

/// State of an open session.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) attachment: Arc<Attachment>,
    /// A tree, because an empty tree is smaller than an empty hash map.
    pub(crate) subscriptions: BTreeMap<Channel, Subscription>,
    /// The user's name, shared by the session's publications; made for the first publication.
    pub(crate) from: Option<Arc<str>>,
    /// The session as other clients see it, shared by its publications. It is made for the first
    /// publication that shows it, and made again after a refresh.
    pub(crate) sender: Option<Arc<Present>>,
}

impl Live {
    pub(crate) fn new(attachment: Arc<Attachment>) -> Self {
        Self {
            attachment,
            subscriptions: BTreeMap::new(),
            from: None,
            sender: None,
        }
    }
}

/// A subscription of the session.
#[derive(Debug, Default)]
pub(crate) struct Subscription {
    /// The policy's cached decision on whether the client may publish; `None` before the first
    /// publication, and again after a refresh or a change of the policy.
    pub(crate) publish: Option<bool>,
    /// True if the server subscribed the session as it opened.
    pub(crate) by_server: bool,
    /// Information about the subscription in the session's presence entry and in its publications,
    /// as JSON.
    pub(crate) channel_info: Option<Arc<str>>,
    /// The subscription's own token; `None` if the subscription depends on the session's token
    /// alone.
    pub(crate) grant: Option<Box<Grant>>,
}

impl Drop for Live {
    fn drop(&mut self) {
        let node = self.attachment.node();
        for channel in self.subscriptions.keys() {
            node.unsubscribe(channel, self.attachment.member());
        }
    }
}

impl Session {
    /// Makes the session of an upgraded connection.
    pub fn new(
        context: Arc<Context>,
        upgraded: Upgraded,
        wire: WireId,
        opening: Opening,
        guards: Guards,
    ) -> Self {
        let now = Instant::now();
        let settings = context.settings.load();
        let mut decoder = Decoder::new();
        decoder.preload(&upgraded.early);
        let control = TokenBucket::full(settings.limits.control_frames(), now.into_std());
        let auth_timeout = settings.auth_timeout;
        drop(settings);
        let (transport, direct_writer) = upgraded.transport.share();
        let mut session = Self {
            transport,
            decoder,
            saved: !upgraded.early.is_empty(),
            read_in_turn: 0,
            output: Output::default(),
            state: SessionState {
                context,
                wire,
                live: None,
                refusal: None,
                credentials: None,
                leaving: None,
                batch_left: 0,
                refused: None,
                direct_writer,
                lanes: Lanes::answering(upgraded.answer),
                pipeline: Pipeline::default(),
                untimed: 0,
                deadlines: Deadlines::default(),
                opened_at: now,
                trace: None,
                auth_traced: false,
                bad_frames: 0,
                rate: None,
                control,
                guards,
                address: None,
                key: None,
            },
        };
        match opening {
            Opening::Admitted(attachment) => {
                let live = Live::new(Arc::new(attachment));
                session.state.open(live, None, &[]);
            }
            Opening::Awaiting(credentials) => {
                session.state.credentials = Some(Box::new(credentials));
                session.state.deadlines.auth_by = now.checked_add(auth_timeout);
            }
            Opening::Refused(refusal) => {
                // The upgrade's own span has recorded the reason.
                session.state.auth_traced = true;
                session.state.refusal = Some(Box::new(refusal));
            }
        }
        session
    }

    /// Sets the client's address, as seen by the socket or as reported by a trusted proxy.
    pub fn set_address(&mut self, address: IpAddr) {
        self.state.address = Some(address);
    }

    /// Sets the key of a session whose client sends each command in a separate request. The client
    /// receives the key as the session opens.
    pub fn set_key(&mut self, key: SessionKey) {
        self.state.key = Some(Box::new(key));
    }

    /// Sets the trace context of the upgrade's span; `None` if the span is not recorded.
    pub fn set_trace(&mut self, trace: Option<Box<TraceContext>>) {
        self.state.trace = trace;
    }
}

impl SessionState {
    /// Opens the session. From then on, frames are delivered. `id` is the id of the command that
    /// carried the token, if a command did. `subscriptions` are the subscriptions that the server
    /// has made.
    pub(crate) fn open(
        &mut self,
        live: Live,
        id: Option<&CommandId>,
        subscriptions: &[(Channel, Subscribed<'_>)],
    ) {
        let attachment = &live.attachment;
        let principal = attachment.member().principal();
        let session = attachment.member().session();
        // The session counts as authenticated from here on.
        self.guards.unauthenticated = None;
        self.deadlines.auth_by = None;
        if let Some(direct_writer) = self.direct_writer.take() {
            attachment.member().outbox().attach(direct_writer);
        }
        if !attachment.open(take(&mut self.lanes)) {
            // The session ended after its admission. The next write finds the reason in the outbox.
            debug!(%session, "session ended before it opened");
        }
        let member = Arc::clone(attachment.member());
        self.live = Some(live);
        let settings = self.context.settings.load();
        let ping_interval = settings.session.ping_interval;
        let rules = self.wire().rules();
        if rules.batches {
            self.batch_left = settings.limits.subscriptions;
        }
        drop(settings);
        self.schedule_ping();
        let key = self.key.take().map(|key| key.expose());
        let connected = Reply::Connected {
            session,
            user: principal.user(),
            expires_at: principal.expires_at(),
            renew_in: self.context.renew_in(&principal),
            ping_interval: ping_interval.as_secs(),
            subscriptions,
            commands_by: key.as_deref().map(|key| CommandsBy {
                key,
                node: self.context.node.id(),
            }),
        };
        if let Some(frame) = self.wire().reply(id, &connected) {
            // Publications of the server's subscriptions may already be queued, and the reply must
            // precede them.
            match subscriptions.is_empty() {
                true => self.send(frame),
                false => {
                    let recovered = subscriptions.iter();
                    let recovered = recovered.filter(|(_, told)| !told.publications.is_empty());
                    let of = recovered.map(|(channel, _)| channel.clone()).collect();
                    member.send_first(self.context.node.hub(), frame, of);
                }
            }
        }
        self.schedule_expiry(&principal);
        let address = self.address.map(tracing::field::display);
        debug!(%session, protocol = self.wire().name(), address, "session opened");
    }

    /// The trace of the current operation or, failing that, of the upgrade; `None` if neither is
    /// recorded.
    pub(crate) fn trace_id(&self) -> Option<TraceId> {
        let current = self.context.metrics().tracer().current();
        current.or_else(|| self.trace.as_deref().map(TraceContext::trace))
    }

    /// The session's id for a log line; `None` before it opens.
    pub(crate) fn session_id(&self) -> Option<DisplayValue<SessionId>> {
        let live = self.live.as_ref()?;
        Some(display(live.attachment.member().session()))
    }

    /// The encoder for this client's protocol and framing.
    pub(crate) fn wire(&self) -> &Wire {
        self.context.node.hub().wires().get(self.wire)
    }

    /// Queues a push for this session; does nothing unless the session is open.
    pub(crate) fn push(&mut self, push: &Push<'_>) {
        if let Some(frame) = self.wire().push(push) {
            self.send(frame);
        }
    }

    /// Queues a frame that is sent only while the session has access; does nothing unless the
    /// session is open.
    pub(crate) fn send(&mut self, frame: Bytes) {
        let Some(live) = &self.live else { return };
        let member = live.attachment.member();
        self.context.node.hub().send(member, frame);
    }

    /// Queues a frame without channel data, which is sent even if the session loses access. While
    /// the node holds its lease, the frame does not overtake other frames.
    pub(crate) fn send_notice(&mut self, frame: Bytes) {
        match &self.live {
            Some(live) if self.holds_lease() => {
                let member = live.attachment.member();
                self.context.node.hub().send_notice(member, frame);
            }
            _ => self.notify(frame),
        }
    }

    /// Queues a frame without channel data ahead of waiting frames. The frame is sent even if the
    /// session loses access.
    pub(crate) fn notify(&mut self, frame: Bytes) {
        match &self.live {
            Some(live) => live.attachment.member().outbox().push_notice(frame),
            None => self.lanes.push_notice(frame),
        }
    }

    /// Returns true while the node holds its delivery lease. Without the lease, the node neither
    /// acts on commands nor delivers messages.
    pub(crate) fn holds_lease(&self) -> bool {
        self.context.node.hub().lease().is_held()
    }
}

impl fmt::Debug for SessionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionState")
            .field("live", &self.live)
            .finish_non_exhaustive()
    }
}
