//! The names of the metrics in `/metrics`, and what is said of each there.

use std::fmt;

use prometheus_client::encoding::EncodeMetric;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::process::Process;
use super::{Metrics, Names};

impl Metrics {
    /// Gives every field its name in `/metrics`. `_total`, the unit and the full stop are appended.
    pub(super) fn register(&mut self, known: &Names) {
        let mut root = Registry::default();
        root.register_collector(Box::new(Process::new()));
        let mut names = Register(root.sub_registry_with_prefix("curfew"));
        names.0.register(
            "build",
            "The running version",
            Info::new([
                ("version", known.version),
                ("revision", known.revision),
                ("rustc", known.rustc),
            ]),
        );
        self.register_connections(&mut names);
        self.register_messages(&mut names);
        self.register_access(&mut names);
        self.register_backend(&mut names);
        self.register_process(&mut names);
        self.registry = root;
    }

    fn register_connections(&self, names: &mut Register<'_>) {
        names.add(
            "connections",
            "Open WebSocket connections",
            &self.connections,
        );
        names.add(
            "unauthenticated_connections",
            "Connections whose token has not been verified yet",
            &self.unauthenticated_connections,
        );
        names.add(
            "connections_limit",
            "limits.connections; 0 is no limit",
            &self.connections_limit,
        );
        names.add(
            "connections_accepted",
            "Upgraded connections",
            &self.connections_accepted,
        );
        names.add(
            "connections_rejected",
            "Connections that were not upgraded",
            &self.connections_rejected,
        );
        names.add(
            "http_answers",
            "Answers to HTTP requests on either listener",
            &self.http_answers,
        );
        names.add(
            "connections_closed",
            "Closed connections",
            &self.connections_closed,
        );
        names.seconds(
            "connection_duration",
            "From upgrade to close",
            &self.connection_duration,
        );
        names.seconds(
            "handshake_duration",
            "From accepting a connection to its upgrade",
            &self.handshake_duration,
        );
        names.seconds(
            "ping_rtt",
            "From queueing a ping to the next pong: what waits in front of it, here and at the client, is in it",
            &self.ping_rtt,
        );
        names.add(
            "draining",
            "1 while the node leaves service",
            &self.draining,
        );
        names.add("sessions", "Open sessions", &self.sessions);
        names.add(
            "subscriptions",
            "Subscriptions of all sessions",
            &self.subscriptions,
        );
        names.add(
            "channels",
            "Channels with a subscription on this node",
            &self.channels,
        );
        names.add("frames_received", "Frames received", &self.frames_received);
        names.add("frames_sent", "Frames sent", &self.frames_sent);
        names.bytes("received", "Bytes of frames received", &self.received_bytes);
        names.bytes("sent", "Bytes of frames sent", &self.sent_bytes);
    }

    fn register_messages(&self, names: &mut Register<'_>) {
        names.add("commands", "Commands of clients", &self.commands);
        names.seconds(
            "command_duration",
            "From a command that was read to queueing its answer. Of publications the first of each session is timed, and one in 16",
            &self.command_duration,
        );
        names.add("publishes", "Publications", &self.publishes);
        names.seconds(
            "publish_duration",
            "From a publication's command or API call to the backend's having it. With the embedded backend that includes queueing it for everyone. Of a session's publications the first is timed, one in 16, and those that are traced",
            &self.publish_duration,
        );
        names.add(
            "messages_delivered",
            "Messages put into outbound queues",
            &self.messages_delivered,
        );
        names.add(
            "messages_dropped",
            "Messages that did not reach a session",
            &self.messages_dropped,
        );
        names.add(
            "gaps",
            "Sessions told that publications of a channel may be missing, once for each loss and channel",
            &self.gaps,
        );
        names.seconds(
            "delivery_duration",
            "From a publication's reaching the node, through the embedded backend (local) or Redis (broker), to its last byte's being handed to the socket. One delivery in 17 is timed, of those of one publication one in 257, and of a traced publication at least one; what its session wrote together with it is included, sessions that end meanwhile are not",
            &self.delivery_duration,
        );
        names.add(
            "fanout_recipients",
            "Sessions a publication was queued for",
            &self.fanout_recipients,
        );
        names.add(
            "send_queue_messages",
            "Messages that a session takes out of its queue at a time, as the messages find it that are timed",
            &self.send_queue_messages,
        );
        names.bytes(
            "send_queue",
            "Bytes in all outbound queues",
            &self.send_queue_bytes,
        );
    }

    fn register_access(&self, names: &mut Register<'_>) {
        names.add(
            "authentications",
            "Verified and refused tokens",
            &self.authentications,
        );
        names.add(
            "logouts",
            "Logout tokens of identity providers",
            &self.logouts,
        );
        names.add(
            "reports_refused",
            "Reports of identity providers that they have signed and that are refused",
            &self.reports_refused,
        );
        names.add("tickets", "Tickets, and requests for them", &self.tickets);
        names.add(
            "security_events",
            "Security events of identity providers",
            &self.security_events,
        );
        names.add(
            "global_revocations",
            "Requests of identity providers to end all of a user's sessions",
            &self.global_revocations,
        );
        names.add(
            "event_streams_stopped",
            "Streams of security events that their transmitters have stopped",
            &self.event_streams_stopped,
        );
        names.add(
            "authorizations",
            "Decisions of the policy",
            &self.authorizations,
        );
        names.add(
            "jwt_keys",
            "Keys that tokens are verified with, under each algorithm that a key can be used with",
            &self.jwt_keys,
        );
        names.add(
            "jwt_keys_last_reload_successful",
            "Whether the last reading of keys succeeded",
            &self.jwt_keys_last_reload_successful,
        );
        names.seconds(
            "jwt_keys_last_reload_success_timestamp",
            "When keys were last read with success, Unix time",
            &self.jwt_keys_last_reload_success_timestamp,
        );
        names.add(
            "revocations_applied",
            "Revocations that ended sessions on this node",
            &self.revocations_applied,
        );
        names.add(
            "sessions_revoked",
            "Sessions ended by a revocation",
            &self.sessions_revoked,
        );
        names.add(
            "revocations_unwritten",
            "Revocations of identity providers that wait for the backend",
            &self.revocations_unwritten,
        );
        names.add(
            "revocations_lost",
            "Revocations of identity providers that were never written",
            &self.revocations_lost,
        );
        names.add(
            "revocations_known",
            "Revocations in force that the node knows",
            &self.revocations_known,
        );
        names.add(
            "revocations_ineffective",
            "Revocation keys that can match nobody, which the admin API lists with the reason",
            &self.revocations_ineffective,
        );
        names.add(
            "revocation_missed_push",
            "Sessions found revoked by the sweep alone",
            &self.revocation_missed_push,
        );
        names.add(
            "revocations_reasserted",
            "Revocations written back to a backend that lacked them",
            &self.revocations_reasserted,
        );
        names.seconds(
            "revocation_propagation",
            "From a node's learning of a revocation, by Redis' word or by a call to the embedded backend, to its sessions' being told to end. Only of revocations that ended a session here",
            &self.revocation_propagation,
        );
        names.seconds(
            "revocation_last_sync_timestamp",
            "When the node last knew that it had every revocation, Unix time; 0 with the embedded backend, which always has",
            &self.revocation_last_sync_timestamp,
        );
    }

    fn register_backend(&self, names: &mut Register<'_>) {
        names.add(
            "backend_synced",
            "1 while the node vouches for its sessions",
            &self.backend_synced,
        );
        names.add(
            "node_stops",
            "How often this process did not run for longer than a tenth of the lease",
            &self.node_stops,
        );
        names.add(
            "backend_generations",
            "Control connections to the backend",
            &self.backend_generations,
        );
        names.add(
            "backend_data_losses",
            "How often the backend had lost its data",
            &self.backend_data_losses,
        );
        names.seconds(
            "backend_heartbeat_duration",
            "From a heartbeat's sending to its answer",
            &self.backend_heartbeat_duration,
        );
        names.add(
            "sessions_reaped",
            "Sessions whose records were removed for nodes that are gone",
            &self.sessions_reaped,
        );
        names.add(
            "session_records_restored",
            "Live sessions of this node whose records were missing and were written again",
            &self.session_records_restored,
        );
        names.add(
            "broker_connected",
            "1 while publications can be received",
            &self.broker_connected,
        );
        names.add(
            "broker_reconnects",
            "Lost connections for publications that were made anew",
            &self.broker_reconnects,
        );
        names.add(
            "broker_messages_sent",
            "Publications handed to the backend",
            &self.broker_messages_sent,
        );
        names.add(
            "broker_messages_fenced",
            "Publications that the backend refused since they came after the lease under which they were accepted",
            &self.broker_messages_fenced,
        );
        names.add(
            "broker_messages_received",
            "Publications that came from the backend",
            &self.broker_messages_received,
        );
        names.add(
            "broker_messages_dropped",
            "What came from the backend and was not used",
            &self.broker_messages_dropped,
        );
        names.add(
            "broker_errors",
            "Publications and subscriptions that failed at the backend, and connections for publications that were lost",
            &self.broker_errors,
        );
        names.seconds(
            "redis_command_duration",
            "From handing a command to the connections that sessions and publications share to its answer, waiting included. What failed is not in it, nor are heartbeats",
            &self.redis_command_duration,
        );
    }

    fn register_process(&self, names: &mut Register<'_>) {
        names.add(
            "trace_spans_exported",
            "Spans that the collector has",
            &self.trace_spans_exported,
        );
        names.add(
            "trace_spans_dropped",
            "Spans that were recorded and could not be exported",
            &self.trace_spans_dropped,
        );
        names.add(
            "trace_spans_suppressed",
            "Refusals, failures, ends of sessions and revocations without effect that were not recorded beside the sampled share: there were too many of them in a second, of all or of one client",
            &self.trace_spans_suppressed,
        );
        names.add(
            "config_last_reload_successful",
            "Whether the last reading of the configuration succeeded, and every session is found by it",
            &self.config_last_reload_successful,
        );
        names.add(
            "config_restart_required",
            "Whether a changed setting waits for the next start",
            &self.config_restart_required,
        );
        names.add(
            "runtime_workers",
            "Threads that run tasks",
            &self.runtime_workers,
        );
        names.add(
            "runtime_queue_depth",
            "Tasks in the queue that all workers share, as of the last look: ten a second",
            &self.runtime_queue_depth,
        );
        names.seconds(
            "runtime_stall",
            "By how much a task that asks ten times a second to be run is run later. Up to a millisecond is the timer's own",
            &self.runtime_stall,
        );
    }
}

struct Register<'a>(&'a mut Registry);

impl Register<'_> {
    fn add<M: Registered>(&mut self, name: &str, help: &str, metric: &M) {
        self.0.register(name, help, metric.clone());
    }

    fn seconds<M: Registered>(&mut self, name: &str, help: &str, metric: &M) {
        self.0
            .register_with_unit(name, help, Unit::Seconds, metric.clone());
    }

    fn bytes<M: Registered>(&mut self, name: &str, help: &str, metric: &M) {
        self.0
            .register_with_unit(name, help, Unit::Bytes, metric.clone());
    }
}

/// What can be registered: a handle that shares its value with its clones.
trait Registered: EncodeMetric + Clone + fmt::Debug + Send + Sync + 'static {}

impl<M: EncodeMetric + Clone + fmt::Debug + Send + Sync + 'static> Registered for M {}
