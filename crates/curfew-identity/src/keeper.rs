//! Upkeep of fetched keys. One task per issuer fetches the issuer's keys, so that an issuer has at
//! most one fetch at a time.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use curfew_auth::{Authenticator, RemoteKeys};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{Fetcher, ProviderError};

/// A function that spawns a task.
type Spawn = dyn Fn(Pin<Box<dyn Future<Output = ()> + Send>>) + Send + Sync;

/// A callback for each fetch that has ended.
type FetchListener = dyn Fn(Fetched<'_>) + Send + Sync;

/// An ended fetch.
#[derive(Debug, Clone, Copy)]
pub struct Fetched<'a> {
    /// The configured name of the issuer.
    pub issuer: &'a str,
    /// The duration of the fetch, including the fetch of the OpenID configuration.
    pub took: Duration,
    /// The number of keys that the fetch put in force, or the name of the fault.
    pub keys: Result<usize, &'static str>,
}

/// The tasks that fetch keys, one for each issuer whose keys are fetched.
pub struct Keepers {
    authenticator: Arc<Authenticator>,
    fetcher: Fetcher,
    spawn: Box<Spawn>,
    listener: Arc<FetchListener>,
    /// The issuers with a task, each with the cancellation token that stops its task.
    kept: Mutex<Vec<(Arc<RemoteKeys>, CancellationToken)>>,
}

impl Keepers {
    /// Makes a value that keeps the keys of the issuers of `authenticator` current.
    /// [`Keepers::update`] starts the tasks for this, through `spawn`. `listener` receives each
    /// ended fetch, successful or not.
    pub fn new(
        authenticator: Arc<Authenticator>,
        fetcher: Fetcher,
        spawn: impl Fn(Pin<Box<dyn Future<Output = ()> + Send>>) + Send + Sync + 'static,
        listener: impl Fn(Fetched<'_>) + Send + Sync + 'static,
    ) -> Self {
        Self {
            authenticator,
            fetcher,
            spawn: Box::new(spawn),
            listener: Arc::new(listener),
            kept: Mutex::default(),
        }
    }

    /// Starts and stops tasks so that they match the issuers in force. Call it after each change of
    /// issuers.
    pub fn update(&self) {
        // The lock is held throughout, so that concurrent updates start only one task per issuer.
        // Nothing is awaited meanwhile.
        let mut kept = self.kept.lock();
        let remotes = self.authenticator.remotes();
        kept.retain(|(old, stop)| {
            let stays = remotes.iter().any(|remote| Arc::ptr_eq(remote, old));
            if !stays {
                stop.cancel();
            }
            stays
        });
        for remote in remotes {
            if kept.iter().any(|(old, _)| Arc::ptr_eq(old, &remote)) {
                continue;
            }
            let stop = CancellationToken::new();
            let keeper = Keeper {
                authenticator: Arc::clone(&self.authenticator),
                fetcher: self.fetcher.clone(),
                remote: Arc::clone(&remote),
                listener: Arc::clone(&self.listener),
            };
            let stopped = stop.clone();
            (self.spawn)(Box::pin(async move {
                tokio::select! {
                    () = keeper.keep() => {}
                    () = stopped.cancelled() => {}
                }
            }));
            kept.push((remote, stop));
        }
    }
}

impl Drop for Keepers {
    fn drop(&mut self) {
        for (_, stop) in self.kept.get_mut() {
            stop.cancel();
        }
    }
}

impl fmt::Debug for Keepers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.kept.lock();
        let issuers: Vec<&str> = kept.iter().map(|(remote, _)| &*remote.issuer).collect();
        f.debug_struct("Keepers")
            .field("issuers", &issuers)
            .finish()
    }
}

/// Fetches the keys of every issuer once, for short-lived commands. Returns each failure with the
/// configured name of the issuer.
pub async fn fetch_once(
    authenticator: &Authenticator,
    fetcher: &Fetcher,
) -> Vec<(Arc<str>, ProviderError)> {
    let mut failed = Vec::new();
    for remote in authenticator.remotes() {
        if let Err(error) = fetch(authenticator, fetcher, &remote).await {
            failed.push((Arc::clone(&remote.issuer), error));
        }
    }
    failed
}

/// Fetches an issuer's keys and puts them in force, or records the failure.
async fn fetch(
    authenticator: &Authenticator,
    fetcher: &Fetcher,
    remote: &Arc<RemoteKeys>,
) -> Result<usize, ProviderError> {
    let set = fetcher.key_set(remote).await;
    let installed = set.and_then(|set| Ok(authenticator.install(remote, &set)?));
    installed.inspect_err(|error| remote.failed(error.to_string()))
}

/// The task of one issuer.
struct Keeper {
    authenticator: Arc<Authenticator>,
    fetcher: Fetcher,
    remote: Arc<RemoteKeys>,
    listener: Arc<FetchListener>,
}

impl Keeper {
    async fn keep(self) {
        let issuer = &self.remote.issuer;
        let mut last: Option<Result<usize, String>> = None;
        loop {
            self.remote.due().await;
            let began = Instant::now();
            let fetched = fetch(&self.authenticator, &self.fetcher, &self.remote).await;
            (self.listener)(Fetched {
                issuer,
                took: began.elapsed(),
                keys: fetched.as_ref().copied().map_err(ProviderError::error_type),
            });
            let outcome = fetched.map_err(|error| error.to_string());
            // A repeated outcome is logged at `debug` only, because a provider may be unavailable
            // for long.
            let said = last.as_ref() == Some(&outcome);
            match &outcome {
                Ok(keys) if said => debug!(%issuer, keys, "keys fetched"),
                Ok(keys) => info!(%issuer, keys, "keys fetched"),
                Err(why) if said => debug!(%issuer, %why, "keys not fetched"),
                Err(why) => warn!(
                    %issuer,
                    %why,
                    "keys not fetched"
                ),
            }
            last = Some(outcome);
        }
    }
}
