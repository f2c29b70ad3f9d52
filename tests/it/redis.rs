//! Gateways that share a Redis (CONTRACT §7, §8): real servers, real processes, bad links.

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
mod harness;
mod inventory;
mod leaving;
mod links;
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
