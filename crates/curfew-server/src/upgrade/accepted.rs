//! The state of a connection before its session: the client, the permit, and the parts of the
//! session that takes over the connection.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use curfew_session::{Context, Guards, LimitsConfig, Opening, Session, WireId};
use curfew_telemetry::Span;
use curfew_ws::{DeferSwitch, Upgraded};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::streams::Stream;
use crate::listeners::UNIX_PEER;
use crate::permits::{LimitReached, Unauthenticated};

/// The parts of a session whose request was accepted. The session takes over the connection when
/// hyper has released it.
#[derive(Debug)]
pub(crate) struct Upgrade {
    pub(super) context: Arc<Context>,
    pub(super) wire: WireId,
    pub(super) opening: Opening,
    pub(super) guards: Guards,
    pub(super) address: IpAddr,
    pub(super) span: Span,
    /// The parts of a streamed answer; `None` for a WebSocket.
    pub(super) stream: Option<Box<Stream>>,
}

/// A connection before its upgrade. The future that serves the connection and the future that
/// answers a request share this value. Both run in the same task, so neither waits for a lock.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// The client's address. Until a load balancer has stated another address, this is the address
    /// of the peer.
    client: Mutex<IpAddr>,
    /// The time at which the connection was accepted.
    pub(super) at: Instant,
    has_asked: AtomicBool,
    /// The permit of an unauthenticated connection. An upgrade passes the permit to the session.
    /// Without an upgrade, the permit is returned when the connection ends.
    permit: Mutex<Option<Unauthenticated>>,
    /// The parts of the session that will take over the connection.
    upgrade: Mutex<Option<Box<Upgrade>>>,
    /// The switch that holds back the answer to the upgrade.
    switch: DeferSwitch,
}

impl Upgrade {
    /// Creates the session on the connection. The session first writes the answer to the request.
    pub(crate) fn session(self, upgraded: Upgraded) -> Box<Session> {
        let Self {
            context,
            wire,
            opening,
            mut guards,
            address,
            span,
            stream,
        } = self;
        let (upgraded, key) = match stream {
            None => (upgraded, None),
            Some(stream) => {
                let (upgraded, key, entry) = stream.begin(upgraded);
                guards.connection = Box::new((guards.connection, entry));
                (upgraded, Some(key))
            }
        };
        let open = || Box::new(Session::new(context, upgraded, wire, opening, guards));
        let mut session = span.scope().in_scope(open);
        session.set_trace(span.context());
        if let Some(key) = key {
            session.set_key(key);
        }
        if address != UNIX_PEER {
            session.set_address(address);
        }
        session
    }
}

impl Accepted {
    /// Creates the state of a connection of `client` that was accepted at the time `at`.
    pub(crate) fn new(client: IpAddr, at: Instant, permit: Unauthenticated) -> Self {
        Self {
            client: Mutex::new(client),
            at,
            has_asked: AtomicBool::new(false),
            permit: Mutex::new(Some(permit)),
            upgrade: Mutex::new(None),
            switch: DeferSwitch::default(),
        }
    }

    /// Returns the client's address, which is the peer's address until a load balancer has stated
    /// another one.
    pub(crate) fn client(&self) -> IpAddr {
        *self.client.lock()
    }

    /// Sets the client's address, which a load balancer has stated.
    pub(crate) fn set_client(&self, client: IpAddr) {
        *self.client.lock() = client;
    }

    /// Notes that the first request has arrived.
    pub(crate) fn note_request(&self) {
        self.has_asked.store(true, Ordering::Relaxed);
    }

    /// True after the first request has arrived.
    pub(crate) fn has_asked(&self) -> bool {
        self.has_asked.load(Ordering::Relaxed)
    }

    /// From now on, the connection counts toward the limit of `address`, if it still has its
    /// permit.
    ///
    /// # Errors
    ///
    /// The address has too many unauthenticated connections.
    pub(crate) fn attribute(
        &self,
        address: IpAddr,
        limits: &LimitsConfig,
    ) -> Result<(), LimitReached> {
        match self.permit.lock().as_mut() {
            Some(permit) => permit.attribute(address, limits),
            None => Ok(()),
        }
    }

    /// Takes the permit of the unauthenticated connection out of this value, for the session.
    pub(super) fn take_permit(&self) -> Option<Unauthenticated> {
        self.permit.lock().take()
    }

    /// Lets a session take over the connection after the current request. The answer to the request
    /// is held back, because the session writes it.
    pub(super) fn take_over(&self, upgrade: Upgrade) {
        *self.upgrade.lock() = Some(Box::new(upgrade));
        self.switch.defer();
    }

    /// Takes the parts of the session that takes over the connection; `None` if no request has
    /// opened a session.
    pub(crate) fn take_upgrade(&self) -> Option<Box<Upgrade>> {
        self.upgrade.lock().take()
    }

    /// The switch that holds back the answer to the upgrade.
    pub(crate) fn switch(&self) -> DeferSwitch {
        self.switch.clone()
    }
}
