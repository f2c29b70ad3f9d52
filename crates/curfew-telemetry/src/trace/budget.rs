//! The bounds of what is recorded though no share and no caller asked for it: refusals, failures, ends of sessions.
//! Clients can cause them without end, and one must not hide what becomes of the others.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::metrics::labels::Unasked;
use crate::metrics::table::Counters;

/// Spans that are recorded each second beside what is sampled, of each kind.
pub(super) const UNASKED_PER_SECOND: u32 = 100;

/// The part of those that one client may have: what comes from one address for one user.
pub(super) const UNASKED_OF_ONE_PER_SECOND: u32 = 10;

/// The client that does something, as far as it is known. What differs in the address or in the user is
/// another's: behind a load balancer that hides its clients all have one address.
#[derive(Debug, Clone, Copy, Default)]
pub struct Whose<'a> {
    /// The client's address.
    pub address: Option<IpAddr>,
    /// The user, once a token was verified.
    pub user: Option<&'a str>,
}

impl Whose<'_> {
    /// That of an operator, or of this node itself.
    pub const OURS: Self = Self {
        address: None,
        user: None,
    };

    /// That of a client at this address, whose user is not known.
    pub fn at(address: Option<IpAddr>) -> Self {
        Self {
            address,
            user: None,
        }
    }
}

/// So many a second, and so many of them for each client.
#[derive(Debug)]
pub(super) struct Budget {
    each_second: u32,
    of_one: u32,
    state: Mutex<BudgetState>,
    /// Seeded, so that no client can make itself another's equal.
    hasher: RandomState,
}

#[derive(Debug)]
struct BudgetState {
    since: Instant,
    taken: u32,
    /// The number that each client has taken. It holds no more clients than there are places in a second.
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

    /// Takes a place, if there is one.
    pub(super) fn take(&self, whose: Whose<'_>) -> bool {
        let client = self.hasher.hash_one((whose.address, whose.user));
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

/// The budgets of everything that is recorded unasked, and the count of what was not for their sake.
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
            // They are no client's.
            vain: Budget::new(each_second, each_second),
            suppressed,
        }
    }

    /// Takes a place, or counts that there was none.
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
