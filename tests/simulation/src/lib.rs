//! The gateway's own code on virtual time, with faults chosen by a seed, and a checker that knows
//! the promise.

pub mod redis;
