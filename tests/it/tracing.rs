//! Traces, as a collector receives them from nodes.

mod admissions;
mod collector;
mod faults;
mod jaeger;
mod keys;
mod outages;
mod recipes;
mod reports;
mod state;
mod told;
mod trials;
mod variables;
mod ways;
