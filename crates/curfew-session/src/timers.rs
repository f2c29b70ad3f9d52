//! A session's deadlines, which share one timer.
//!
//! The timer is reset only for an earlier deadline. A deadline that moves to a later time lets the
//! timer fire once in vain, so that traffic costs no work on the timer.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use curfew_backend::PROBE_PATIENCE;
use curfew_model::{Disconnect, Principal, Push};
use tokio::time::{Instant, Sleep};
use tracing::debug;

use crate::Session;
use crate::open::SessionState;
use crate::run::{End, Step};

/// Longest setting of the timer. A deadline further away is checked again when the timer fires.
/// This is also the time within which an idle connection notices that the wall clock was set
/// forward.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Time after an answered probe in which no new probe is sent. The answers to probes count as
/// control frames, and a client that keeps reconnecting must not push the user's other sessions
/// over `limits.control_frames_per_second`.
const SIGN_LASTS: Duration = Duration::from_secs(1);

/// The session's deadlines; `None` means not set.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    /// The deadline for the client to authenticate or, after a refusal, to close the connection.
    pub(crate) auth_by: Option<Instant>,
    /// The time of the next ping.
    ping_at: Option<Instant>,
    /// The time of the last ping, until a pong arrives.
    pinged_at: Option<Instant>,
    /// Number of pings and probes that no pong has answered yet.
    unanswered: u32,
    /// The deadline for a sign of life after a ping.
    pong_by: Option<Instant>,
    /// The deadline for a sign of life after a probe.
    probe_by: Option<Instant>,
    /// The time of the last sign of life that answered a probe.
    probed_at: Option<Instant>,
    /// The time to send the notice `expiring`.
    expiring_at: Option<Instant>,
    /// The end of the subscription whose token ends first.
    pub(crate) subscription_at: Option<Instant>,
    /// The end of the session's token.
    ends_at: Option<Instant>,
    /// The deadline for the socket to accept a byte.
    pub(crate) write_by: Option<Instant>,
    /// The deadline for the rest of a message that has begun to arrive.
    pub(crate) message_by: Option<Instant>,
}

impl Deadlines {
    fn next(&self) -> Option<Instant> {
        [
            self.auth_by,
            self.ping_at,
            self.pong_by,
            self.probe_by,
            self.expiring_at,
            self.ends_at,
            self.subscription_at,
            self.write_by,
            self.message_by,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Clears the deadline for the answer to a ping.
    pub(crate) fn heard(&mut self) {
        self.pong_by = None;
    }

    /// Counts a ping or probe as unanswered, for a protocol that counts pongs.
    fn pinged(&mut self) {
        self.unanswered = self.unanswered.saturating_add(1);
    }

    /// Counts an answer to a ping. Returns false if no ping was unanswered.
    pub(crate) fn answered(&mut self) -> bool {
        let left = self.unanswered.checked_sub(1);
        self.unanswered = left.unwrap_or(0);
        left.is_some()
    }

    /// The time since the ping that a pong answers; `None` for an unsolicited pong.
    pub(crate) fn ponged(&mut self) -> Option<Duration> {
        Some(self.pinged_at.take()?.elapsed())
    }
}

fn is_due(deadline: &mut Option<Instant>, now: Instant) -> bool {
    deadline.take_if(|at| *at <= now).is_some()
}

impl Session {
    pub(crate) fn first_wait(&self) -> Duration {
        let next = self.state.deadlines.next();
        next.map_or(LONGEST_WAIT, |at| {
            at.saturating_duration_since(Instant::now())
                .min(LONGEST_WAIT)
        })
    }

    /// Sets the timer and acts on the deadlines that have passed.
    pub(crate) fn poll_timers(
        &mut self,
        cx: &mut Context<'_>,
        mut sleep: Pin<&mut Sleep>,
    ) -> Poll<Step> {
        if let Some(next) = self.state.deadlines.next()
            && next < sleep.deadline()
        {
            sleep.as_mut().reset(next);
        }
        ready!(sleep.as_mut().poll(cx));
        let now = Instant::now();
        if let Some(end) = self.state.act_on_time(now) {
            return Poll::Ready(Step::End(end));
        }
        let latest = now + LONGEST_WAIT;
        sleep.as_mut().reset(
            self.state
                .deadlines
                .next()
                .map_or(latest, |next| next.min(latest)),
        );
        Poll::Ready(Step::Again)
    }
}

impl SessionState {
    fn act_on_time(&mut self, now: Instant) -> Option<End> {
        if is_due(&mut self.deadlines.auth_by, now) {
            if let Some(ending) = self.leaving.take() {
                return Some(End::ByServer(*ending));
            }
            // If the token arrived in time but could not be checked yet, the client is not at
            // fault.
            let waits = !self.pipeline.is_idle();
            let late = if waits {
                Disconnect::UNAVAILABLE
            } else {
                Disconnect::AUTH_TIMEOUT
            };
            return Some(late.into());
        }
        if self.is_expired() {
            return Some(Disconnect::EXPIRED.into());
        }
        if is_due(&mut self.deadlines.write_by, now) {
            debug!(
                session = self.session_id(),
                "the connection accepted no byte within session.write_timeout"
            );
            let close = Disconnect::SLOW_CONSUMER;
            return Some(
                close
                    .because("the connection accepted no byte within session.write_timeout")
                    .into(),
            );
        }
        if is_due(&mut self.deadlines.message_by, now) {
            let close = Disconnect::POLICY;
            return Some(
                close
                    .because("a message was not complete within limits.message_timeout")
                    .into(),
            );
        }
        if is_due(&mut self.deadlines.pong_by, now) {
            if self.pipeline.is_idle() {
                return Some(Disconnect::NO_PONG.into());
            }
            // The pong may have arrived without being read, because nothing is read while a command
            // is in flight.
            self.expect_pong(now);
        }
        if is_due(&mut self.deadlines.probe_by, now) {
            if self.pipeline.is_idle() {
                return Some(Disconnect::NO_PONG.into());
            }
            // The answer may have arrived without being read, because nothing is read while a
            // command is in flight.
            self.answer_probe();
        }
        if is_due(&mut self.deadlines.expiring_at, now) {
            self.tell_expiring();
        }
        if is_due(&mut self.deadlines.ends_at, now) {
            // The wall clock was ahead when the timer was set, so the token still has time left.
            self.schedule_end();
        }
        if is_due(&mut self.deadlines.subscription_at, now) {
            self.end_subscriptions();
        }
        if is_due(&mut self.deadlines.ping_at, now) {
            let ping = self.wire().ping();
            self.send_notice(ping);
            self.deadlines.pinged();
            self.deadlines.pinged_at = Some(now);
            // An earlier ping without an answer keeps its deadline.
            if self.deadlines.pong_by.is_none() {
                self.expect_pong(now);
            }
            self.schedule_ping();
        }
        None
    }

    /// Probes the client, because its user has reached the limit of sessions. Without a sign of
    /// life the session ends.
    pub(crate) fn probe(&mut self) {
        let probed_at = self.deadlines.probed_at;
        if probed_at.is_some_and(|at| at.elapsed() < SIGN_LASTS) {
            self.answer_probe();
            return;
        }
        let ping = self.wire().ping();
        self.notify(ping);
        self.deadlines.pinged();
        self.deadlines.probe_by = Instant::now().checked_add(PROBE_PATIENCE);
    }

    /// Records a sign of life from the client.
    pub(crate) fn heard(&mut self) {
        self.deadlines.heard();
        if self.deadlines.probe_by.take().is_some() {
            self.deadlines.probed_at = Some(Instant::now());
            self.answer_probe();
        }
    }

    fn answer_probe(&self) {
        if let Some(live) = &self.live {
            live.attachment.member().outbox().answer_probe();
        }
    }

    fn expect_pong(&mut self, now: Instant) {
        let timeout = self.context.settings.load().session.pong_timeout;
        self.deadlines.pong_by = now.checked_add(timeout);
    }

    /// Returns true if the session's token has ended.
    pub(crate) fn is_expired(&self) -> bool {
        let Some(live) = &self.live else { return false };
        let member = live.attachment.member();
        member.is_over(&**self.context.node.clock())
    }

    /// Schedules the next ping, with jitter so that connections opened together do not ping
    /// together.
    pub(crate) fn schedule_ping(&mut self) {
        let interval = self.context.settings.load().session.ping_interval;
        let jitter = 0.9 + 0.2 * fastrand::f64();
        self.deadlines.ping_at = Instant::now().checked_add(interval.mul_f64(jitter));
    }

    /// Schedules the end of a token that came into force, and the notice before it.
    pub(crate) fn schedule_expiry(&mut self, principal: &Principal) {
        self.schedule_end();
        let notice = self.context.settings.load().session.expiring_notice;
        self.deadlines.expiring_at = None;
        if notice.is_zero() {
            return;
        }
        let at = Duration::from_secs(principal.expires_at()).saturating_sub(notice);
        let wait = at.saturating_sub(self.context.node.clock().now());
        if wait.is_zero() {
            self.tell_expiring();
        } else {
            self.deadlines.expiring_at = Instant::now().checked_add(wait);
        }
    }

    fn schedule_end(&mut self) {
        if let Some(live) = &self.live {
            let member = live.attachment.member();
            let left = member.token_left(&**self.context.node.clock());
            self.deadlines.ends_at = Instant::now().checked_add(left);
        }
    }

    fn tell_expiring(&mut self) {
        if let Some(live) = &self.live {
            let expires_at = live.attachment.member().principal().expires_at();
            self.push(&Push::Expiring { expires_at });
        }
    }
}
