//! Limits the number of spans that are recorded although they are not sampled, such as refusals,
//! failures and ends of sessions. Clients can cause any number of these spans, and the spans of one
//! client must not displace the spans of other clients.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::metrics::labels::Unasked;
use crate::metrics::table::Counters;

/// Maximum number of spans of each [`Unasked`] kind per second.
pub(super) const UNASKED_PER_SECOND: u32 = 100;

/// Maximum number of spans of each [`Unasked`] kind per second and client. They also count against
/// [`UNASKED_PER_SECOND`].
pub(super) const UNASKED_OF_ONE_PER_SECOND: u32 = 10;

/// The client that causes a span. The address and the user together identify a client, because
/// clients behind a load balancer may share one address.
#[derive(Debug, Clone, Copy, Default)]
pub struct Whose<'a> {
    /// The client's address; `None` if it is not known.
    pub address: Option<IpAddr>,
    /// The user; `None` until a token is verified.
    pub user: Option<&'a str>,
}

impl Whose<'_> {
    /// The value for spans that an operator or the node itself causes.
    pub const OURS: Self = Self {
        address: None,
        user: None,
    };

    /// Returns a client at `address` whose user is not known.
    pub fn at(address: Option<IpAddr>) -> Self {
        Self {
            address,
            user: None,
        }
    }
}

/// A limit on the number of spans per second: in total, and for each client.
#[derive(Debug)]
pub(super) struct Budget {
    each_second: u32,
    of_one: u32,
    state: Mutex<BudgetState>,
    /// The hasher has a random seed. A client can therefore not choose a user name whose hash
    /// equals the hash of another client.
    hasher: RandomState,
}

#[derive(Debug)]
struct BudgetState {
    since: Instant,
    taken: u32,
    /// The number of spans of each client since `since`, by a hash of the client. The map has at
    /// most `each_second` entries.
    by_client: HashMap<u64, u32>,
}

impl Budget {
    pub(super) fn new(each_second: u32, of_one: u32) -> Self {
        Self {
            each_second,
            of_one,
            state: Mutex::new(BudgetState {
                since: Instant::now(),
                taken: 0,
                by_client: HashMap::new(),
            }),
            hasher: RandomState::new(),
        }
    }

    /// Counts a span. Returns false, and counts nothing, if the client or all clients together have
    /// reached their limit in the current second.
    pub(super) fn take(&self, whose: Whose<'_>) -> bool {
        let client = self.hasher.hash_one((whose.address, whose.user));
        // Waiting for the lock is rare: it is held only for a few instructions, and only spans with
        // a limit need it.
        let mut state = self.state.lock();
        if state.since.elapsed() >= Duration::from_secs(1) {
            state.since = Instant::now();
            state.taken = 0;
            state.by_client.clear();
        }
        if state.taken >= self.each_second {
            return false;
        }
        let own = state.by_client.entry(client).or_default();
        if *own >= self.of_one {
            return false;
        }
        *own += 1;
        state.taken += 1;
        true
    }
}

/// The limits of each [`Unasked`] kind, and the number of suppressed spans.
#[derive(Debug)]
pub(super) struct Budgets {
    refusals: Budget,
    failures: Budget,
    ends: Budget,
    vain: Budget,
    suppressed: Counters<Unasked>,
}

impl Budgets {
    pub(super) fn new(each_second: u32, of_one: u32, suppressed: Counters<Unasked>) -> Self {
        let budget = || Budget::new(each_second, of_one);
        Self {
            refusals: budget(),
            failures: budget(),
            ends: budget(),
            // Revocations belong to no client, so only their total number per second is limited.
            vain: Budget::new(each_second, each_second),
            suppressed,
        }
    }

    /// Returns true if one more span of the kind `what` may be recorded. Otherwise counts the span
    /// as suppressed.
    pub(super) fn take(&self, what: Unasked, whose: Whose<'_>) -> bool {
        let budget = match what {
            Unasked::Refusal => &self.refusals,
            Unasked::Failure => &self.failures,
            Unasked::SessionEnd => &self.ends,
            Unasked::VainRevocation => &self.vain,
        };
        let taken = budget.take(whose);
        if !taken {
            self.suppressed.inc(what);
        }
        taken
    }
}
