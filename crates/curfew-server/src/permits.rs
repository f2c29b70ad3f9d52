//! Counted permits for connections, and the rate of handshakes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use curfew_model::{Quota, TokenBucket};
use curfew_node::address_group;
use curfew_session::LimitsConfig;
use curfew_telemetry::Gauge;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::metrics::ServerMetrics;

/// The limit that is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LimitReached {
    /// `limits.connections`.
    Node,
    /// `limits.unauthenticated`.
    Unauthenticated,
    /// `limits.unauthenticated_per_address`.
    Address,
}

/// The setting that limits the rate of handshakes.
pub(crate) const HANDSHAKES: &str = "limits.handshakes_per_second";

impl LimitReached {
    /// The name of the limit's setting.
    pub(crate) fn setting(self) -> &'static str {
        match self {
            Self::Node => "limits.connections",
            Self::Unauthenticated => "limits.unauthenticated",
            Self::Address => "limits.unauthenticated_per_address",
        }
    }
}

/// The node's counted permits. The caller's snapshot of settings has the limits.
#[derive(Debug)]
pub(crate) struct Permits {
    connections: AtomicUsize,
    addresses: Mutex<Addresses>,
    handshakes: Mutex<Handshakes>,
    /// The bucket for first requests to other nodes' sessions. It has the handshake rate.
    first_commands: Mutex<Handshakes>,
    metrics: Arc<ServerMetrics>,
    /// The number of open connections. A drain waits until there are none.
    open: Gauge,
}

/// The bucket of `limits.handshakes_per_second`; 0 a second means no limit.
#[derive(Debug)]
struct Handshakes {
    quota: Quota,
    bucket: TokenBucket,
}

/// Unauthenticated connections, by address.
#[derive(Debug, Default)]
struct Addresses {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// The permit of a connection. Dropping it returns the permit.
#[derive(Debug)]
pub(crate) struct Connection(Arc<Permits>);

/// The permit of an unauthenticated connection. Dropping it returns the permit.
#[derive(Debug)]
pub(crate) struct Unauthenticated {
    permits: Arc<Permits>,
    /// The address that the connection counts for; `None` until a proxy names the address.
    address: Option<IpAddr>,
}

impl Permits {
    pub(crate) fn new(metrics: Arc<ServerMetrics>, open: Gauge) -> Arc<Self> {
        Arc::new(Self {
            connections: AtomicUsize::new(0),
            addresses: Mutex::default(),
            handshakes: Mutex::new(Handshakes::new(0)),
            first_commands: Mutex::new(Handshakes::new(0)),
            metrics,
            open,
        })
    }

    /// A permit for an upgraded connection.
    pub(crate) fn connection(
        self: &Arc<Self>,
        limits: &LimitsConfig,
    ) -> Result<Connection, LimitReached> {
        let max = limits.connections;
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        // Created before the check, so that a refusal returns the permit too.
        let permit = Connection(Arc::clone(self));
        self.open.inc();
        if max != 0 && before >= max {
            Err(LimitReached::Node)
        } else {
            Ok(permit)
        }
    }

    /// Returns a permit for a connection accepted from `address`. If `address` is `None`, the
    /// connection counts for no address until [`Unauthenticated::attribute`] is called.
    pub(crate) fn unauthenticated(
        self: &Arc<Self>,
        address: Option<IpAddr>,
        limits: &LimitsConfig,
    ) -> Result<Unauthenticated, LimitReached> {
        let address = address.map(address_group);
        // One lock covers check and count, so that two connections cannot take the last permit.
        let mut addresses = self.addresses.lock();
        if addresses.total >= limits.unauthenticated {
            return Err(LimitReached::Unauthenticated);
        }
        if let Some(address) = address {
            addresses.add(address, limits.unauthenticated_per_address)?;
        }
        addresses.total += 1;
        self.metrics.unauthenticated_connections.inc();
        Ok(Unauthenticated {
            permits: Arc::clone(self),
            address,
        })
    }

    /// Takes one handshake from `limits.handshakes_per_second`; false if none is left.
    pub(crate) fn handshake(&self, limits: &LimitsConfig) -> bool {
        self.handshakes.lock().take(limits.handshakes_per_second)
    }

    /// Takes a permit for a first request to another node's session, from a bucket with the
    /// handshake rate. Returns false if the bucket is empty.
    pub(crate) fn first_commands(&self, limits: &LimitsConfig) -> bool {
        let mut bucket = self.first_commands.lock();
        bucket.take(limits.handshakes_per_second)
    }
}

impl Handshakes {
    fn new(per_second: u32) -> Self {
        let quota = Quota::of_a_second(per_second);
        let bucket = TokenBucket::full(quota, Instant::now().into_std());
        Self { quota, bucket }
    }

    fn take(&mut self, per_second: u32) -> bool {
        // A changed rate, for example after a reload, starts with a full bucket.
        if self.quota.per_second != per_second {
            *self = Self::new(per_second);
        }
        let now = Instant::now().into_std();
        self.quota.per_second == 0 || self.bucket.take(self.quota, now)
    }
}

impl Addresses {
    fn add(&mut self, address: IpAddr, max: usize) -> Result<(), LimitReached> {
        let count = self.by_address.entry(address).or_default();
        if *count >= max {
            return Err(LimitReached::Address);
        }
        *count += 1;
        Ok(())
    }

    fn remove(&mut self, address: IpAddr) {
        if let Some(count) = self.by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
    }
}

impl Unauthenticated {
    /// Counts the connection for this address from now on, if the address has room.
    pub(crate) fn attribute(
        &mut self,
        address: IpAddr,
        limits: &LimitsConfig,
    ) -> Result<(), LimitReached> {
        let address = address_group(address);
        if self.address == Some(address) {
            return Ok(());
        }
        let mut addresses = self.permits.addresses.lock();
        addresses.add(address, limits.unauthenticated_per_address)?;
        if let Some(before) = self.address.replace(address) {
            addresses.remove(before);
        }
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
        self.0.open.dec();
    }
}

impl Drop for Unauthenticated {
    fn drop(&mut self) {
        self.permits.metrics.unauthenticated_connections.dec();
        let mut addresses = self.permits.addresses.lock();
        addresses.total -= 1;
        if let Some(address) = self.address {
            addresses.remove(address);
        }
        if addresses.total == 0 {
            // A new map frees the memory that a storm of connections needed.
            addresses.by_address = HashMap::new();
        }
    }
}
