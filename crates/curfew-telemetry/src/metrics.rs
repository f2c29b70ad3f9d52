//! Metrics. The crates that count something declare its metrics. This module has the types and the
//! registry.

mod declare;
mod exemplar;
pub(crate) mod histogram;
pub(crate) mod labels;
mod process;
pub(crate) mod registry;
pub(crate) mod runtime;
pub(crate) mod table;
pub(crate) mod tracing;

pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::gauge::Gauge;
pub use prometheus_client::registry::Unit;

#[cfg(test)]
mod tests;
