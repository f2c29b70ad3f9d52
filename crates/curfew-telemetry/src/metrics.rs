//! Metrics. The crates that count declare them; this module holds them.

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
