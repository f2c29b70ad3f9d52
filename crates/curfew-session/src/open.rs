//! How a session comes to be: from an upgraded connection and what is known of its token.

use std::any::Any;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::mem::take;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use curfew_auth::VerifyError;
use curfew_backend::BackendError;
use curfew_hub::{Ending, Lanes, Wire, WireId};
use curfew_model::{
    AuthFailure, Channel, CommandId, Disconnect, Push, Reply, SessionId, TokenBucket, TraceContext,
    TraceId,
};
use curfew_node::{AdmitError, Attachment, SessionIdentity};
use curfew_ws::{Decoder, DirectWriter, Transport, Upgraded};
use tokio::time::Instant;
use tracing::debug;
use tracing::field::{DisplayValue, display};

use crate::Context;
use crate::pipeline::Pipeline;
use crate::rate::CommandRate;
use crate::timers::Deadlines;
use crate::write::Output;

/// Time that a client over the limit of sessions is asked to wait, in milliseconds: the others were
/// asked for a sign of life just now.
const LIMIT_RETRY_MS: std::ops::RangeInclusive<u64> = 2000..=5000;

/// Why a token opens no session, in the form a client is told.
#[derive(Debug)]
pub struct Refusal {
    /// Set when the token is at fault; then the client is told `auth_failed` first.
    pub failure: Option<(AuthFailure, Cow<'static, str>)>,
    /// How the connection is closed.
    pub ending: Ending,
    /// The session that is refused, where the log may tell it.
    pub whose: Option<Box<SessionIdentity>>,
}

impl Refusal {
    /// The token is at fault.
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

    /// Why, in the contract's word for it.
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

/// The refusal of a token that a revocation covers, which ends its sessions by `disconnect`.
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
                let mut ending = Ending::new(Disconnect::SESSION_LIMIT);
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

/// What is known of a connection's token when its upgrade is done.
#[derive(Debug)]
pub enum Opening {
    /// It was verified and the session admitted.
    Admitted(Attachment),
    /// None came with the request: the first message must bring it.
    Awaiting,
    /// It was refused, and the client is to be told so on the connection.
    Refused(Refusal),
}

/// Counted places the connection holds, given back when dropped.
pub struct Guards {
    /// Held while the connection lives.
    pub connection: Box<dyn Any + Send>,
    /// Held until it has authenticated.
    pub unauthenticated: Option<Box<dyn Any + Send>>,
}

impl fmt::Debug for Guards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guards")
    }
}

/// An upgraded connection, before and after it has authenticated. Its task owns it: see
/// [`run`](crate::run).
#[derive(Debug)]
pub struct Session {
    pub(crate) transport: Transport,
    pub(crate) decoder: Decoder,
    /// Whether the decoder holds frames that were received but not acted on.
    pub(crate) saved: bool,
    /// Bytes read in this poll of the task.
    pub(crate) read_in_turn: usize,
    /// What the last poll came to when it wrote.
    pub(crate) output: Output,
    pub(crate) state: SessionState,
}

/// All of a session but its socket.
pub(crate) struct SessionState {
    pub(crate) context: Arc<Context>,
    pub(crate) wire: WireId,
    pub(crate) live: Option<Live>,
    pub(crate) refusal: Option<Box<Refusal>>,
    /// The session that was refused, once the client has been told.
    pub(crate) refused: Option<Box<SessionIdentity>>,
    /// For flushers, once the session is open.
    pub(crate) direct_writer: Option<DirectWriter>,
    /// What waits for the socket before the session is open, and after it has left the hub.
    pub(crate) lanes: Lanes,
    /// The commands that wait for the backend.
    pub(crate) pipeline: Pipeline,
    /// Publications up to the next that is timed.
    pub(crate) untimed: u8,
    pub(crate) deadlines: Deadlines,
    pub(crate) opened_at: Instant,
    /// The upgrade's span, where that was recorded: later ones link to it.
    pub(crate) trace: Option<Box<TraceContext>>,
    /// The reason why the connection opens no session is recorded, unless that was over the budget.
    pub(crate) auth_traced: bool,
    pub(crate) bad_frames: u32,
    /// Only while `limits.messages_per_second` is set.
    pub(crate) rate: Option<Box<CommandRate>>,
    pub(crate) control: TokenBucket,
    pub(crate) guards: Guards,
    /// The address of the client, as far as it is known.
    pub(crate) address: Option<IpAddr>,
}

/// What a session has once it is open.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) attachment: Arc<Attachment>,
    /// A tree, since an empty one takes no more than a pointer.
    pub(crate) subscriptions: BTreeMap<Channel, Permissions>,
    /// The user, shared by the session's publications; made at the first.
    pub(crate) from: Option<Arc<str>>,
}

/// What the policy said about a subscribed channel. Forgotten at a refresh and at a policy change.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Permissions {
    /// Whether the session may publish there; asked at the first publish.
    pub(crate) publish: Option<bool>,
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
    /// A session on an upgraded connection, whose request it answers.
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
            },
        };
        match opening {
            Opening::Admitted(attachment) => session.state.open(attachment, None),
            Opening::Awaiting => session.state.deadlines.auth_by = now.checked_add(auth_timeout),
            Opening::Refused(refusal) => {
                // By the span of the upgrade.
                session.state.auth_traced = true;
                session.state.refusal = Some(Box::new(refusal));
            }
        }
        session
    }

    /// Notes the address of its client: by its socket, or as a trusted proxy says.
    pub fn set_address(&mut self, address: IpAddr) {
        self.state.address = Some(address);
    }

    /// It was opened within a span that is recorded.
    pub fn set_trace(&mut self, trace: Option<Box<TraceContext>>) {
        self.state.trace = trace;
    }
}

impl SessionState {
    /// The last step of opening: from here frames are delivered. `id` is that of the command that
    /// brought the token, if one did.
    pub(crate) fn open(&mut self, attachment: Attachment, id: Option<&CommandId>) {
        let principal = attachment.member().principal();
        let session = attachment.member().session();
        self.guards.unauthenticated = None;
        self.deadlines.auth_by = None;
        if let Some(direct_writer) = self.direct_writer.take() {
            attachment.member().outbox().attach(direct_writer);
        }
        if !attachment.open(take(&mut self.lanes)) {
            // Ended between admission and here; the writer finds out why.
            debug!(%session, "session ended before it opened");
        }
        self.live = Some(Live {
            attachment: Arc::new(attachment),
            subscriptions: BTreeMap::new(),
            from: None,
        });
        let ping_interval = self.context.settings.load().session.ping_interval;
        self.schedule_ping();
        let connected = Reply::Connected {
            session,
            user: principal.user(),
            expires_at: principal.expires_at(),
            ping_interval: ping_interval.as_secs(),
        };
        if let Some(frame) = self.wire().reply(id, &connected) {
            self.send(frame);
        }
        self.schedule_expiry(&principal);
        let address = self.address.map(tracing::field::display);
        debug!(%session, protocol = self.wire().name(), address, "session opened");
    }

    /// Names the trace that tells of what happens now, else that of the upgrade, where it is recorded.
    pub(crate) fn trace_id(&self) -> Option<TraceId> {
        let current = self.context.metrics().tracer().current();
        current.or_else(|| self.trace.as_deref().map(TraceContext::trace))
    }

    /// Names the session in a log line.
    pub(crate) fn session_id(&self) -> Option<DisplayValue<SessionId>> {
        let live = self.live.as_ref()?;
        Some(display(live.attachment.member().session()))
    }

    /// The wire that the client is spoken to by.
    pub(crate) fn wire(&self) -> &Wire {
        self.context.node.hub().wires().get(self.wire)
    }

    /// Queues a push for this session; nothing when it is not open.
    pub(crate) fn push(&mut self, push: &Push<'_>) {
        if let Some(frame) = self.wire().push(push) {
            self.send(frame);
        }
    }

    /// Queues a frame for this session, which leaves while it has access; nothing when it is not open.
    pub(crate) fn send(&mut self, frame: Bytes) {
        let Some(live) = &self.live else { return };
        let member = live.attachment.member();
        self.context.node.hub().send(member, frame);
    }

    /// Queues a frame that tells nothing that access protects, in its turn. While the node holds no
    /// lease it goes past what waits.
    pub(crate) fn send_notice(&mut self, frame: Bytes) {
        match &self.live {
            Some(live) if self.holds_lease() => {
                let member = live.attachment.member();
                self.context.node.hub().send_notice(member, frame);
            }
            _ => self.notify(frame),
        }
    }

    /// Queues a frame that tells nothing that access protects, past what waits.
    pub(crate) fn notify(&mut self, frame: Bytes) {
        match &self.live {
            Some(live) => live.attachment.member().outbox().push_notice(frame),
            None => self.lanes.push_notice(frame),
        }
    }

    /// True while the node holds its delivery lease: only then commands are acted on and messages
    /// delivered.
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
