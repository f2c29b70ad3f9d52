//! The faults of a run and the acts of operators, chosen by the seed or written by hand.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

use crate::client::{TENANTS, USERS};
use crate::world::Comeback;

/// The plan of a run. Chance makes the remaining choices during the run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed of the remaining choices.
    pub seed: u64,
    /// The number of nodes.
    pub nodes: usize,
    /// The number of clients; a user may have several.
    pub clients: usize,
    /// The lifetime of tokens, in seconds.
    pub lifetime: u64,
    /// True if sessions are revocable by tenant from the start.
    pub tenants: bool,
    /// `backend.max_admissions`.
    pub max_admissions: usize,
    /// The time by which Redis' clock is ahead of the correct time.
    pub redis_ahead: Duration,
    /// The time by which each node's wall clock is ahead at the beginning, in milliseconds.
    pub ahead: Vec<i64>,
    /// The acts, in order of time.
    pub acts: Vec<(Duration, Act)>,
    /// End of the last trouble.
    pub troubled_until: Duration,
    /// True if the run continues until the records in Redis must be exact again. This wait takes
    /// most of a run's time.
    pub tidied: bool,
    /// The number of publications that the stream of one channel stores; 0 if no channel has a
    /// stream.
    pub history: u32,
    /// `limits.window_bytes`.
    pub window_bytes: usize,
    /// True if there is a lobby: a channel with presence.
    pub presence: bool,
    /// True if there is a vault: a channel to which each client subscribes with a token of its own.
    pub vault: bool,
}

impl fmt::Display for Plan {
    /// The plan's text, as a scenario contains it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "let plan = Plan {{")?;
        writeln!(
            f,
            "    seed: {}, nodes: {}, clients: {},",
            self.seed, self.nodes, self.clients
        )?;
        writeln!(
            f,
            "    lifetime: {}, tenants: {}, max_admissions: {},",
            self.lifetime, self.tenants, self.max_admissions
        )?;
        writeln!(
            f,
            "    redis_ahead: {}, ahead: vec!{:?},",
            written(self.redis_ahead),
            self.ahead
        )?;
        writeln!(
            f,
            "    history: {}, window_bytes: {}, presence: {}, vault: {},",
            self.history, self.window_bytes, self.presence, self.vault
        )?;
        writeln!(f, "    ..Plan::quiet(0)\n}};\nlet acts = [")?;
        for (at, act) in &self.acts {
            writeln!(f, "    ({}, {}),", written(*at), act.written())?;
        }
        f.write_str("];")
    }
}

fn written(time: Duration) -> String {
    format!("ms({})", time.as_millis())
}

/// An event of the plan.
#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    /// The link between a node and Redis holds bytes back. The flags select the directions: to the
    /// node, and from the node.
    Cut(usize, [bool; 2], Duration),
    /// One of the node's connections to Redis holds bytes back.
    Stall(usize, usize, [bool; 2], Duration),
    /// One of the node's connections to Redis breaks.
    Break(usize, usize),
    /// A node's code does not run, while the code of other nodes does.
    Stop(usize, Duration),
    /// A node's code stops for a while, after it has used its machine this number of times.
    Trap(usize, u32, Duration),
    /// A node crashes, and another process starts in its place.
    Crash(usize, Duration),
    /// Redis does not run for a while.
    Freeze(Duration),
    /// The process of Redis ends, and starts again.
    Restart(Duration, Comeback),
    /// Redis' answers are delayed.
    Slow(Duration, Duration),
    /// Redis has no memory left.
    OutOfMemory(Duration),
    /// Redis loses its data while it runs: `FLUSHALL`.
    Flush,
    /// A node's wall clock is set to be this number of milliseconds ahead.
    Clock(usize, i64),
    /// An operator writes the key of a revocation.
    Ban(Whom, Written),
    /// An operator deletes the key of a revocation, in every spelling.
    Lift(Whom),
    /// A revocation is written through a node's admin API.
    Revoke(usize, Whom),
    /// A node gets other settings. The flag tells if sessions are revocable by tenant.
    Reload(usize, bool),
}

/// The target of an operator's revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    /// A user, by number.
    User(usize),
    /// A tenant, by number.
    Tenant(usize),
    /// The session that a client has at the time of the act, by the client's number.
    Session(usize),
    /// The token of the session that a client has at the time of the act, by the client's number.
    Token(usize),
    /// The token of the subscription to the vault that a client has, by the client's number.
    Subscription(usize),
    /// Everyone whose token was issued before the time of the act.
    AllUntilNow,
}

/// The ways in which an operator writes the key of a revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// `SET key 1`, with the raw value in the name.
    Plain,
    /// `SET key 1`, with the value's digest in the name.
    Digest,
    /// The keys of `Plain` and of `Digest`.
    Both,
    /// `SET key` with the current time as the cutoff.
    Cutoff,
    /// The key holds a hash.
    Hash,
    /// `RENAME` of another key, which gets the name of the key.
    Rename,
    /// `SET key 1`, several times in a row.
    Often,
}

/// Earliest end of the trouble of a run. Clients publish at least until then.
const LEAST: Duration = Duration::from_secs(5);

/// One third of the seeds has a channel with a stream, another third the lobby, and the last third
/// the vault.
const WITH_STREAMS: u64 = 3;

/// The default of `limits.window_bytes`.
const WINDOW_BYTES: usize = 64 * 1024 * 1024;

/// Time of the first fault.
const FIRST: Duration = Duration::from_millis(1_500);

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let nodes = random.usize(1..=3);
        let troubled_for = random.u64(4_000..14_000);
        let count = random.usize(2..=9);
        // Most runs have few kinds of faults, because some events can happen only while a part of
        // the system works.
        let kinds: Vec<u8> = (0..random.usize(1..=4))
            .map(|_| random.u8(..FAULTS))
            .collect();
        let mut acts: Vec<(Duration, Act)> = Vec::new();
        for _ in 0..count {
            let at = FIRST + millis(random.u64(0..troubled_for));
            let kind = kinds[random.usize(..kinds.len())];
            acts.push((at, fault(&mut random, nodes, kind)));
            // An operator's act reveals most if a fault lasts at the time of the act.
            if random.u8(..) < 200 {
                let near = millis(random.u64(0..3_000));
                let at = if random.bool() {
                    at + near
                } else {
                    at.saturating_sub(near)
                };
                acts.push((at.max(FIRST), operate(&mut random, nodes)));
            }
        }
        for _ in 0..random.usize(1..4) {
            let at = FIRST + millis(random.u64(0..troubled_for));
            acts.push((at, operate(&mut random, nodes)));
        }
        let skewed = random.u8(..) < 40;
        let mut plan = Self {
            seed: random.u64(..),
            nodes,
            clients: random.usize(4..=10),
            lifetime: if random.u8(..) < 60 {
                random.u64(8..30)
            } else {
                600
            },
            tenants: random.bool(),
            max_admissions: if random.u8(..) < 100 { 1 } else { 0 },
            redis_ahead: millis(if skewed { random.u64(0..2_000) } else { 0 }),
            ahead: (0..nodes)
                .map(|_| if skewed { random.i64(-3_000..3_000) } else { 0 })
                .collect(),
            acts,
            troubled_until: Duration::ZERO,
            tidied: seed.is_multiple_of(4),
            history: 0,
            window_bytes: WINDOW_BYTES,
            presence: false,
            vault: false,
        };
        if seed % WITH_STREAMS == 2 {
            // The choices for streams use a separate generator, so that seeds without a stream keep
            // the runs that they had before streams existed.
            let mut random = Rng::with_seed(seed);
            plan.history = [3, 20, 200][random.usize(..3)];
            plan.window_bytes = [256, 4_096, WINDOW_BYTES][random.usize(..3)];
        }
        if seed % WITH_STREAMS == 1 {
            plan.presence = true;
            let mut random = Rng::with_seed(seed);
            if random.u8(..) < 60 {
                plan.acts.extend(absence(&mut random, nodes));
                plan.tidied = true;
            }
        }
        if seed.is_multiple_of(WITH_STREAMS) {
            plan.vault = true;
            let mut random = Rng::with_seed(seed);
            for _ in 0..random.usize(2..=5) {
                // Most of these bans are close to another act, in the middle of trouble.
                let some = random.usize(..plan.acts.len());
                let near = plan.acts[some].0 + millis(random.u64(0..2_500));
                let at = near.saturating_sub(millis(1_000)).max(FIRST);
                let whom = Whom::Subscription(random.usize(..plan.clients));
                plan.acts.push((at, Act::Ban(whom, way(&mut random))));
            }
        }
        plan.settle();
        plan
    }

    /// A plan of two nodes without faults.
    pub fn quiet(seed: u64) -> Self {
        let mut plan = Self {
            seed,
            nodes: 2,
            clients: 8,
            lifetime: 600,
            tenants: true,
            max_admissions: 0,
            redis_ahead: Duration::ZERO,
            ahead: vec![0, 0],
            acts: Vec::new(),
            troubled_until: Duration::ZERO,
            tidied: true,
            history: 0,
            window_bytes: WINDOW_BYTES,
            presence: false,
            vault: false,
        };
        plan.settle();
        plan
    }

    /// The same plan with these additional acts.
    #[must_use]
    pub fn with(mut self, acts: &[(Duration, Act)]) -> Self {
        self.acts.extend_from_slice(acts);
        self.settle();
        self
    }

    /// Sorts the acts, and computes the time at which the last act is over.
    pub fn settle(&mut self) {
        self.acts.sort_by_key(|(at, _)| *at);
        let ends = self.acts.iter().map(|(at, act)| *at + act.lasts());
        self.troubled_until = ends.max().unwrap_or(LEAST).max(LEAST) + millis(10);
    }
}

impl Act {
    /// The act's text, as a scenario contains it.
    fn written(&self) -> String {
        let mut text = format!("{self:?}");
        for time in self.times().into_iter().filter(|time| !time.is_zero()) {
            text = text.replace(&format!("{time:?}"), &written(time));
        }
        text
    }

    fn times(&self) -> Vec<Duration> {
        match *self {
            Self::Slow(by, time) => vec![by, time],
            Self::Trap(_, _, time) => vec![time],
            _ => vec![self.lasts()],
        }
    }

    /// The duration of the act.
    pub fn lasts(&self) -> Duration {
        match *self {
            Self::Cut(_, _, time)
            | Self::Stall(_, _, _, time)
            | Self::Stop(_, time)
            | Self::Crash(_, time)
            | Self::Freeze(time)
            | Self::Restart(time, _)
            | Self::Slow(_, time)
            | Self::OutOfMemory(time) => time,
            Self::Trap(_, _, time) => time + Duration::from_secs(1),
            _ => Duration::ZERO,
        }
    }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A random duration. Some durations are close to the lease, most are well below or above it.
fn a_while(random: &mut Rng) -> Duration {
    millis(match random.u8(..) {
        0..=69 => random.u64(20..400),
        70..=139 => random.u64(400..2_800),
        140..=209 => random.u64(2_800..5_000),
        _ => random.u64(5_000..12_000),
    })
}

/// Acts that stop a node or cut its link to Redis for so long that other nodes consider it dead.
/// The node may crash at about the end of that time.
fn absence(random: &mut Rng, nodes: usize) -> Vec<(Duration, Act)> {
    let node = random.usize(..nodes);
    let at = FIRST + millis(random.u64(0..4_000));
    let time = millis(random.u64(16_000..26_000));
    let away = match random.u8(..3) {
        0 => Act::Stop(node, time),
        _ => Act::Cut(node, directions(random), time),
    };
    let mut acts = vec![(at, away)];
    if random.bool() {
        let at = at + time - millis(random.u64(0..3_000));
        acts.push((at, Act::Crash(node, millis(random.u64(100..6_000)))));
    }
    acts
}

fn directions(random: &mut Rng) -> [bool; 2] {
    [[true, true], [true, true], [true, false], [false, true]][random.usize(..4)]
}

/// The number of kinds of fault.
const FAULTS: u8 = 12;

fn fault(random: &mut Rng, nodes: usize, kind: u8) -> Act {
    let node = random.usize(..nodes);
    match kind {
        0 => Act::Cut(node, directions(random), a_while(random)),
        1 => Act::Stall(node, random.usize(..3), directions(random), a_while(random)),
        2 => Act::Break(node, random.usize(..3)),
        3 => Act::Stop(node, a_while(random)),
        4 | 5 => Act::Trap(node, random.u32(0..400), a_while(random)),
        6 => Act::Crash(node, millis(random.u64(100..15_000))),
        7 => Act::Freeze(a_while(random)),
        8 => {
            let comeback = [Comeback::Whole, Comeback::Empty, Comeback::Behind];
            Act::Restart(millis(random.u64(20..3_000)), comeback[random.usize(..3)])
        }
        9 => match random.u8(..3) {
            0 => Act::Slow(millis(random.u64(50..1_200)), a_while(random)),
            1 => Act::OutOfMemory(a_while(random)),
            _ => Act::Flush,
        },
        10 => {
            let step = [
                -3_600_000, -600_000, -20_000, -2_000, 2_000, 20_000, 600_000,
            ];
            Act::Clock(node, step[random.usize(..step.len())])
        }
        _ => Act::Reload(node, random.bool()),
    }
}

fn operate(random: &mut Rng, nodes: usize) -> Act {
    let whom = match random.u8(..) {
        0..=129 => Whom::User(random.usize(..USERS.len())),
        130..=179 => Whom::Tenant(random.usize(..TENANTS.len())),
        180..=209 => Whom::Session(random.usize(..4)),
        210..=239 => Whom::Token(random.usize(..4)),
        _ => Whom::AllUntilNow,
    };
    match random.u8(..) {
        0..=39 if whom != Whom::AllUntilNow => Act::Lift(whom),
        40..=79 if matches!(whom, Whom::User(_) | Whom::Tenant(_)) => {
            Act::Revoke(random.usize(..nodes), whom)
        }
        _ => Act::Ban(whom, way(random)),
    }
}

fn way(random: &mut Rng) -> Written {
    let ways = [
        Written::Plain,
        Written::Plain,
        Written::Digest,
        Written::Both,
        Written::Cutoff,
        Written::Hash,
        Written::Rename,
        Written::Often,
    ];
    ways[random.usize(..ways.len())]
}
