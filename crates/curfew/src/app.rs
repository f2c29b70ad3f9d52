//! The composition root: builds a node from a configuration, and runs it to its end.
//!
//! This is the only file that names every concrete type.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use curfew_auth::{Algorithm, Authenticator, PreparedIssuers};
use curfew_backend::Backends;
use curfew_backend::memory::Memory;
use curfew_backend_redis::{Parts, Redis, RedisMetrics};
use curfew_hub::{
    DeliveryPath, EventStreamFraming, HttpStreamFraming, Hub, HubLimits, HubMetrics, Wire, Wires,
};
use curfew_identity::{Fetched, Fetcher, Keepers};
use curfew_model::{Clock, DeliveryLease, ISSUER_TOKEN, ISSUER_USER, NodeId, SystemClock, digest};
use curfew_node::{ChannelConfig, ChannelEntries, HubEvents, Node, NodeMetrics};
use curfew_policy::Policy;
use curfew_protocol::native::Native;
use curfew_protocol_centrifuge::{Centrifuge, Encoding, Over};
use curfew_server::{
    Admin, AdminKey, Extra, Listen, Listener, Proxies, Public, ServerConfig, ServerMetrics,
    ServerSettings, Tls,
};
use curfew_session::{Context, SessionMetrics, SessionSettings};
use curfew_telemetry::{Build, Installed, LogLevel, Registry, RuntimeMetrics, SpanKind, Tracer};
use curfew_ws::OriginPolicy;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::config::{BackendKind, Config};
use crate::metrics::ReloadMetrics;
use crate::trust;

/// The version and the build of this program.
const BUILD: Build = Build {
    version: env!("CARGO_PKG_VERSION"),
    revision: env!("CURFEW_REVISION"),
    rustc: env!("CURFEW_RUSTC"),
};

/// A node that is built and listens, but does not answer yet.
#[derive(Debug)]
pub(crate) struct App {
    node: Running,
    public_listener: Listener,
    admin_listener: Listener,
}

impl App {
    /// Builds a node and opens its public and its admin listener. Reads key and certificate files.
    /// `extra` builds the handler of public requests whose path belongs to no endpoint.
    pub(crate) fn build(
        config: &Config,
        telemetry: Installed,
        extra: impl FnOnce(&Arc<Context>, Listen, Listen) -> anyhow::Result<Option<Extra>>,
    ) -> anyhow::Result<Self> {
        let public_listener =
            curfew_server::listen(&config.server.listen).context("server.listen")?;
        let admin_listener =
            curfew_server::listen(&Listen::Tcp(config.admin.listen)).context("admin.listen")?;
        let address = public_listener
            .address()
            .context("read the public listener's address")?;

        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let wires = wires(config);
        let id = NodeId::new();
        let registry =
            Registry::start(BUILD, &config.telemetry, &telemetry.spans, &id.to_string())?;
        let metrics = ReloadMetrics::start(&registry);
        let of_redis = RedisMetrics::register(&registry);
        let of_node = NodeMetrics::register(&registry);
        let of_server = ServerMetrics::register(&registry, &wires.names());
        // With the embedded backend, the node always holds its lease. With Redis, the node starts
        // without a lease.
        let (lease, path) = match config.backend.kind {
            BackendKind::Memory => (DeliveryLease::perpetual(), DeliveryPath::Local),
            BackendKind::Redis => (DeliveryLease::not_held(), DeliveryPath::Broker),
        };
        let lease = Arc::new(lease);
        let hub = Arc::new(Hub::new(
            wires,
            hub_limits(config),
            Arc::clone(&lease),
            path,
            HubMetrics::register(&registry),
        ));
        let events = Arc::new(HubEvents::new(id, Arc::clone(&hub), Arc::clone(&of_node)));
        let info = node_info(id, &config.server, &address, clock.as_ref());
        let backends: Backends = match config.backend.kind {
            BackendKind::Memory => {
                let prefix = config.backend.redis.prefix.clone();
                let events = Arc::clone(&events) as _;
                Memory::new(info, Arc::clone(&clock), events, prefix).backends()
            }
            BackendKind::Redis => {
                let parts = Parts {
                    config: config.backend.of_redis(),
                    info,
                    events: Arc::clone(&events) as _,
                    local: Arc::clone(&events) as _,
                    lease,
                    clock: Arc::clone(&clock),
                    metrics: of_redis,
                };
                Redis::start(parts).context("backend.redis.url")?.backends()
            }
        };
        let authenticator = Arc::new(Authenticator::new(&config.auth(), Arc::clone(&clock))?);
        let claims = revocable_claims(config);
        let most = config.backend.max_admissions;
        let node = Node::start(id, hub, backends, clock, of_node, &claims, most);
        node.backends().nodes.note_channels(channels_digest(config));
        let context = Arc::new(Context {
            node,
            authenticator,
            metrics: SessionMetrics::register(&registry),
            settings: ArcSwap::from_pointee(settings(config)?),
        });
        keys_read(&context, &metrics);
        let keepers = keepers(&context, &metrics, config.auth.jwks_timeout);
        let tls = match (&config.server.tls_cert_file, &config.server.tls_key_file) {
            (Some(cert), Some(key)) => Some(Arc::new(Tls::load(cert, key)?)),
            _ => None,
        };
        let admin_address = admin_listener
            .address()
            .context("read the admin listener's address")?;
        let extra = extra(&context, address, admin_address)?;
        let public = Public::new(
            Arc::clone(&context),
            Arc::clone(&of_server),
            tls.clone(),
            extra,
        );
        events.receive_relayed(public.relay_receiver());
        let admin = Admin::new(
            Arc::clone(&context),
            of_server,
            config.backend.redis.prefix.clone(),
            config.admin.connections,
        );
        Ok(Self {
            node: Running {
                context,
                public,
                admin,
                tls,
                answered: CancellationToken::new(),
                log_level: telemetry.log_level,
                metrics,
                keepers,
            },
            public_listener,
            admin_listener,
        })
    }

    /// The addresses of the two listeners: public and admin.
    pub(crate) fn addresses(&self) -> anyhow::Result<(Listen, Listen)> {
        let of = |listener: &Listener| listener.address().context("read a listener's address");
        Ok((of(&self.public_listener)?, of(&self.admin_listener)?))
    }

    /// Answers on both listeners, and logs their addresses. Each listener answers until its own
    /// `CancellationToken` is cancelled.
    pub(crate) fn listen(
        self,
        stop_public: CancellationToken,
        stop_admin: CancellationToken,
    ) -> anyhow::Result<Running> {
        let (public_address, admin_address) = self.addresses()?;
        let running = self.node;
        let node = &running.context.node;
        node.spawn(RuntimeMetrics::register(running.metrics.registry()).watch());
        let on_return = running.answered.clone().drop_guard();
        let serve = Arc::clone(&running.public).serve(self.public_listener, stop_public);
        node.spawn(async move {
            let _on_return = on_return;
            serve.await;
        });
        running.keepers.update();
        node.spawn(Arc::clone(&running.admin).serve(self.admin_listener, stop_admin));
        info!(
            node = %node.id(),
            version = env!("CARGO_PKG_VERSION"),
            tls = running.tls.is_some(),
            "started"
        );
        info!(listener = "public", address = %public_address, "listening");
        info!(listener = "admin", address = %admin_address, "listening");
        Ok(running)
    }
}

/// A node that answers requests.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) context: Arc<Context>,
    public: Arc<Public>,
    admin: Arc<Admin>,
    pub(crate) tls: Option<Arc<Tls>>,
    /// Cancelled once the public listener is closed and every accepted request is answered.
    pub(crate) answered: CancellationToken,
    log_level: LogLevel,
    pub(crate) metrics: Arc<ReloadMetrics>,
    keepers: Keepers,
}

impl Running {
    /// Applies another configuration, except for settings that need a restart. On an error, nothing
    /// changes. Once [`Node::until_settled`] has returned, revocations find existing sessions by
    /// the revocable claims of the new configuration.
    pub(crate) fn apply(&self, config: &Config) -> anyhow::Result<()> {
        let prepared = Prepared::read(config)?;
        // The change of the log level comes first, because only this step can still fail, and a
        // failure must change nothing.
        self.log_level.set_level(&config.telemetry.log_level)?;
        self.put_in_force(prepared);
        Ok(())
    }

    /// Applies all parts. No step here can fail, so a reload takes effect as a whole. The steps
    /// that can fail are in [`Prepared::read`].
    fn put_in_force(&self, prepared: Prepared) {
        // The pattern names every part, so the compiler reports a part that is forgotten here.
        let Prepared {
            issuers,
            settings,
            revocable_claims,
            channels_digest,
            hub,
        } = prepared;
        let context = &self.context;
        context.authenticator.put_in_force(issuers);
        self.keepers.update();
        self.keys_read();
        context.settings.store(settings);
        context.node.backends().nodes.note_channels(channels_digest);
        context.node.set_kinds(&revocable_claims);
        context.node.hub().set_limits(hub);
        self.public.show_limits();
        // The sessions decide on their subscriptions again last, because the new settings must
        // already be in force.
        context.node.hub().reconsider_all();
    }

    /// Logs the repeated events that no log line has counted yet, once the interval of the last
    /// line of the same cause is over.
    pub(crate) fn tell_rest(&self) {
        self.context.node.tell_rest();
        self.context.authenticator.tell_rest();
        self.public.tell_rest();
        self.admin.tell_rest();
    }

    /// Updates metrics and sessions after an attempt to re-read keys, successful or not.
    pub(crate) fn keys_read(&self) {
        keys_read(&self.context, &self.metrics);
    }
}

/// All parts that a reload applies. The steps that can fail, such as reading files, are already
/// done.
struct Prepared {
    issuers: PreparedIssuers,
    settings: Arc<SessionSettings>,
    revocable_claims: Vec<String>,
    channels_digest: Option<String>,
    hub: HubLimits,
}

impl Prepared {
    /// Reads and checks all parts. Changes nothing in the running node.
    fn read(config: &Config) -> anyhow::Result<Self> {
        Ok(Self {
            settings: Arc::new(settings(config)?),
            issuers: Authenticator::prepare(&config.auth())?,
            revocable_claims: revocable_claims(config),
            channels_digest: channels_digest(config),
            hub: hub_limits(config),
        })
    }
}

fn node_info(
    id: NodeId,
    server: &ServerConfig,
    address: &Listen,
    clock: &dyn Clock,
) -> curfew_backend::NodeInfo {
    let name = server.node_name.clone();
    let known_at = server.node_address.clone();
    curfew_backend::NodeInfo {
        node: id,
        name: name.unwrap_or_else(curfew_model::host_name),
        address: known_at.unwrap_or_else(|| address.to_string()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: clock.unix(),
        sessions: 0,
        channels: None,
    }
}

/// Updates the metrics of keys, and closes sessions whose key is no longer in force.
fn keys_read(context: &Context, metrics: &ReloadMetrics) {
    let node = &context.node;
    match context.authenticator.keys_are_current() {
        true => metrics.keys_reloaded(node.clock().unix()),
        false => metrics.keys_not_reloaded(),
    }
    context.close_withdrawn();
    let issuers = context.authenticator.issuers();
    let keys = || issuers.iter().flat_map(|issuer| &issuer.keys);
    for algorithm in Algorithm::ALL {
        let fit = keys().filter(|key| key.algorithms.contains(algorithm));
        let count = i64::try_from(fit.count()).unwrap_or(i64::MAX);
        metrics.jwt_keys.set(algorithm.as_str(), count);
    }
}

/// The tasks that fetch keys. The tasks hold only a weak reference to the context.
fn keepers(context: &Arc<Context>, metrics: &Arc<ReloadMetrics>, timeout: Duration) -> Keepers {
    let fetcher = Fetcher::new(timeout, || trust::client(trust::system_roots()));
    let node = Arc::clone(&context.node);
    let told = {
        let (context, metrics) = (Arc::downgrade(context), Arc::clone(metrics));
        move |fetched: Fetched<'_>| {
            if let Some(context) = context.upgrade() {
                trace_fetch(metrics.tracer(), fetched);
                keys_read(&context, &metrics);
            }
        }
    };
    let spawn = move |task| node.spawn(task);
    Keepers::new(Arc::clone(&context.authenticator), fetcher, spawn, told)
}

/// Records the span of a fetch of keys. The span is always recorded, because fetches are rare.
fn trace_fetch(tracer: &Tracer, fetched: Fetched<'_>) {
    let now = tracer.now();
    let mut span = tracer.root("fetch keys", SpanKind::Client);
    span.began(now.checked_sub(fetched.took).unwrap_or(now));
    span.set("curfew.issuer", fetched.issuer.to_owned());
    match fetched.keys {
        Ok(keys) => {
            span.set("curfew.keys.outcome", "installed");
            span.set("curfew.keys.count", i64::try_from(keys).unwrap_or(i64::MAX));
        }
        Err(kind) => {
            span.set("curfew.keys.outcome", "not_fetched");
            span.failed(kind);
        }
    }
}

/// The wires of the node: each is a protocol in one encoding and one framing. The first wire is the
/// default for clients that request none.
fn wires(config: &Config) -> Wires {
    let websocket = |encoding| {
        Wire::websocket(Centrifuge {
            encoding,
            transport: Over::WebSocket,
        })
    };
    let streamed = |encoding, framing| {
        let transport = Over::Http;
        Wire::new(
            Arc::new(Centrifuge {
                encoding,
                transport,
            }),
            framing,
        )
    };
    let mut wires = vec![Wire::websocket(Native)];
    if config.centrifuge.enabled {
        wires.extend([
            websocket(Encoding::Json),
            websocket(Encoding::Protobuf),
            streamed(Encoding::Json, Arc::new(HttpStreamFraming)),
            streamed(Encoding::Protobuf, Arc::new(HttpStreamFraming)),
            streamed(Encoding::Json, Arc::new(EventStreamFraming)),
        ]);
    }
    Wires::new(wires)
}

fn hub_limits(config: &Config) -> HubLimits {
    HubLimits {
        outbound_bytes: config.limits.outbound_bytes,
        node_outbound_bytes: config.limits.node_outbound_bytes,
        window_bytes: config.limits.window_bytes,
    }
}

/// The claims by which sessions can be revoked: the configured claims, and the claims that the
/// reports of identity providers and the revocation of tokens use.
fn revocable_claims(config: &Config) -> Vec<String> {
    let mut claims = config.session.revocable_claims.clone();
    let auth = &config.auth;
    for claim in auth.reported_claims() {
        if !claims.iter().any(|known| known == claim) {
            claims.push(claim.to_owned());
        }
    }
    // These kinds are added even if only one issuer is configured, because another issuer may be
    // added while earlier revocations are in force.
    if auth.token_revocation || auth.reports_users() {
        claims.extend([ISSUER_USER, ISSUER_TOKEN].map(str::to_owned));
    }
    claims
}

/// The snapshot of settings that a request or a command uses.
fn settings(config: &Config) -> anyhow::Result<SessionSettings> {
    Ok(SessionSettings {
        session: config.session.clone(),
        limits: config.limits.clone(),
        auth_timeout: config.auth.timeout,
        auth_frame_bytes: config.auth.auth_frame_bytes(),
        anonymous: config
            .auth
            .anonymous
            .then_some(config.auth.anonymous_lifetime),
        login_claim: config.auth.login_claim.clone(),
        channels: ChannelEntries::new(&config.channels),
        shows_sender: config.centrifuge.enabled,
        personal_channels: config.centrifuge.personal_channels,
        subscription_tokens: config.centrifuge.subscription_tokens,
        policy: Arc::new(Policy::new(&config.policy)),
        listeners: Arc::new(server_settings(config)?),
    })
}

/// A digest of `[[channels]]`, by which nodes compare their channel settings; `None` if there are
/// no entries. Settings with their default value are left out, so that a setting that a later
/// version adds does not change the digest.
fn channels_digest(config: &Config) -> Option<String> {
    if config.channels.is_empty() {
        return None;
    }
    let members = |entry: &ChannelConfig| {
        let members = serde_json::to_value(entry).expect("settings are JSON");
        members.as_object().cloned().unwrap_or_default()
    };
    let default = members(&ChannelConfig::default());
    let entries = config.channels.iter().map(|entry| {
        let mut members = members(entry);
        members.retain(|name, value| default.get(name) != Some(value));
        members
    });
    let text = serde_json::to_string(&entries.collect::<Vec<_>>()).expect("members are JSON");
    Some(format!("{:016x}", digest(text.as_bytes())))
}

fn admin_keys(config: &Config) -> anyhow::Result<Vec<Arc<AdminKey>>> {
    config.admin.read_keys().map_err(|bad| {
        let bad = bad
            .iter()
            .map(|(key, error)| format!("admin.{key}: {error}"));
        anyhow::anyhow!(bad.collect::<Vec<_>>().join("; "))
    })
}

fn server_settings(config: &Config) -> anyhow::Result<ServerSettings> {
    let origins = OriginPolicy::parse(&config.server.allowed_origins)
        .map_err(|bad| anyhow::anyhow!("server.allowed_origins: {bad:?}"))?;
    let server = &config.server;
    let proxies = Proxies::parse(&server.trusted_proxies, server.proxy_protocol)
        .map_err(|bad| anyhow::anyhow!("server.trusted_proxies: {bad:?}"))?;
    Ok(ServerSettings {
        server: config.server.clone(),
        centrifuge: config.centrifuge.clone(),
        auth: config.auth.clone(),
        origins,
        proxies,
        admin_keys: admin_keys(config)?,
    })
}

#[cfg(test)]
mod tests;
