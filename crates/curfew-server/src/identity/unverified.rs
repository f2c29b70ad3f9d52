//! Limits the rate at which each address may send reports and token revocations that cannot be
//! verified. A report is a request in which an identity provider states an event, such as a logout.
//! Each report or token revocation costs the check of a signature. Without this limit, a stranger's
//! requests could crowd out the reports of an identity provider.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use curfew_model::{Quota, Repeats, TokenBucket};
use curfew_node::address_group;
use http::StatusCode;
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::warn;

use super::Reports;
use super::refusal::ReportRefusal;
use super::report::Delivery;

/// Maximum number of addresses that have a bucket of their own. All further addresses share one
/// bucket.
const MAX_ADDRESSES: usize = 10_000;

/// The key of the bucket that all further addresses share.
const OTHERS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Applies `limits.unverified_reports_per_second` to each address.
#[derive(Debug, Default)]
pub(super) struct Unverified {
    buckets: Mutex<Buckets>,
    told: Repeats<IpAddr>,
}

#[derive(Debug, Default)]
struct Buckets {
    per_second: u32,
    /// The buckets of addresses that were charged. An address without an entry has a full bucket.
    by_address: HashMap<IpAddr, TokenBucket>,
}

impl Unverified {
    /// Logs the refusals that no log line has counted yet, if the last line is at least a minute
    /// old.
    pub(super) fn tell_rest(&self) {
        if let Some((times, address)) = self.told.rest() {
            tell(times, address);
        }
    }

    /// True if one more report from `address` may be read, because its bucket is not empty.
    fn has(&self, address: IpAddr, per_second: u32) -> bool {
        let mut buckets = self.buckets.lock();
        buckets.set(per_second);
        let (quota, now) = (buckets.quota(), Instant::now().into_std());
        let known = buckets.place(address_group(address), now);
        let bucket = buckets.by_address.get_mut(&known);
        bucket.is_none_or(|bucket| bucket.has_token(quota, now))
    }

    /// Takes one token from the bucket of `address`, for a report that could not be verified.
    fn charge(&self, address: IpAddr, per_second: u32) {
        let mut buckets = self.buckets.lock();
        buckets.set(per_second);
        // 0 means no limit, so no bucket is needed.
        if buckets.per_second == 0 {
            return;
        }
        let (quota, now) = (buckets.quota(), Instant::now().into_std());
        let place = buckets.place(address_group(address), now);
        let bucket = buckets.by_address.entry(place);
        let bucket = bucket.or_insert_with(|| TokenBucket::full(quota, now));
        bucket.charge(quota, now);
    }
}

impl Buckets {
    /// Sets the rate. If a reload has changed the rate, all buckets are discarded.
    fn set(&mut self, per_second: u32) {
        if self.per_second != per_second {
            *self = Self {
                per_second,
                ..Self::default()
            };
        }
    }

    fn quota(&self) -> Quota {
        Quota::of_a_second(self.per_second)
    }

    /// Returns the key of the bucket for `address`: the address itself, or [`OTHERS`] if there are
    /// too many buckets.
    fn place(&mut self, address: IpAddr, now: std::time::Instant) -> IpAddr {
        if self.by_address.len() < MAX_ADDRESSES || self.by_address.contains_key(&address) {
            return address;
        }
        let quota = self.quota();
        // A full bucket has the same effect as no bucket, so full buckets are removed to make room.
        self.by_address
            .retain(|_, bucket| !bucket.is_full(quota, now));
        match self.by_address.len() < MAX_ADDRESSES {
            true => address,
            false => OTHERS,
        }
    }
}

fn tell(times: u64, address: IpAddr) {
    warn!(
        %address,
        times,
        "reports refused before they were read: too many reports from one address could not be verified (limits.unverified_reports_per_second)"
    );
}

fn per_second(delivery: &Delivery) -> u32 {
    let limits = &delivery.settings.sessions.limits;
    limits.unverified_reports_per_second
}

impl Reports {
    /// Fails if the bucket of the report's address is empty. Called before the body of the report
    /// is read.
    pub(super) fn may_report(&self, delivery: &Delivery) -> Result<(), ReportRefusal> {
        if self.unverified.has(delivery.address, per_second(delivery)) {
            return Ok(());
        }
        if let Some((times, address)) = self.unverified.told.note_event(delivery.address) {
            tell(times, address);
        }
        Err(ReportRefusal {
            status: StatusCode::TOO_MANY_REQUESTS,
            error: ReportRefusal::RATE_LIMITED,
            ..ReportRefusal::invalid("too many reports from this address could not be verified")
        })
    }

    /// Charges the address of a refused report, unless an issuer has signed the report, or the node
    /// is at fault, or the report was not read.
    pub(super) fn charge(&self, delivery: &Delivery, refused: &ReportRefusal) {
        let is_told = refused.is_unavailable() || refused.error == ReportRefusal::RATE_LIMITED;
        if refused.signed.is_none() && !is_told {
            self.charge_token(delivery);
        }
    }

    /// Charges the address of a report or token that could not be verified.
    pub(super) fn charge_token(&self, delivery: &Delivery) {
        self.unverified
            .charge(delivery.address, per_second(delivery));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n))
    }

    /// Guards against this fault: the invalid reports of one address are charged to another
    /// address, or to no address.
    #[tokio::test(start_paused = true)]
    async fn an_address_pays_for_itself_alone_and_its_bucket_fills() {
        let unverified = Unverified::default();
        for _ in 0..3 {
            assert!(unverified.has(address(1), 3));
            unverified.charge(address(1), 3);
        }
        assert!(!unverified.has(address(1), 3) && unverified.has(address(2), 3));
        // An empty bucket can still be charged, for reports that were already being read when the
        // bucket became empty.
        for _ in 0..100 {
            unverified.charge(address(1), 3);
        }
        tokio::time::advance(std::time::Duration::from_millis(1300)).await;
        assert!(!unverified.has(address(1), 3));
        tokio::time::advance(std::time::Duration::from_millis(100)).await;
        assert!(unverified.has(address(1), 3));
        unverified.charge(address(1), 0);
        assert!(unverified.has(address(1), 0));
    }

    /// Guards against this fault: a stranger with many addresses uses memory without bound.
    #[tokio::test(start_paused = true)]
    async fn addresses_without_end_take_bounded_memory() {
        let unverified = Unverified::default();
        let all = u32::try_from(MAX_ADDRESSES).unwrap() + 10;
        for n in 0..all {
            unverified.charge(address(n), 1);
        }
        assert_eq!(
            unverified.buckets.lock().by_address.len(),
            MAX_ADDRESSES + 1
        );
        assert!(
            !unverified.has(address(all), 1),
            "further addresses share one bucket, which is empty"
        );
        tokio::time::advance(std::time::Duration::from_secs(11)).await;
        assert!(unverified.has(address(all), 1));
        unverified.charge(address(all), 1);
        assert_eq!(unverified.buckets.lock().by_address.len(), 1);
    }
}
