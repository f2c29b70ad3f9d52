//! Traces, as a collector receives them.

mod collector;
mod faults;
mod jaeger;
mod reports;
mod ways;
