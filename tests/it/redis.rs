//! Gateways that share a Redis (CONTRACT §7, §8), tested with real servers, real processes and
//! faulty links.

mod admission;
mod bare_keys;
mod chaos;
mod connections;
mod crash;
mod data_loss;
mod failover;
mod fan_out;
mod fence;
mod frozen;
mod gaps;
mod ghosts;
mod harness;
mod inventory;
mod leaving;
mod links;
mod log_lines;
mod managed;
mod names;
mod outage;
mod receipts;
mod records;
mod refusals;
mod reload;
mod restored;
mod skew;
mod storms;
mod topologies;
mod under_load;
