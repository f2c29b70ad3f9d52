//! Limits the number of connections and the rate of handshakes.

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

/// The limit of connections that is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LimitReached {
    /// `limits.connections`.
    Node,
    /// `limits.unauthenticated`.
    Unauthenticated,
    /// `limits.unauthenticated_per_address`.
    Address,
}

/// The name of the setting that limits the rate of handshakes.
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

/// The permits of the node's connections. The limits are in the settings, which callers pass to
/// each method.
#[derive(Debug)]
pub(crate) struct Permits {
    connections: AtomicUsize,
    addresses: Mutex<Addresses>,
    handshakes: Mutex<Handshakes>,
    /// The bucket of [`Permits::first_commands`].
    first_commands: Mutex<Handshakes>,
    metrics: Arc<ServerMetrics>,
    /// The gauge of upgraded connections. A drain waits until it is 0.
    open: Gauge,
}

/// A bucket with the rate `limits.handshakes_per_second`. The rate 0 means no limit.
#[derive(Debug)]
struct Handshakes {
    quota: Quota,
    bucket: TokenBucket,
}

/// The number of unauthenticated connections: in total and for each address.
#[derive(Debug, Default)]
struct Addresses {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// The permit of an upgraded connection. Dropping this value returns the permit.
#[derive(Debug)]
pub(crate) struct Connection(Arc<Permits>);

/// The permit of an unauthenticated connection. Dropping this value returns the permit.
#[derive(Debug)]
pub(crate) struct Unauthenticated {
    permits: Arc<Permits>,
    /// The address toward whose limit the connection counts; `None` until a load balancer has
    /// stated the client's address.
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

    /// Returns a permit for an upgraded connection.
    pub(crate) fn connection(
        self: &Arc<Self>,
        limits: &LimitsConfig,
    ) -> Result<Connection, LimitReached> {
        let max = limits.connections;
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        // The permit exists before the check, so that a refusal drops it and the counts are
        // decreased again.
        let permit = Connection(Arc::clone(self));
        self.open.inc();
        if max != 0 && before >= max {
            Err(LimitReached::Node)
        } else {
            Ok(permit)
        }
    }

    /// Returns a permit for an accepted connection. `address` is the client's address. If it is
    /// `None`, the connection counts toward the limit of no address until
    /// [`Unauthenticated::attribute`] is called.
    pub(crate) fn unauthenticated(
        self: &Arc<Self>,
        address: Option<IpAddr>,
        limits: &LimitsConfig,
    ) -> Result<Unauthenticated, LimitReached> {
        let address = address.map(address_group);
        // The lock is held for the check and the count, so that two connections cannot both take
        // the last permit.
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

    /// Counts a handshake. Returns false if `limits.handshakes_per_second` is exceeded.
    pub(crate) fn handshake(&self, limits: &LimitsConfig) -> bool {
        self.handshakes.lock().take(limits.handshakes_per_second)
    }

    /// Counts a request with commands that is the first from this node for a session of another
    /// node. Such requests have a bucket of their own, with the rate
    /// `limits.handshakes_per_second`. Returns false if the bucket is empty.
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
        // If a reload has changed the rate, the bucket is full again.
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
    /// From now on, the connection counts toward the limit of `address`, and no longer toward the
    /// limit of its earlier address. Fails if `address` has reached its limit.
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
