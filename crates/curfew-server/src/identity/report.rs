//! The steps from the request that carries a report to the effect of the report. All kinds of
//! reports share these steps.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use curfew_auth::{Authenticator, KeyWait, VerifyError};
use curfew_telemetry::{Counters, Label, Span};
use http::Request;
use hyper::body::Incoming;
use tracing::Instrument as _;

use super::Reports;
use super::refusal::{ReportRefusal, Undone, answer, refused_span};
use crate::config::Snapshot;
use crate::http::Response;
use crate::http::span::Asked;
use crate::metrics::{ReportKind, ServerMetrics};

/// A kind of report. The trait has the parts that differ between kinds. A value of an implementing
/// type is one received report.
pub(super) trait Report: Sized + Send + Sync + 'static {
    /// The kind, as metrics and the log name it.
    const KIND: ReportKind;
    /// The path of the endpoint, as spans name it.
    const ROUTE: &'static str;
    /// The name of the spans of this kind of report.
    const SPAN: &'static str;
    /// The text of the log line about a refused report.
    const REFUSED: &'static str;

    /// The content of a verified report, which its issuer has signed.
    type Verified: Send;
    /// The effect that a report requests.
    type Order: Send + Sync;
    /// The type of the outcomes that the metric [`Report::counter`] counts.
    type Outcome: Label + From<Undone>;

    /// Verifies the report's token with the known keys. If the key is missing, waits for keys from
    /// the issuer as long as `wait` says.
    fn verify(
        &self,
        authenticator: &Authenticator,
        wait: KeyWait,
    ) -> impl Future<Output = Result<Self::Verified, VerifyError>> + Send;

    /// Returns the order in the verified content.
    ///
    /// # Errors
    ///
    /// `verified` is an error, or the report has no order that this node can carry out.
    fn order(
        self,
        reports: &Reports,
        verified: Result<Self::Verified, VerifyError>,
    ) -> Result<Self::Order, ReportRefusal>;

    /// Returns the parts of an order that its span and the journal of reports show.
    fn name(order: &Self::Order) -> OrderName<'_>;

    /// Carries out an order. `span` is the span of the report.
    fn carry_out(
        order: &Self::Order,
        reports: &Reports,
        settings: &Snapshot,
        span: &Span,
    ) -> impl Future<Output = Result<Self::Outcome, ReportRefusal>> + Send;

    /// Returns the metric that counts the outcomes of this kind of report.
    fn counter(metrics: &ServerMetrics) -> &Counters<Self::Outcome>;

    /// Returns the answer to a report whose order was carried out.
    fn done() -> Response;

    /// Returns the answer to a refused report.
    fn refuse(refused: ReportRefusal) -> Response {
        refused.into_response()
    }

    /// Returns advice to the operator about an outcome that is not a refusal, but may be due to a
    /// mistake in the configuration.
    fn advice(_: Self::Outcome) -> Option<&'static str> {
        None
    }
}

/// The issuer and the event of an order.
pub(super) struct OrderName<'a> {
    /// The configured name of the issuer.
    pub(super) issuer: &'a str,
    /// The type of the event; `None` for a kind of report that has no types of events.
    pub(super) event: Option<&'static str>,
    /// True if the order ends access. The order's span is then recorded regardless of the sampling
    /// ratio.
    pub(super) ends_access: bool,
}

/// The request that carries a report or a token revocation.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    pub(super) asked: Asked,
    pub(super) began: SystemTime,
    /// The address from which the request came.
    pub(super) address: IpAddr,
    /// The settings that apply to the report: the settings when the request arrived or, for a
    /// stored report, the settings when the key arrived.
    pub(super) settings: Snapshot,
}

impl Reports {
    /// Returns the parts of `request` that a report needs. `address` is the address from which the
    /// request came.
    pub(super) fn delivery(
        &self,
        request: &Request<Incoming>,
        address: IpAddr,
        settings: Snapshot,
    ) -> Delivery {
        let tracer = self.metrics.tracer();
        Delivery {
            asked: Asked::of(tracer, request),
            began: tracer.now(),
            address,
            settings,
        }
    }

    /// Answers a request. `received` is the report that the request carries, or the refusal of the
    /// request.
    pub(super) async fn take_report<R: Report>(
        self: &Arc<Self>,
        received: Result<R, ReportRefusal>,
        delivery: &Delivery,
    ) -> Response {
        let judged = match received {
            Ok(report) => self.judge_report(report, delivery).await,
            Err(refused) => Err(refused),
        };
        match judged {
            Ok(response) => response,
            Err(refused) => self.conclude::<R>(Err(refused), delivery).await,
        }
    }

    /// Carries out `order`, or refuses the report if `order` is a refusal. Counts the outcome,
    /// notes it in the journal of reports, records its span, and returns the answer to the report.
    pub(super) async fn conclude<R: Report>(
        &self,
        order: Result<R::Order, ReportRefusal>,
        delivery: &Delivery,
    ) -> Response {
        let tracer = self.metrics.tracer();
        let asked = &delivery.asked;
        let (span, result) = match order {
            Err(refused) => {
                self.charge(delivery, &refused);
                let span = refused_span(tracer, &refused, R::SPAN, asked, delivery.began);
                (span, Err(refused))
            }
            Ok(order) => {
                let name = R::name(&order);
                let mut span = match name.ends_access {
                    true => tracer.always(R::SPAN, asked.origin.clone()),
                    false => tracer.request(R::SPAN, asked.origin.clone()),
                };
                span.began(delivery.began);
                asked.describe(&mut span);
                if let Some(event) = name.event {
                    span.set("curfew.event.type", event);
                }
                let carrying_out = R::carry_out(&order, self, &delivery.settings, &span);
                let result = carrying_out.instrument(span.scope()).await;
                self.note_report::<R>(&name, &result);
                (span, result)
            }
        };
        R::counter(&self.metrics).inc(outcome::<R>(&result));
        if let Err(refused) = &result {
            self.note_refused(R::KIND, refused);
        }
        let result = result.map(|_| R::done());
        answer(span, R::ROUTE, R::REFUSED, result, R::refuse)
    }

    /// Notes the outcome of a carried-out order in the journal of reports. A report without a valid
    /// order is noted by [`Reports::note_refused`] instead.
    fn note_report<R: Report>(
        &self,
        name: &OrderName<'_>,
        result: &Result<R::Outcome, ReportRefusal>,
    ) {
        let authenticator = &self.context.authenticator;
        let report = name.event.unwrap_or(R::KIND.as_str());
        let outcome = R::Outcome::VALUES[outcome::<R>(result).index()];
        match result.as_ref().ok().and_then(|outcome| R::advice(*outcome)) {
            Some(advice) => authenticator.note_failed_report(name.issuer, report, outcome, advice),
            None => authenticator.note_report(name.issuer, report, outcome),
        }
    }
}

fn outcome<R: Report>(result: &Result<R::Outcome, ReportRefusal>) -> R::Outcome {
    match result {
        Ok(outcome) => *outcome,
        Err(refused) => refused.undone().into(),
    }
}
