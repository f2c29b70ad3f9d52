//! The metrics of sessions. Other crates also use these metrics, for tokens and publications that
//! do not come from a session.

use curfew_hub::Opcode;
use curfew_model::{AuthFailure, ClientRequest, Command, DISCONNECTS, Disconnect, Reply};
use curfew_protocol::DecodeError;
use curfew_telemetry::{
    Authentications, Counter, Counters, Histogram, Named, NamedHistograms, ROUND_TRIP_SECONDS,
};

use crate::Context;
use crate::commands::RequestInfo;
use crate::open::SessionState;

/// One in `TIMED_ONE_IN` publications of a session is timed. Timing each publication would add a
/// fifth to the work of a publication without subscribers.
const TIMED_ONE_IN: u8 = 16;

/// The close codes counted if the server did not end the connection: normal, going away, no code,
/// connection lost (RFC 6455 §7.4.1).
const CLIENT_CLOSE_CODES: [u16; 4] = [1000, 1001, 1005, 1006];

/// Histogram buckets from one second to one day.
const CONNECTION_SECONDS: &[f64] = &[
    1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0,
];

/// Histogram buckets for the round trip to a client, which may be on the other side of the world
/// and behind a bad network.
const PING_SECONDS: &[f64] = &[
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

curfew_telemetry::labels! {
    /// The side that ended a connection.
    Initiator = "initiator" {
        /// The node.
        Server = "server",
        /// The client, by a close frame.
        Client = "client",
        /// Neither: the connection broke.
        Network = "network",
    }

    /// The outcome of a command.
    CommandOutcome = "outcome" {
        /// The command was done.
        Ok = "ok",
        /// The command was answered with an error.
        Error = "error",
    }

    /// The outcome of a publication.
    PublishOutcome = "outcome" {
        /// The backend accepted the publication.
        Accepted = "accepted",
        /// The policy denied the publication.
        Denied = "denied",
        /// The backend did not accept the publication.
        Error = "error",
        /// The backend may or may not have accepted the publication.
        Unknown = "unknown",
    }

    /// The source of a publication.
    PublishSource = "source" {
        /// A session.
        Client = "client",
        /// The admin API.
        Api = "api",
    }

    /// The reason for which the server ended or refused a subscription. Gaps are counted
    /// separately.
    LostSubscription = "reason" {
        /// The policy does not allow the subscription any more.
        Forbidden = "forbidden",
        /// The subscription's own token has expired.
        Expired = "expired",
        /// A revocation covers the subscription's own token.
        Revoked = "revoked",
        /// A revocation covers the subscription's own token, but a newer token is accepted.
        ReauthRequired = "reauth_required",
        /// The session's protocol cannot carry the channel's data.
        NotAvailable = "not_available",
    }

    /// The decision of the policy.
    Decision = "outcome" {
        /// Allowed.
        Allowed = "allowed",
        /// Denied.
        Denied = "denied",
    }
}

curfew_telemetry::metrics! {
    /// The metrics of sessions.
    pub struct SessionMetrics {
        connections_closed: Named<u16, Initiator> = Named::new("code", close_codes()), "Closed connections";
        connection_duration: Histogram = Histogram::new(CONNECTION_SECONDS), Seconds, "Time from the upgrade of a connection to its close";
        ping_rtt: Histogram = Histogram::new(PING_SECONDS), Seconds, "Time from queueing a ping to receiving the next pong. It includes the wait behind other messages, on the node and at the client";
        frames_received: Counters<Opcode>, "Frames received";
        received_bytes: Counter, Bytes, "Bytes of frames received";
        commands: Named<&'static str, CommandOutcome> = Named::new("command", command_names()), "Commands of clients";
        command_duration: NamedHistograms = NamedHistograms::new("command", command_names(), ROUND_TRIP_SECONDS), Seconds, "Time from reading a command to queueing its answer. Every command is timed, but of the publish commands of a session only the first and one in 16";
        publishes: Counters<(PublishOutcome, PublishSource)>, "Publications";
        authentications: Authentications = Authentications::new(failures()), "Tokens that were accepted or refused";
        authorizations: Counters<Decision>, "Decisions of the policy";
        subscriptions_lost: Counters<LostSubscription>, "Subscriptions that the server ended, or could not make at `connect` (not_available). Subscriptions that ended because of a gap count in curfew_gaps_total instead";
    }
}

fn command_names() -> Vec<&'static str> {
    [Command::NAMES, Command::OTHER_NAMES].concat()
}

fn close_codes() -> Vec<u16> {
    let of_centrifuge = [&Disconnect::INSUFFICIENT_STATE, &Disconnect::CHANNEL_LIMIT];
    let ours = DISCONNECTS.iter().chain(of_centrifuge);
    let ours = ours.map(|disconnect| disconnect.code);
    let mut codes = CLIENT_CLOSE_CODES.to_vec();
    codes.extend(ours.filter(|code| !CLIENT_CLOSE_CODES.contains(code)));
    codes
}

fn failures() -> Vec<&'static str> {
    let failures = AuthFailure::ALL.iter();
    failures.map(|failure| failure.as_str()).collect()
}

impl Context {
    pub(crate) fn count_decision(&self, decision: &curfew_policy::Decision) {
        self.metrics().authorizations.inc(if decision.allowed {
            Decision::Allowed
        } else {
            Decision::Denied
        });
    }

    pub(crate) fn count_publish(&self, outcome: PublishOutcome) {
        self.metrics()
            .publishes
            .inc((outcome, PublishSource::Client));
    }
}

impl SessionState {
    pub(crate) fn count_command(&self, request: &RequestInfo, reply: &Reply<'_>) {
        let outcome = match reply {
            Reply::Error { .. }
            | Reply::AuthFailed { .. }
            | Reply::SubscriptionExpired
            | Reply::Unrecoverable => CommandOutcome::Error,
            _ => CommandOutcome::Ok,
        };
        self.count_outcome(request, outcome);
    }

    pub(crate) fn count_outcome(&self, request: &RequestInfo, outcome: CommandOutcome) {
        let metrics = self.context.metrics();
        metrics.commands.inc(request.command, outcome);
        if let Some(began) = request.began {
            let duration = metrics.command_duration.of(request.command);
            duration.observe(began.elapsed().as_secs_f64());
        }
    }

    /// Returns true if the command is timed. A session's first publication is timed, and then one
    /// publication in [`TIMED_ONE_IN`]. Every other command is timed.
    pub(crate) fn is_timed(&mut self, decoded: &Result<ClientRequest<'_>, DecodeError>) -> bool {
        let Ok(ClientRequest::Command {
            command: Command::Publish { .. },
            ..
        }) = decoded
        else {
            return true;
        };
        let timed = self.untimed == 0;
        self.untimed = self.untimed.checked_sub(1).unwrap_or(TIMED_ONE_IN - 1);
        timed
    }
}
