//! Tests of Curfew through its public interfaces: the binary, its sockets, its admin API, its log.
//!
//! Owns: starting gateways and Redis servers as separate processes, causing faults on the links
//! between them, and observing them from outside. Knows nothing of: any crate of the gateway. It
//! uses [`curfew_testkit`], which speaks to sockets, and [`curfew_model_check`], which checks the
//! logs of gateways. Start at [`Gateway::start`] and [`Settings`]; for several gateways at
//! [`Cluster::start`], [`Redis`], [`Proxy`] and [`Tape`]; for load at [`Audience`], [`Flood`] and
//! [`Witness`].

mod attempt;
mod binary;
mod browser;
mod cluster;
mod dev;
mod dice;
mod environment;
mod gateway;
mod inbox;
mod keycloak;
mod load;
mod log;
mod openid;
mod provider;
mod proxy;
mod redis;
mod resp;
mod settings;
mod tape;
mod tls;
mod topology;

pub use attempt::Attempt;
pub use binary::{Finished, curfew, curfew_binary, curfew_with};
pub use cluster::{Cluster, Publisher, revocation_key};
pub use dev::Dev;
pub use dice::Dice;
pub use gateway::{Gateway, eventually, eventually_within, signal};
pub use inbox::Inbox;
pub use keycloak::{CLIENT, Keycloak, Login, Realm};
pub use load::{Audience, Executed, Flood, Late, Mark, Moment, Queues, WITNESS, Witness};
pub use log::Log;
pub use openid::{OpenIdProvider, SignedIn};
pub use provider::{Manner, Paths, Provider};
pub use proxy::{Flow, Kind, Link, Proxy};
pub use redis::{Redis, free_port, redis_program};
pub use resp::{Reply, Resp};
pub use settings::{ADMIN_KEY, Settings};
pub use tape::{LEASE, Tape, TapedFrame};
pub use tls::{TestAuthority, TestCertificate};
pub use topology::{Pair, RedisCluster, Sentinel, SlotMove};
