//! Identity providers as the source of keys: discovery of a provider's key set, and upkeep of its
//! keys.
//!
//! Owns: the HTTP client with its bounds, OpenID Connect discovery, and the tasks that keep fetched
//! keys current. Knows nothing of: tokens, which [`curfew_auth`] verifies; sessions; the listeners.
//! Start at [`Keepers`].

mod discovery;
pub mod exchange;
mod fetch;
mod keeper;

pub use discovery::ProviderError;
pub use fetch::{FetchError, Fetcher};
pub use keeper::{Fetched, Keepers, fetch_once};
