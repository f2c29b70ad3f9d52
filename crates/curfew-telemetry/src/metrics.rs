//! The types of metrics, and their registry. Each crate declares its own metrics with
//! [`metrics!`](crate::metrics!).

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
