//! `deploy/` and `k8s/`: what is in them is accepted by the programs it is for, and agrees with the
//! binary.
//!
//! The programs come from `.ci/run`; without one of them a test fails, it is never skipped.

mod alerts;
mod configuration;
mod containers;
mod couplings;
mod edge_logs;
mod examples;
mod guides;
mod haproxy;
mod helm;
mod linters;
mod load_balancer;
mod manifests;
mod metric_names;
mod network;
mod pods;
mod releases;
mod rendering;
mod rollout;
mod secrets;
mod site;
mod tools;
