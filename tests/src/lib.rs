//! Curfew tested through its public door: the binary, its sockets, its admin API, its log.
//!
//! Owns: starting gateways as processes of their own and looking at them from outside.
//! Knows nothing of: any crate of the gateway. Only [`curfew_testkit`], which speaks to sockets.
//! Start at [`Gateway::start`] and [`Settings`].

mod binary;
mod dev;
mod gateway;
mod log;
mod settings;
mod tls;

pub use binary::{Finished, curfew, curfew_binary, curfew_with};
pub use dev::Dev;
pub use gateway::{Gateway, eventually};
pub use log::Log;
pub use settings::{ADMIN_KEY, Settings};
pub use tls::TestCertificate;
