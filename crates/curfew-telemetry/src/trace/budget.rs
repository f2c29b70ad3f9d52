//! Limits on the spans that are recorded regardless of the sampled share: refusals, failures, ends
//! of sessions. Clients can cause any number of such spans, and one client must not crowd out the
//! spans of other clients.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::metrics::labels::Unasked;
use crate::metrics::table::Counters;

/// Maximum number of such spans per second, for each kind.
pub(super) const UNASKED_PER_SECOND: u32 = 100;

/// Maximum number of such spans per second for each kind and client. The spans also count against
/// the limit of their kind.
pub(super) const UNASKED_OF_ONE_PER_SECOND: u32 = 10;

/// The client that causes a span, as far as the client is known. Address and user together identify
/// a client, because clients behind a load balancer may share one address.
#[derive(Debug, Clone, Copy, Default)]
pub struct Whose<'a> {
    /// The client's address.
    pub address: Option<IpAddr>,
    /// The user; `None` until a token is verified.
    pub user: Option<&'a str>,
}

impl Whose<'_> {
    /// No client: an operator, or the node itself.
    pub const OURS: Self = Self {
        address: None,
        user: None,
    };

    /// A client at this address whose user is unknown.
    pub fn at(address: Option<IpAddr>) -> Self {
        Self {
            address,
            user: None,
        }
    }
}

/// A budget: a number of spans per second, and a smaller number per second for each client.
#[derive(Debug)]
pub(super) struct Budget {
    each_second: u32,
    of_one: u32,
    state: Mutex<BudgetState>,
    /// The hasher is seeded randomly. A client can therefore not choose values that collide with
    /// the values of another client.
    hasher: RandomState,
}

#[derive(Debug)]
struct BudgetState {
    since: Instant,
    taken: u32,
    /// The number of spans of each client in this second. The map has at most `each_second`
    /// entries.
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

    /// Counts a span. Returns false if the limit of this client or the total limit is reached.
    pub(super) fn take(&self, whose: Whose<'_>) -> bool {
        let client = self.hasher.hash_one((whose.address, whose.user));
        // The lock is held for a few instructions, and only while a span of these kinds is about to
        // be recorded.
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

/// The budget of each kind, and the number of suppressed spans.
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
            // Revocations belong to no client, so only their total number is limited.
            vain: Budget::new(each_second, each_second),
            suppressed,
        }
    }

    /// Admits a span, or counts it as suppressed.
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
