//! The programs that use the files in `deploy/` and `k8s/` accept them, and the files agree with
//! the binary.
//!
//! `.ci/run` installs the programs. If a program is missing, its test fails. No test is skipped.

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
