//! Identity providers, as far as they are asked: whose keys are where, and what they are now.
//!
//! Owns: the HTTP client, its bounds, OpenID Connect discovery, and the tasks that
//! keep fetched keys current. Knows nothing of: tokens, which [`curfew_auth`] verifies with the keys;
//! sessions; the listeners.
//! Start at [`Keepers`].

mod discovery;
pub mod exchange;
mod fetch;
mod keeper;

pub use discovery::ProviderError;
pub use fetch::{FetchError, Fetcher};
pub use keeper::{Fetched, Keepers, fetch_once};
