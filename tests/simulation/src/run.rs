//! One run: nodes and clients start, the plan is executed, and then everything must recover.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::time::Duration;

use curfew_model::{RevocationKey, SessionId, Spelling};
use fastrand::Rng;
use tokio::runtime::Builder;

use crate::check::{self, Violation};
use crate::client::{Client, TENANTS, USERS};
use crate::machine::{self, EPOCH, elapsed};
use crate::node::Process;
use crate::plan::{Act, Plan, Whom, Written};
use crate::record::{Ban, Target};
use crate::world::{ConnectionId, Event, Machine, Shared, World};

/// Time within which everything must work again after the last fault: a node finds Redis, clients
/// of closed sessions reconnect, and Redis no longer lists a process that ended.
pub const RECOVERY: Duration = Duration::from_secs(14);

/// Time within which the records in Redis must be exact again.
pub const TIDY: Duration = Duration::from_secs(45);

/// The prefix of every key.
const PREFIX: &str = "curfew:";

/// The outcome of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The broken promises.
    pub violations: Vec<Violation>,
    /// A digest that is equal for two identical runs.
    pub digest: u64,
    /// The story of the run, for people.
    pub story: Vec<(Duration, String)>,
    /// The number of writes of nodes to clients.
    pub frames: usize,
    /// The number of publications that Redis executed.
    pub publications: usize,
}

/// The processes of all nodes.
type Processes = Rc<RefCell<Vec<Rc<Process>>>>;

/// Runs a plan. The thread must not have run anything before.
pub fn run(plan: &Plan) -> Outcome {
    machine::seed(plan.seed);
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O can be built");
    let outcome = runtime.block_on(play(plan));
    // The runtime is not dropped: tasks of the nodes that still wait are never run again, and end
    // when this program exits.
    std::mem::forget(runtime);
    outcome
}

async fn play(plan: &Plan) -> Outcome {
    let shared = Shared::begin(Rng::with_seed(plan.seed));
    let processes: Processes = Rc::default();
    shared.world().host.ahead = plan.redis_ahead;
    shared.world().record.streams = plan.history > 0;
    shared.world().record.presence.is_on = plan.presence;
    shared.world().record.vault = plan.vault;
    for slot in 0..plan.nodes {
        shared.world().slots.push(usize::MAX);
        let ahead = plan.ahead.get(slot).copied().unwrap_or_default();
        start(&shared, &processes, slot, plan, ahead);
    }
    shared.set_door({
        let (processes, shared) = (Rc::clone(&processes), shared.clone());
        move |node, connection| accept(&shared, &processes, node, connection)
    });
    for client in 0..plan.clients {
        let mut world = shared.world();
        world.clients.push(Client::new(client, plan.lifetime));
        let wait = world.random.u64(300..1_500);
        Client::again(&mut world, client, Duration::from_millis(wait));
    }
    let mut stage = Stage::of(plan, &processes);
    shared.world().after(Duration::ZERO, Event::Plan);
    shared.set_plan(move |shared| stage.go_on(shared));

    shared.run_until(plan.troubled_until).await;
    // This time is later than `plan.troubled_until` if a fault of the plan stopped the code of the
    // nodes beyond that time.
    let calm_at = elapsed();
    calm(&shared);
    shared.run_until(calm_at + RECOVERY).await;
    let mut violations = Vec::new();
    let probe = check::begin_probe(&mut shared.world());
    shared
        .run_until(calm_at + RECOVERY + Duration::from_secs(1))
        .await;
    violations.extend(check::liveness(&shared.world(), probe.as_ref()));
    violations.extend(check::lobby(&shared.world()));
    if plan.tidied {
        shared.run_until(calm_at + TIDY).await;
        violations.extend(check::records(&shared.world()));
        violations.extend(check::notes(&shared.world()));
    }
    let mut world = shared.world();
    let left = world.host.server().keys(world.host.now());
    world.record.ended_at = elapsed();
    world.record.left = left.into_iter().collect();
    violations.extend(check::safety(&world.record));
    let mut hasher = DefaultHasher::new();
    for (connection, wire) in &world.record.wires {
        (connection, &wire.bytes, &wire.writes).hash(&mut hasher);
    }
    world.record.effects.len().hash(&mut hasher);
    let publications = world.record.publications.values();
    let publications = publications.filter(|published| !published.executed.is_empty());
    Outcome {
        violations,
        digest: hasher.finish(),
        publications: publications.count(),
        frames: world
            .record
            .wires
            .values()
            .map(|wire| wire.writes.len())
            .sum(),
        story: std::mem::take(&mut world.record.story),
    }
}

/// Ends all disturbances. From now on clients publish nothing new and end no connection, and every
/// clock is correct.
fn calm(shared: &Shared) {
    let mut world = shared.world();
    for client in 0..world.clients.len() {
        world.clients[client].quiet = true;
        Client::again(&mut world, client, Duration::from_millis(1 + client as u64));
    }
    for machine in 0..world.machines.len() {
        world.machines[machine].trap = None;
        set_clock(&mut world, machine, 0);
    }
}

fn set_clock(world: &mut World, machine: usize, millis: i64) {
    world.machines[machine].wall_ahead = millis * 1_000;
    world
        .record
        .clocks
        .push((machine, elapsed(), millis * 1_000));
}

fn accept(shared: &Shared, processes: &Processes, node: usize, connection: ConnectionId) {
    if !shared.world().machines[node].alive {
        shared.world().reset(connection);
        return;
    }
    let process = Rc::clone(&processes.borrow()[node]);
    shared.as_node(node, || process.accept(connection));
}

/// Starts a process in a slot.
fn start(shared: &Shared, processes: &Processes, slot: usize, plan: &Plan, ahead: i64) {
    let tenants = plan.tenants;
    let machine = {
        let mut world = shared.world();
        let machine = world.machines.len();
        world.machines.push(Machine::running());
        set_clock(&mut world, machine, ahead);
        world.slots[slot] = machine;
        world.record.began(machine, elapsed(), tenants);
        machine
    };
    let process = shared.as_node(machine, || Process::start(machine, plan));
    shared
        .world()
        .record
        .ids
        .insert(process.id().to_string(), machine);
    processes.borrow_mut().push(Rc::new(process));
}

/// The plan under execution, with its remaining steps.
struct Stage {
    steps: BTreeMap<(Duration, usize), Step>,
    count: usize,
    processes: Processes,
    plan: Plan,
}

/// A step of a plan.
#[derive(Debug, Clone)]
enum Step {
    Begin(Act),
    Cut(usize, [bool; 2]),
    Stall(ConnectionId),
    Start(usize),
    Thaw,
    Up(crate::world::Comeback),
    Slow(Duration),
    Memory,
    Copy,
}

impl Stage {
    fn of(plan: &Plan, processes: &Processes) -> Self {
        let mut stage = Self {
            steps: BTreeMap::new(),
            count: 0,
            processes: Rc::clone(processes),
            plan: plan.clone(),
        };
        for (at, act) in &plan.acts {
            stage.later(*at, Step::Begin(act.clone()));
        }
        stage.later(Duration::from_millis(500), Step::Copy);
        stage
    }

    fn later(&mut self, at: Duration, step: Step) {
        self.count += 1;
        self.steps.insert((at, self.count), step);
    }

    fn go_on(&mut self, shared: &Shared) {
        let now = elapsed();
        while let Some(first) = self
            .steps
            .first_entry()
            .filter(|first| first.key().0 <= now)
        {
            let step = first.remove();
            if !matches!(step, Step::Copy) {
                shared.world().record.tell(now, format!("{step:?}"));
            }
            self.take(shared, step);
        }
        if let Some(((next, _), _)) = self.steps.first_key_value() {
            shared.world().at(*next, Event::Plan);
        }
    }

    fn take(&mut self, shared: &Shared, step: Step) {
        let mut world = shared.world();
        match step {
            Step::Begin(act) => {
                drop(world);
                self.begin(shared, act);
            }
            Step::Cut(node, cut) => world.cut(node, cut),
            Step::Stall(connection) => world.stall(connection, [false; 2]),
            Step::Start(slot) => {
                drop(world);
                start(shared, &self.processes, slot, &self.plan, 0);
            }
            Step::Thaw => world.freeze_redis(false),
            Step::Up(comeback) => world.start_redis(comeback),
            Step::Slow(by) => world.host.slow = by,
            Step::Memory => world.host.set_out_of_memory(false),
            Step::Copy => {
                let wait = world.copy_data();
                self.later(elapsed() + wait, Step::Copy);
            }
        }
    }

    fn begin(&mut self, shared: &Shared, act: Act) {
        let mut world = shared.world();
        let now = elapsed();
        let until = now + act.lasts();
        let slots = world.slots.clone();
        match act {
            Act::Cut(slot, cut, _) => {
                world.cut(slots[slot], cut);
                world.record.trouble(Some(slots[slot]), now, until, false);
                self.later(until, Step::Cut(slots[slot], [false; 2]));
            }
            Act::Stall(slot, which, stalled, _) => {
                let connections = world.network.to_redis(slots[slot]);
                if let Some(connection) = connections.get(which) {
                    world.stall(*connection, stalled);
                    world.record.trouble(Some(slots[slot]), now, until, false);
                    self.later(until, Step::Stall(*connection));
                }
            }
            Act::Break(slot, which) => {
                let connections = world.network.to_redis(slots[slot]);
                if let Some(connection) = connections.get(which) {
                    world.record.trouble(Some(slots[slot]), now, now, false);
                    world.reset(*connection);
                }
            }
            Act::Stop(slot, time) => world.stop(slots[slot], time),
            Act::Trap(slot, points, time) => {
                world.machines[slots[slot]].trap = Some((points, time));
            }
            Act::Crash(slot, _) => {
                if world.machines[slots[slot]].alive {
                    world.crash(slots[slot]);
                    self.later(until, Step::Start(slot));
                }
            }
            Act::Freeze(_) => {
                world.freeze_redis(true);
                world.record.trouble(None, now, until, false);
                self.later(until, Step::Thaw);
            }
            Act::Restart(_, comeback) => {
                world.stop_redis();
                world.record.trouble(None, now, until, false);
                self.later(until, Step::Up(comeback));
            }
            Act::Slow(by, _) => {
                world.host.slow = by;
                world.record.trouble(None, now, until + by, false);
                self.later(until, Step::Slow(Duration::ZERO));
            }
            Act::OutOfMemory(_) => {
                world.host.set_out_of_memory(true);
                world.record.trouble(None, now, until, false);
                self.later(until, Step::Memory);
            }
            Act::Flush => {
                if world.operate(&[b"FLUSHALL"]).is_some() {
                    world.record.trouble(None, now, now, false);
                    world.record.lost_data(now, Duration::ZERO);
                }
            }
            Act::Clock(slot, ahead) => set_clock(&mut world, slots[slot], ahead),
            Act::Ban(whom, written) => ban(&mut world, whom, written),
            Act::Lift(whom) => lift(&mut world, whom),
            Act::Revoke(slot, whom) => {
                let Some((key, target)) = named(&world, whom) else {
                    return;
                };
                let machine = slots[slot];
                if !world.machines[machine].alive {
                    return;
                }
                let ids = world.record.ids.clone();
                let written = key.redis_key(PREFIX).into_bytes();
                world.record.asked.push((written, target.clone()));
                drop(world);
                let process = Rc::clone(&self.processes.borrow()[machine]);
                shared.as_node(machine, || {
                    process.revoke(key, target, move |id| ids.get(&id.to_string()).copied());
                });
            }
            Act::Reload(slot, tenants) => {
                let machine = slots[slot];
                if world.machines[machine].alive {
                    drop(world);
                    let process = Rc::clone(&self.processes.borrow()[machine]);
                    shared.as_node(machine, || process.reload(tenants));
                }
            }
        }
    }
}

/// The key and target of an operator's revocation, if the target exists.
fn named(world: &World, whom: Whom) -> Option<(RevocationKey, Target)> {
    Some(match whom {
        Whom::User(user) => {
            let user = USERS[user].to_owned();
            (RevocationKey::user(&user), Target::User(user))
        }
        Whom::Tenant(tenant) => {
            let tenant = TENANTS[tenant].to_owned();
            let key = RevocationKey::claim("tenant", &tenant);
            (key, Target::Tenant(tenant))
        }
        Whom::Token(client) => {
            let id = world.clients.get(client)?.token()?.id.clone();
            (RevocationKey::token(&id), Target::Token(id))
        }
        Whom::Subscription(client) => {
            let id = world.clients.get(client)?.vault_token()?.id.clone();
            (RevocationKey::token(&id), Target::Token(id))
        }
        Whom::Session(client) => {
            let connection = world.clients.get(client)?.open()?;
            let id: SessionId = check::session_of(world.record.wires.get(&connection)?)?;
            (RevocationKey::session(id), Target::Session(id))
        }
        Whom::AllUntilNow => (RevocationKey::All, Target::All),
    })
}

/// The key's names in both spellings, as an operator types them.
fn names(key: &RevocationKey) -> [String; 2] {
    let name = |spelling| match key {
        RevocationKey::All => format!("{PREFIX}{{revoked}}:all"),
        _ => format!(
            "{PREFIX}{{revoked}}:{}:{}",
            key.kind(),
            written(key, spelling)
        ),
    };
    [name(Spelling::Plain), name(Spelling::Digest)]
}

fn written(key: &RevocationKey, spelling: Spelling) -> String {
    match spelling {
        Spelling::Digest => {
            let digest = key.written(Spelling::Digest);
            digest.rsplit(':').next().unwrap_or_default().to_owned()
        }
        _ => key
            .plain_value()
            .expect("the key was made of a plain value")
            .to_owned(),
    }
}

fn ban(world: &mut World, whom: Whom, written: Written) {
    let Some((key, target)) = named(world, whom) else {
        return;
    };
    let now = (EPOCH + elapsed() + world.host.ahead).as_secs();
    let cutoff = now.to_string();
    let [plain, digest] = names(&key);
    let by_cutoff = written == Written::Cutoff || target == Target::All;
    let value = if by_cutoff { cutoff.as_bytes() } else { b"1" };
    let spelled: &[&String] = match written {
        Written::Digest if target != Target::All => &[&digest],
        Written::Both if target != Target::All => &[&plain, &digest],
        _ => &[&plain],
    };
    let rounds = if written == Written::Often { 8 } else { 1 };
    for name in spelled {
        for _ in 0..rounds {
            let done = match written {
                Written::Hash if !by_cutoff => {
                    if world.operate(&[b"DEL", name.as_bytes()]).is_some() {
                        world.record.lifted(name.as_bytes(), elapsed());
                    }
                    world.operate(&[b"HSET", name.as_bytes(), b"why", b"fired"])
                }
                Written::Rename => {
                    world.operate(&[b"SET", b"draft", value]);
                    world.operate(&[b"RENAME", b"draft", name.as_bytes()])
                }
                _ => world.operate(&[b"SET", name.as_bytes(), value]),
            };
            if done.is_none() {
                return;
            }
        }
        world.record.banned(Ban {
            at: elapsed(),
            key: name.as_bytes().to_vec(),
            target: target.clone(),
            before: by_cutoff.then_some(now),
            lifted_at: None,
        });
    }
}

fn lift(world: &mut World, whom: Whom) {
    let Some((key, _)) = named(world, whom) else {
        return;
    };
    for name in names(&key) {
        if world.operate(&[b"DEL", name.as_bytes()]).is_some() {
            world.record.lifted(name.as_bytes(), elapsed());
        }
    }
}
