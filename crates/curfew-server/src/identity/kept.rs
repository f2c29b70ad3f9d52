//! Stores reports that cannot be verified yet, because a key of their issuer is missing and the
//! node may not fetch the issuer's keys again yet. A sender may send a report only once, so the
//! node stores the report until the next fetch succeeds. Strangers can send reports with unknown
//! keys too, so the number of stored reports is limited, and each address gets a fair share.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use curfew_auth::{KeyWait, MissingKeys, Unverified, VerifyError};
use curfew_model::Repeats;
use curfew_node::address_group;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Reports;
use super::refusal::{ReportRefusal, Undone};
use super::report::{Delivery, Report};
use crate::config::Snapshot;
use crate::http::Response;
use crate::metrics::ReportKind;

/// Maximum number of stored reports of one issuer.
const MAX_PER_ISSUER: usize = 1_000;

/// Maximum time for which a report is stored. A logout token is valid for the same time.
const PATIENCE: Duration = Duration::from_secs(600);

/// Maximum time for which the answer to a stored report waits for the outcome. After this time, the
/// answer says that the report is stored.
const ANSWER_WAIT: Duration = Duration::from_secs(3);

/// The stored reports of each issuer, by the issuer's configured name.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<HashMap<Arc<str>, Issuer>>);

#[derive(Debug, Default)]
struct Issuer {
    /// The stored reports, oldest first.
    waiting: Vec<Waiting>,
    /// The number that the next stored report gets.
    next: u64,
    lines: LogLines,
}

/// The log lines about the reports of one issuer. Each of the two lines is logged at most once a
/// minute.
#[derive(Debug, Default)]
struct LogLines {
    kept: Repeats<Line>,
    lost: Repeats<ReportKind>,
}

/// A log line about a report that was stored.
#[derive(Debug)]
struct Line {
    report: ReportKind,
    waiting: usize,
    retry_after: Duration,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    address: IpAddr,
    displaced: CancellationToken,
}

/// The slot of a stored report. Dropping this value frees the slot.
#[derive(Debug)]
struct Place {
    reports: Arc<Reports>,
    issuer: Arc<str>,
    number: u64,
    displaced: CancellationToken,
}

impl Drop for Place {
    fn drop(&mut self) {
        let authenticator = &self.reports.context.authenticator;
        self.reports.kept.with(&self.issuer, |issuer| {
            issuer.waiting.retain(|one| one.number != self.number);
            // The count is noted under the lock. Otherwise an earlier count could replace a later
            // one.
            authenticator.note_waiting_reports(&self.issuer, issuer.waiting.len());
        });
    }
}

impl Kept {
    /// Logs the stored and lost reports that no log line has counted yet. A line is logged only if
    /// the last line of its kind is at least a minute old.
    pub(super) fn tell_rest(&self) {
        for (name, issuer) in &*self.0.lock() {
            if let Some((times, line)) = issuer.lines.kept.rest() {
                tell_kept(name, times, &line);
            }
            if let Some((times, report)) = issuer.lines.lost.rest() {
                tell_lost(name, times, report);
            }
        }
    }

    fn with<T>(&self, issuer: &Arc<str>, run: impl FnOnce(&mut Issuer) -> T) -> T {
        // The lock is held for one closure, and never across an await.
        let mut issuers = self.0.lock();
        run(issuers.entry(Arc::clone(issuer)).or_default())
    }
}

impl Issuer {
    /// Takes a slot for a report from `address`. Returns the slot's number, the token that is
    /// cancelled if another report displaces this report, and the number of taken slots. If no slot
    /// is free, the address that has the most slots loses its newest slot, provided that it has at
    /// least two slots more than `address`. Otherwise no slot is taken, and the result is `None`.
    fn place(&mut self, address: IpAddr) -> Option<(u64, CancellationToken, usize)> {
        let address = address_group(address);
        if self.waiting.len() >= MAX_PER_ISSUER {
            self.make_room(address)?;
        }
        let (number, displaced) = (self.next, CancellationToken::new());
        self.next += 1;
        self.waiting.push(Waiting {
            number,
            address,
            displaced: displaced.clone(),
        });
        Some((number, displaced, self.waiting.len()))
    }

    fn make_room(&mut self, address: IpAddr) -> Option<()> {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for one in &self.waiting {
            *counts.entry(one.address).or_default() += 1;
        }
        let own = counts.get(&address).copied().unwrap_or_default();
        let (most, count) = counts.into_iter().max_by_key(|(_, count)| *count)?;
        if count <= own + 1 {
            return None;
        }
        let newest = self.waiting.iter().rposition(|one| one.address == most)?;
        self.waiting.remove(newest).displaced.cancel();
        Some(())
    }
}

impl Reports {
    /// Verifies a report, carries out its order, and returns the answer. If only the issuer's key
    /// is missing, the report is stored until the issuer's keys are fetched. The node then carries
    /// out the order even if the sender has disconnected.
    ///
    /// # Errors
    ///
    /// The issuer's key is missing. If `is_kept` is set, the report is stored and its outcome is
    /// open. Otherwise no slot was free, or the report has lost its slot.
    pub(super) async fn judge_report<R: Report>(
        self: &Arc<Self>,
        report: R,
        delivery: &Delivery,
    ) -> Result<Response, ReportRefusal> {
        let verified = report
            .verify(&self.context.authenticator, KeyWait::Brief)
            .await;
        let missing = match self.context.judge(verified) {
            Err(VerifyError::Unknown(Unverified::Keys(missing))) if missing.may_be_good => missing,
            judged => {
                let order = report.order(self, judged);
                return Ok(self.conclude::<R>(order, delivery).await);
            }
        };
        let place = self.place(R::KIND, delivery.address, &missing);
        let refused = ReportRefusal::unverified(&Unverified::Keys(missing));
        let Some(place) = place else {
            return Err(refused);
        };
        let (told, answer) = oneshot::channel();
        let (reports, mut delivery) = (Arc::clone(self), delivery.clone());
        // A task of the node handles the stored report, because the future of the request is
        // dropped if the sender disconnects.
        self.context.node.spawn(async move {
            let verified = tokio::select! {
                verified = report.verify(&reports.context.authenticator, KeyWait::NextAnswer) => Some(verified),
                () = place.displaced.cancelled() => None,
                () = time::sleep(PATIENCE) => None,
            };
            match verified {
                Some(verified) => {
                    // The slot is freed before the order is carried out, because the order waits
                    // for the backend.
                    drop(place);
                    // The request's settings may be minutes old, so the current settings replace
                    // them.
                    delivery.settings = Snapshot::take(&reports.context);
                    let order = report.order(&reports, reports.context.judge(verified));
                    let response = reports.conclude::<R>(order, &delivery).await;
                    // `send` fails if the HTTP request has ended. The report was still carried out
                    // or refused, so the failure is ignored.
                    drop(told.send(response));
                }
                None => {
                    R::counter(&reports.metrics).inc(Undone::Lost.into());
                    reports.tell_lost(R::KIND, &place.issuer);
                }
            }
        });
        match time::timeout(ANSWER_WAIT, answer).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(_)) => Err(refused),
            Err(_) => Err(ReportRefusal {
                is_kept: true,
                description: "the issuer's keys are not available at the moment; the report is kept until the keys are available".to_owned(),
                ..refused
            }),
        }
    }

    fn place(
        self: &Arc<Self>,
        report: ReportKind,
        address: IpAddr,
        missing: &MissingKeys,
    ) -> Option<Place> {
        let authenticator = &self.context.authenticator;
        let (placed, line) = self.kept.with(&missing.issuer, |issuer| {
            let placed = issuer.place(address);
            authenticator.note_waiting_reports(&missing.issuer, issuer.waiting.len());
            let line = placed.as_ref().and_then(|(_, _, waiting)| {
                issuer.lines.kept.note_event(Line {
                    report,
                    waiting: *waiting,
                    retry_after: missing.retry_after,
                })
            });
            (placed, line)
        });
        let Some((number, displaced, _)) = placed else {
            self.tell_lost(report, &missing.issuer);
            return None;
        };
        if let Some((times, line)) = line {
            tell_kept(&missing.issuer, times, &line);
        }
        Some(Place {
            reports: Arc::clone(self),
            issuer: Arc::clone(&missing.issuer),
            number,
            displaced,
        })
    }

    /// Logs that a report is lost, because the issuer's keys did not arrive in time, or because no
    /// slot was free for the report.
    fn tell_lost(&self, report: ReportKind, issuer: &Arc<str>) {
        let due = |issuer: &mut Issuer| issuer.lines.lost.note_event(report);
        if let Some((times, report)) = self.kept.with(issuer, due) {
            tell_lost(issuer, times, report);
        }
    }
}

fn tell_kept(issuer: &str, times: u64, line: &Line) {
    info!(
        issuer,
        report = line.report.as_str(),
        waiting = line.waiting,
        times,
        retry_after_ms = line.retry_after.as_millis() as u64,
        "a report is kept until its issuer's keys are fetched"
    );
}

fn tell_lost(issuer: &str, times: u64, report: ReportKind) {
    warn!(
        issuer,
        report = report.as_str(),
        times,
        "a report that could not be verified is given up: its issuer's keys were not fetched in time, or too many reports wait for the keys"
    );
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(n: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, n))
    }

    /// Guards against this fault: a stranger's invalid reports take all slots, and a genuine report
    /// is lost.
    #[test]
    fn the_address_that_has_most_places_gives_them_up_for_others() {
        let mut issuer = Issuer::default();
        let flood: Vec<_> = (0..MAX_PER_ISSUER)
            .map(|_| issuer.place(address(1)).unwrap().1)
            .collect();
        assert!(
            issuer.place(address(1)).is_none(),
            "the same address gets no slot beyond the maximum"
        );
        let mut real = Vec::new();
        while let Some((_, displaced, count)) = issuer.place(address(2)) {
            assert_eq!(count, MAX_PER_ISSUER);
            real.push(displaced);
        }
        assert_eq!(
            real.len(),
            MAX_PER_ISSUER / 2,
            "each of the two addresses has half of the slots"
        );
        assert!(!real.iter().any(CancellationToken::is_cancelled));
        let given_up = flood.iter().filter(|one| one.is_cancelled()).count();
        assert_eq!(given_up, real.len());
    }
}
