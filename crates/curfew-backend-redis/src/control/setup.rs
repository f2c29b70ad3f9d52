//! The steps from a connection to its lease: turn tracking on, read the epoch, write revocations
//! back, compare sessions.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::config::OnDataLoss;
use curfew_model::{Revocation, RevocationKey, boottime};
use redis::{PushInfo, Value, cmd, pipe};
use tokio::time::{self, Instant};
use tracing::{error, warn};

use super::known_revocations::Known;
use super::pushes::Pushes;
use super::read::{SpelledKey, groups, read_watched};
use super::reconcile::sweep_interval;
use super::{Control, Generation, RESETUP};
use crate::connect::Login;
use crate::core::random_id;
use crate::fault::Fault;
use crate::layout::check_primary;
use crate::slots::Slot;

/// Oldest version of Redis that has every command that Curfew uses (`PEXPIREAT` with `GT`,
/// `PEXPIRETIME`, sharded publications).
const OLDEST: (u32, u32) = (7, 0);

/// Maximum number of revocations written back in one pipeline.
const BATCH: usize = 1000;

/// Time for which tokens issued before a loss of data are refused (`on_data_loss = "reauth"`). It
/// is longer than the lifetime of any sensible token.
const REAUTH_FOR: Duration = Duration::from_secs(400 * 24 * 3600);

/// Delay after a loss of data before sessions are compared and admitted. It gives every connected
/// node time to notice the loss and to write back the revocations that it knows.
const OTHERS_WRITE_BACK: Duration = Duration::from_secs(1);

/// Maximum number of attempts to write a new epoch while other nodes write one.
const EPOCH_ATTEMPTS: usize = 5;

/// Identifies one run of one server with one replication history. A promoted replica counts as
/// another primary. The same server after a restart counts as another primary too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Primary {
    run_id: String,
    replication_id: String,
}

/// The properties of a server, from `INFO`.
#[derive(Debug, PartialEq, Eq)]
struct Server {
    primary: Primary,
    fencing: Option<&'static str>,
    /// The risks of the server's settings, as log lines.
    risks: Vec<&'static str>,
}

/// Value of `fencing` for a server that has replicas and no fence against a replaced primary.
const UNFENCED: &str = "none";

impl Control {
    /// Makes a new control connection to the primary of the revocations.
    pub(super) async fn connect(&mut self) -> Result<Generation, Fault> {
        let core = Arc::clone(&self.core);
        let layout = core.connector.layout(&self.connections.addresses()).await?;
        self.connections.update(&layout);
        let address = layout
            .primary_of(Slot::REVOKED)
            .ok_or_else(|| Fault::NoPrimary("no primary serves the revocations' slot".to_owned()))?
            .clone();
        let pushes = Pushes::new(Arc::clone(&core));
        let taking = Arc::clone(&pushes);
        let take = move |push: PushInfo| {
            taking.take(push);
            Ok::<(), ()>(())
        };
        let mut connection = core
            .connector
            .connect(&address, Login::Server, Some(take))
            .await?;
        self.generation += 1;
        core.metrics.backend_generations.inc();
        self.step("connect").log();
        let sent_at = boottime();
        let (role, info, time): (Vec<Value>, String, (u64, u64)) = pipe()
            .cmd("ROLE")
            .cmd("INFO")
            .cmd("TIME")
            .query_async(&mut connection)
            .await?;
        self.compare_clocks(time, sent_at);
        self.check_role(&role)?;
        let server = check_server(&info)?;
        // The risks are logged once in each run of a server, because connections may break often.
        if self.told_of.as_ref() != Some(&server.primary) {
            for risk in &server.risks {
                warn!(redis = %address, "{risk}");
            }
            self.told_of = Some(server.primary.clone());
        }
        if core.status.set_fencing(server.fencing) && server.fencing == Some(UNFENCED) {
            warn!(
                "redis has no fencing, so a replaced primary keeps accepting revocations for a while: set min-replicas-to-write in redis"
            );
        }
        // From here on Redis pushes the name of every touched revocation key. Tracking starts
        // before any read, because a key that is touched in between must not be missed.
        cmd("CLIENT")
            .arg("TRACKING")
            .arg("ON")
            .arg("BCAST")
            .arg("PREFIX")
            .arg(core.keys.revoked_prefix())
            // This prefix tracks keys without the braces. Any server of a cluster may have them.
            .arg("PREFIX")
            .arg(core.keys.unbraced_prefix())
            .query_async::<()>(&mut connection)
            .await?;
        self.known_revocations.set_pushes(Arc::downgrade(&pushes));
        self.step("track").log();
        let now = Instant::now();
        Ok(Generation {
            address,
            connection,
            pushes,
            primary: server.primary,
            next_heartbeat: now,
            next_sweep: now,
            sweep: Vec::new(),
            gone: Vec::new(),
            recall: Vec::new(),
            learn: Some(0),
            others_turn: false,
            set_up_at: now,
        })
    }

    /// Fails if the server is not a primary. Records the time if the server has replicas.
    pub(super) fn check_role(&mut self, role: &[Value]) -> Result<(), Fault> {
        check_primary(role)?;
        if matches!(role.get(2), Some(Value::Array(replicas)) if !replicas.is_empty()) {
            self.replicas_seen_at = Some(Instant::now());
        }
        Ok(())
    }

    /// Does everything up to the first lease on this connection.
    pub(super) async fn set_up(&mut self, generation: &mut Generation) -> Result<(), Fault> {
        generation.set_up_at = Instant::now();
        // `find_track` comes before the first read: this setup must notice any later loss of track.
        generation.pushes.find_track();
        let lost = self.settle_epoch(generation).await?;
        // The data may be lost, or belong to another server. The node must check its copies of
        // streams before it uses them again.
        self.core.events.doubt_streams();
        // `known` is set only at the end, when the node is synced with the primary. If the
        // connection breaks before the end, the primary must count as unknown in the next setup.
        let is_known = self.known.as_ref() == Some(&generation.primary);
        if !is_known {
            // The heartbeat and the node's registration may be lost together with the data.
            self.registered = false;
            self.core.status.forget_registration();
            self.reassert(generation).await?;
        }
        if lost {
            // Other nodes may know revocations that this node does not know.
            time::sleep(OTHERS_WRITE_BACK).await;
        }
        // Sessions are compared first: the heartbeat's lease permits delivery to all of them.
        self.reconcile(generation).await?;
        self.beat(generation).await?;
        if generation.pushes.has_lost_track() {
            // Revocations may have changed again, so the next step is another setup.
            return Ok(());
        }
        self.step("synced").log();
        self.known = Some(generation.primary.clone());
        generation.recall = self.known_revocations.written();
        if !is_known {
            // Records may be lost with the data, or may not have reached a promoted replica.
            self.rewrite = self.core.local.sessions();
        }
        // Every session was compared just now.
        self.comparison.is_done();
        generation.sweep = Vec::new();
        generation.next_sweep = Instant::now() + sweep_interval();
        Ok(())
    }

    /// Ends the lease until every session has been compared again, because any revocation may have
    /// changed.
    pub(super) async fn set_up_again(&mut self, generation: &mut Generation) -> Result<(), Fault> {
        self.core.lease.expire();
        self.core.metrics.backend_synced.set(0);
        self.step("null_push").log();
        // Keys touched meanwhile may be found only in the index.
        generation.learn = Some(0);
        // The setup is delayed, so that repeated losses of track do not keep the node busy.
        let earliest = generation.set_up_at + RESETUP;
        if earliest > Instant::now() {
            time::sleep_until(earliest).await;
        }
        self.set_up(generation).await
    }

    pub(super) async fn read_epoch(
        &self,
        generation: &mut Generation,
    ) -> Result<Option<String>, Fault> {
        let epoch = cmd("GET")
            .arg(self.core.keys.epoch())
            .query_async(&mut generation.connection)
            .await?;
        Ok(epoch)
    }

    /// Reads the epoch of the data, and begins a new one if there is none. Returns true if data
    /// that this node knows may be lost. The primary then counts as unknown again.
    async fn settle_epoch(&mut self, generation: &mut Generation) -> Result<bool, Fault> {
        let found = self.read_epoch(generation).await?;
        let lost = self.epoch.is_some() && found != self.epoch;
        let outcome = match (&found, lost) {
            (_, true) => "lost",
            (Some(_), false) => "same",
            (None, false) => "first",
        };
        self.step("epoch").outcome(outcome).log();
        if lost {
            self.core.metrics.backend_data_losses.inc();
            error!(
                on_data_loss = ?self.core.config.on_data_loss,
                revocations = self.known_revocations.len(),
                "redis has lost its data"
            );
            // `known` is reset before the new epoch is remembered. If the connection breaks from
            // here on, the next connection must still write the revocations back.
            self.known = None;
            generation.gone.clear();
        }
        if lost && self.core.config.on_data_loss == OnDataLoss::Reauth {
            self.raise_floor(generation).await?;
            self.step("floor").log();
            return Ok(true);
        }
        if found.is_some() {
            self.epoch = found;
        } else {
            self.begin_epoch(generation).await?;
            self.step("new_epoch").log();
        }
        Ok(lost)
    }

    /// Begins a new epoch. If two nodes try at once, the epoch of the first node stays.
    async fn begin_epoch(&mut self, generation: &mut Generation) -> Result<(), Fault> {
        let key = self.core.keys.epoch();
        cmd("SET")
            .arg(&key)
            .arg(random_id())
            .arg("NX")
            .query_async::<Option<String>>(&mut generation.connection)
            .await?;
        self.epoch = self.read_epoch(generation).await?;
        match self.epoch {
            Some(_) => Ok(()),
            None => Err(Fault::Unexpected("SET of the epoch")),
        }
    }

    /// Raises the floor, which refuses every token issued until now, and begins a new epoch. One
    /// transaction does both, because another node must not see the new epoch without the floor.
    async fn raise_floor(&mut self, generation: &mut Generation) -> Result<(), Fault> {
        let (epoch, all) = (
            self.core.keys.epoch(),
            self.core.keys.revoked(&RevocationKey::All),
        );
        let now = u64::try_from(self.redis_now_ms(generation).await? / 1000).unwrap_or_default();
        let connection = &mut generation.connection;
        for _ in 0..EPOCH_ATTEMPTS {
            cmd("WATCH")
                .arg(&epoch)
                .arg(&all)
                .query_async::<()>(connection)
                .await?;
            let found: Option<String> = cmd("GET").arg(&epoch).query_async(connection).await?;
            if found.is_some() && found != self.epoch {
                // Another node has already raised the floor and begun the epoch.
                cmd("UNWATCH").query_async::<()>(connection).await?;
                self.epoch = found;
                return Ok(());
            }
            let there = read_watched(connection, &all).await?;
            let floor = Revocation::reauth(now);
            let there = there.map(|known| known.revocation());
            let floor = match &there {
                // A revocation of every token covers more than a floor, and must not be extended to
                // the floor's duration.
                Some(there) if there.before.is_none() => None,
                // The merge never lowers the floor.
                Some(there) => Some(there.merge(floor)),
                None => Some(floor),
            };
            let new = random_id();
            let mut transaction = pipe();
            transaction.atomic().cmd("SET").arg(&epoch).arg(&new);
            if let Some(floor) = floor {
                transaction
                    .cmd("SET")
                    .arg(&all)
                    .arg(super::operations::value_of(&floor, None))
                    .arg("EX")
                    .arg(REAUTH_FOR.as_secs());
            }
            let written: Option<Vec<Value>> = transaction.query_async(connection).await?;
            if written.is_some() {
                self.epoch = Some(new);
                return Ok(());
            }
        }
        Err(Fault::Unexpected("EXEC of the floor"))
    }

    /// Writes back every revocation that this node knows and Redis lacks.
    async fn reassert(&mut self, generation: &mut Generation) -> Result<(), Fault> {
        let now = self.redis_now_ms(generation).await?;
        let known = self.known_revocations.in_force(now);
        let index = self.core.keys.revoked_index();
        let mut written = 0;
        let size =
            |(written, known): &(SpelledKey, Known)| written.member().len() * 2 + known.value.len();
        for batch in groups(&known, BATCH, size) {
            let mut pipeline = pipe();
            for (written, known) in batch {
                let name = written.name(&self.core.keys);
                pipeline.cmd("SET").arg(&name).arg(&*known.value).arg("NX");
                if let Some(end) = known.expires_at_ms {
                    pipeline.arg("PXAT").arg(end);
                }
            }
            let mut add = cmd("ZADD");
            add.arg(&index);
            for (written, known) in batch {
                add.arg(super::index::score(known)).arg(written.member());
            }
            pipeline.add_command(add);
            let replies: Vec<Value> = pipeline.query_async(&mut generation.connection).await?;
            let there = batch
                .iter()
                .zip(replies)
                .filter_map(|(known, reply)| (reply == Value::Nil).then_some(known.clone()));
            let there: Vec<_> = there.collect();
            written += batch.len() - there.len();
            written += self.widen_all(generation, there).await?;
        }
        if written > 0 {
            warn!(
                revocations = written,
                "revocations that redis lacked were written back"
            );
            self.core
                .metrics
                .revocations_reasserted
                .inc_by(written as u64);
        }
        self.step("reassert").count(known.len()).log();
        Ok(())
    }

    /// Widens the revocations that Redis already has, if they cover less than those that this node
    /// knows.
    async fn widen_all(
        &mut self,
        generation: &mut Generation,
        known: Vec<(SpelledKey, Known)>,
    ) -> Result<usize, Fault> {
        let (written, known): (Vec<SpelledKey>, Vec<Known>) = known.into_iter().unzip();
        let mut widened = 0;
        let read = self.read(&generation.connection, &written).await?;
        for ((written, there), known) in written.iter().zip(read).zip(known) {
            let Some(there) = there else { continue };
            let (there, known) = (there.revocation(), known.revocation());
            let ban_over_floor = there.is_floor(&written.key)
                && known.before.is_none()
                && known.expires_at.is_some();
            if ban_over_floor {
                // A merge with the floor would refuse every token for the duration of the floor,
                // which no operator has requested.
                warn!(
                    "an expiring revocation of all tokens is not written back, because the revocation that followed a loss of data is in force for longer"
                );
                continue;
            }
            if !there.covers_as_much_as(&known) {
                widened += usize::from(self.widen(generation, written, known).await?);
            }
        }
        Ok(widened)
    }
}

/// Checks that the server can be used, and reads its properties.
fn check_server(info: &str) -> Result<Server, Fault> {
    let fields: HashMap<&str, &str> = info
        .lines()
        .filter_map(|line| line.trim_end().split_once(':'))
        .collect();
    let field = |name: &str| fields.get(name).copied().unwrap_or_default();
    let version = field("redis_version");
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    let version_is = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version_is < OLDEST {
        return Err(Fault::Unsuitable(format!(
            "this redis is {version}: use 7.0 or newer"
        )));
    }
    let mut risks = Vec::new();
    match field("maxmemory_policy") {
        policy if policy.starts_with("allkeys-") => {
            return Err(Fault::Unsuitable(format!(
                "this redis may evict revocations: set maxmemory-policy to noeviction instead of {policy}"
            )));
        }
        policy if policy.starts_with("volatile-") => {
            risks.push(
                "this redis may evict revocations that expire: set maxmemory-policy to noeviction",
            );
        }
        _ => {}
    }
    if field("aof_enabled") == "0" {
        risks.push(
            "this redis has appendonly off, so a restart loses everything written since the last snapshot: set appendonly to yes",
        );
    }
    let fencing = match field("connected_slaves") {
        "0" | "" => None,
        // `INFO` has this field only if `min-replicas-to-write` is set.
        _ if fields.contains_key("min_slaves_good_slaves") => Some("min-replicas-to-write"),
        _ => Some(UNFENCED),
    };
    Ok(Server {
        primary: Primary {
            run_id: field("run_id").to_owned(),
            replication_id: field("master_replid").to_owned(),
        },
        fencing,
        risks,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(version: &str, policy: &str) -> String {
        format!(
            "# Server\r\nredis_version:{version}\r\nrun_id:abc\r\n# Memory\r\nmaxmemory_policy:{policy}\r\n\
             # Replication\r\nmaster_replid:def\r\nconnected_slaves:0\r\n"
        )
    }

    #[test]
    fn an_unsuitable_server_is_refused() {
        for (version, policy, good) in [
            ("7.0.15", "noeviction", true),
            ("7.2.4", "volatile-lru", true),
            ("8.2.1", "noeviction", true),
            ("6.2.14", "noeviction", false),
            ("7.0.15", "allkeys-lru", false),
            ("", "noeviction", false),
        ] {
            let checked = check_server(&info(version, policy));
            assert_eq!(checked.is_ok(), good, "{version} {policy}: {checked:?}");
        }
    }

    #[test]
    fn replicas_without_a_fence_are_told_of() {
        let alone = info("7.0.15", "noeviction");
        let replicas = alone.replace("connected_slaves:0", "connected_slaves:2");
        let fenced = format!("{replicas}min_slaves_good_slaves:2\r\n");
        for (info, expect) in [
            (alone, None),
            (replicas, Some("none")),
            (fenced, Some("min-replicas-to-write")),
        ] {
            assert_eq!(check_server(&info).unwrap().fencing, expect);
        }
    }

    #[test]
    fn a_restarted_or_promoted_server_is_another() {
        let one = check_server(&info("7.0.15", "noeviction")).unwrap();
        let two = check_server(&info("7.0.15", "noeviction").replace("abc", "abd")).unwrap();
        let three = check_server(&info("7.0.15", "noeviction").replace("def", "deg")).unwrap();
        assert!(one.primary != two.primary && one.primary != three.primary);
    }
}
