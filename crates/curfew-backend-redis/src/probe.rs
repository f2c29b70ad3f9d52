//! A single check of Redis with the settings of the configuration, for `curfew check-config
//! --probe`.

use std::time::Duration;

use crate::config::RedisBackendConfig;
use curfew_model::Clock;
use redis::{Value, cmd};

use crate::connect::{Connector, Login};
use crate::fault::Fault;
use crate::layout::{NO_PUSHES, Shard};

/// A server that has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// The address of the server.
    pub address: String,
    /// The difference between the server's clock and this machine's clock.
    pub skew: Duration,
}

/// Finds every primary, authenticates, and tests two permissions that a node needs: to track
/// revocation keys, and to load a script. Writes no data.
///
/// # Errors
///
/// The fault that would prevent a node from using Redis, and the server with the fault.
pub async fn probe(config: &RedisBackendConfig, clock: &dyn Clock) -> Result<Vec<Probed>, String> {
    let server = config
        .redis
        .url
        .parse()
        .map_err(|error| error.to_string())?;
    let connector = Connector::new(config.redis.clone(), server, None);
    let layout = connector
        .layout(&[])
        .await
        .map_err(|fault| fault.to_string())?;
    let mut probed = Vec::new();
    for shard in &layout.shards {
        let address = shard.address.to_string();
        let asked = ask(&connector, shard, config, clock).await;
        let skew = asked.map_err(|fault| format!("{address}: {fault}"))?;
        probed.push(Probed { address, skew });
    }
    Ok(probed)
}

/// Tests one server. Returns the difference of the clocks.
async fn ask(
    connector: &Connector,
    shard: &Shard,
    config: &RedisBackendConfig,
    clock: &dyn Clock,
) -> Result<Duration, Fault> {
    let login = Login::Server;
    let mut connection = connector.connect(&shard.address, login, NO_PUSHES).await?;
    let prefix = format!("{}{{revoked}}:", config.redis.prefix);
    let _: Value = cmd("CLIENT")
        .arg(&["TRACKING", "ON", "BCAST", "PREFIX", &prefix])
        .query_async(&mut connection)
        .await?;
    let _: Value = cmd("SCRIPT")
        .arg(&["LOAD", "return 1"])
        .query_async(&mut connection)
        .await?;
    let (seconds, micros): (u64, u32) = cmd("TIME").query_async(&mut connection).await?;
    let theirs = Duration::new(seconds, micros.saturating_mul(1000));
    Ok(theirs.abs_diff(clock.now()))
}
