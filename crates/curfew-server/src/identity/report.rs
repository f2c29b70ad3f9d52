//! A report of an identity provider, from its request to its effect: the steps that all kinds
//! share.

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

/// A kind of report, with the parts that differ between kinds. A value is one received report.
pub(super) trait Report: Sized + Send + Sync + 'static {
    /// The kind's name in metrics and in the log.
    const KIND: ReportKind;
    /// The endpoint's path in spans.
    const ROUTE: &'static str;
    /// The name of the kind's spans.
    const SPAN: &'static str;
    /// The log line about a refused report.
    const REFUSED: &'static str;

    /// The content that the report's issuer has signed.
    type Verified: Send;
    /// The effect that the report asks for.
    type Order: Send + Sync;
    /// The outcome that metrics count.
    type Outcome: Label + From<Undone>;

    /// Verifies the report's token with the known keys, or with keys that arrive from the issuer
    /// during `wait`.
    fn verify(
        &self,
        authenticator: &Authenticator,
        wait: KeyWait,
    ) -> impl Future<Output = Result<Self::Verified, VerifyError>> + Send;

    /// Reads the order from the verified content.
    ///
    /// # Errors
    ///
    /// The token is invalid, or the report asks for nothing that this node can do.
    fn order(
        self,
        reports: &Reports,
        verified: Result<Self::Verified, VerifyError>,
    ) -> Result<Self::Order, ReportRefusal>;

    /// The parts of an order that appear in spans and in the journal of reports.
    fn name(order: &Self::Order) -> OrderName<'_>;

    /// Carries out an order.
    fn carry_out(
        order: &Self::Order,
        reports: &Reports,
        settings: &Snapshot,
        span: &Span,
    ) -> impl Future<Output = Result<Self::Outcome, ReportRefusal>> + Send;

    /// The metric of the kind's outcomes.
    fn counter(metrics: &ServerMetrics) -> &Counters<Self::Outcome>;

    /// The answer to a report that took effect.
    fn done() -> Response;

    /// The answer to a refused report.
    fn refuse(refused: ReportRefusal) -> Response {
        refused.into_response()
    }

    /// Advice to the operator about an outcome that is not a refusal, but may come from a mistake
    /// in the configuration.
    fn advice(_: Self::Outcome) -> Option<&'static str> {
        None
    }
}

/// The issuer and the event of an order.
pub(super) struct OrderName<'a> {
    /// The configured name of the issuer.
    pub(super) issuer: &'a str,
    /// The type of the event, if a kind of report has several.
    pub(super) event: Option<&'static str>,
    /// True if the order ends access. The order's span is then recorded regardless of the sampling
    /// ratio.
    pub(super) ends_access: bool,
}

/// The request that brought a report.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    pub(super) asked: Asked,
    pub(super) began: SystemTime,
    /// The address that the request came from.
    pub(super) address: IpAddr,
    /// The settings that apply to the report: the request's settings or, after a wait, the settings
    /// in force when the key arrived.
    pub(super) settings: Snapshot,
}

impl Reports {
    /// The delivery of a report by a request from `address`.
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

    /// Answers the request that brought a report.
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

    /// Carries out the order of a report, or refuses a report that has no valid order. Counts,
    /// notes and traces the outcome, and returns the answer to the report.
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

    /// Notes the outcome of an order in the journal. [`Reports::note_refused`] notes refusals.
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
