//! Settings that change while sessions register, refresh and leave.

use std::collections::{HashMap, HashSet};
use std::sync::Barrier;
use std::sync::atomic::AtomicBool;
use std::thread;

use curfew_model::Revocation;
use proptest::prelude::*;

use super::*;

/// Kinds that the settings may name.
const CLAIMS: [&str; 4] = ["tenant", "device", "groups", "issuer_user"];

/// The first, second and third token of a session. Claims appear, change and disappear.
const TOKENS: [&str; 3] = [
    r#"{"tenant":"acme","groups":["a","b","a"]}"#,
    r#"{"tenant":"acme","device":"phone","groups":["b"]}"#,
    r#"{"device":"PHONE@b"}"#,
];

fn token(user: usize, token: usize) -> Arc<Principal> {
    let token = token % TOKENS.len();
    principal(
        &format!("user-{user}"),
        &format!("t{token}"),
        100,
        TOKENS[token],
    )
}

/// The claims chosen by the bits of `set`.
fn claims(set: u8) -> Vec<String> {
    let chosen = |(at, claim): (usize, &&str)| (set >> at & 1 == 1).then(|| (*claim).to_owned());
    CLAIMS.iter().enumerate().filter_map(chosen).collect()
}

/// Asserts that every session is found by each key that its tokens have under the kinds in force,
/// and that the index holds nothing else.
fn assert_exact(hub: &Hub) {
    let kinds = hub.kinds();
    let every: Vec<String> = CLAIMS.map(str::to_owned).to_vec();
    let mut entries = 0;
    for member in hub.members() {
        let session = member.session();
        let mut wanted: HashMap<RevocationKey, bool> = HashMap::new();
        for principal in member.principals() {
            for key in principal.revocation_keys(session, &every) {
                wanted.insert(key, false);
            }
            let keys = principal.revocation_keys(session, kinds.claims());
            entries += keys
                .iter()
                .filter(|key| !matches!(key.kind(), "all" | "session"))
                .count();
            wanted.extend(keys.into_iter().map(|key| (key, true)));
        }
        for (key, found) in wanted {
            if matches!(key.kind(), "all" | "session") {
                continue;
            }
            let finds = hub.index.find(&key);
            let finds = finds.iter().any(|other| Arc::ptr_eq(other, &member));
            assert_eq!(finds, found, "{key} under the claims {:?}", kinds.claims());
        }
    }
    assert_eq!(
        hub.index.entries(),
        entries,
        "the index has exactly one entry for each key of each token"
    );
}

/// Rekeys every session registered when the kinds came into force, as a reload does.
fn rekey_all(hub: &Hub) {
    for member in hub.members() {
        hub.rekey(&member);
    }
}

#[derive(Debug, Clone)]
enum Op {
    Register(usize),
    Begin(usize, usize),
    Finish(usize),
    Abandon(usize),
    /// A subscription gets a token of its own, in place of an earlier token.
    Bind(usize, usize),
    Unregister(usize),
    /// Other kinds come into force, and a walk over the sessions begins.
    Reload(u8),
    /// The walk rekeys one more session, which may have left.
    Step,
}

fn op() -> impl Strategy<Value = Op> {
    let session = 0..6_usize;
    prop_oneof![
        3 => (0..3_usize).prop_map(Op::Register),
        3 => (session.clone(), 0..3_usize).prop_map(|(at, to)| Op::Begin(at, to)),
        2 => session.clone().prop_map(Op::Finish),
        2 => session.clone().prop_map(Op::Abandon),
        2 => (session.clone(), 0..3_usize).prop_map(|(at, to)| Op::Bind(at, to)),
        1 => session.prop_map(Op::Unregister),
        2 => (0..16_u8).prop_map(Op::Reload),
        6 => Just(Op::Step),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn after_any_reloads_the_index_is_exactly_what_the_last_settings_say(
        ops in proptest::collection::vec(op(), 1..60),
    ) {
        let harness = Harness::new();
        let hub = &harness.hub;
        let mut sessions: Vec<Arc<Member>> = Vec::new();
        let mut walk = Vec::new();
        let (mut refreshing, mut tokens) = (HashSet::new(), HashMap::new());
        for op in ops {
            match op {
                Op::Register(user) => sessions.push(harness.register(&token(user, 0), "one")),
                Op::Reload(set) => {
                    hub.set_kinds(&claims(set));
                    walk = hub.members();
                }
                Op::Step => {
                    if let Some(member) = walk.pop() {
                        hub.rekey(&member);
                    }
                }
                Op::Begin(at, _)
                | Op::Finish(at)
                | Op::Abandon(at)
                | Op::Bind(at, _)
                | Op::Unregister(at)
                    if !sessions.is_empty() =>
                {
                    let at = at % sessions.len();
                    let member = &sessions[at];
                    match op {
                        // At most one refresh of a session is in progress, as in the gateway.
                        Op::Begin(_, to) if !refreshing.contains(&member.session()) => {
                            let user = member.principal().user()[5..].parse().unwrap();
                            hub.begin_refresh(member, token(user, to));
                            refreshing.insert(member.session());
                        }
                        Op::Finish(_) | Op::Abandon(_) => {
                            refreshing.remove(&member.session());
                            match op {
                                Op::Finish(_) => hub.finish_refresh(member, &At(0)),
                                _ => hub.abandon_refresh(member),
                            }
                        }
                        Op::Bind(_, to) => {
                            let user = member.principal().user()[5..].parse().unwrap();
                            let bound = token(user, to);
                            hub.bind(member, &channel("room"), Arc::clone(&bound));
                            if let Some(old) = tokens.insert(member.session(), bound) {
                                hub.unbind(member, &channel("room"), &old);
                            }
                        }
                        Op::Unregister(_) => {
                            hub.unregister(member);
                            sessions.swap_remove(at);
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        // The walk of the latest reload ends first, and then the walk of an earlier reload.
        let late = std::mem::take(&mut walk);
        rekey_all(hub);
        late.iter().for_each(|member| hub.rekey(member));
        assert_exact(hub);
        sessions.iter().for_each(|member| hub.unregister(member));
        prop_assert_eq!(hub.index.entries(), 0);
    }
}

#[test]
fn a_storm_of_reloads_over_sessions_that_come_refresh_and_go_leaves_the_index_exact() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 400;
    let harness = Harness::new();
    let hub = &harness.hub;
    let (start, done) = (Barrier::new(THREADS + 1), AtomicBool::new(false));
    let kept: Vec<Arc<Member>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|user| {
                let (harness, start) = (&harness, &start);
                scope.spawn(move || {
                    start.wait();
                    let mut kept = Vec::new();
                    for round in 0..ROUNDS {
                        let member = harness.register(&token(user, round), "one");
                        hub.begin_refresh(&member, token(user, round + 1));
                        match round % 3 {
                            0 => hub.finish_refresh(&member, &At(0)),
                            1 => hub.abandon_refresh(&member),
                            // The refresh stays in progress.
                            _ => {}
                        }
                        match round % 4 {
                            0 => kept.push(member),
                            _ => hub.unregister(&member),
                        }
                    }
                    kept
                })
            })
            .collect();
        let reloads = scope.spawn(|| {
            start.wait();
            let mut set = 0;
            while !done.load(Ordering::Relaxed) {
                set = (set + 7) % 16;
                hub.set_kinds(&claims(set));
                rekey_all(hub);
            }
        });
        let kept = workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap());
        let kept = kept.collect();
        done.store(true, Ordering::Relaxed);
        reloads.join().unwrap();
        kept
    });
    assert_exact(hub);
    kept.iter().for_each(|member| hub.unregister(member));
    assert_eq!(hub.index.entries(), 0);
}

#[test]
fn a_walk_that_comes_too_late_does_not_bring_a_session_back() {
    let harness = Harness::new();
    let member = harness.open_as(&token(0, 0));
    harness.hub.set_kinds(&claims(0b1111));
    harness.unregister(&member);
    harness.hub.rekey(&member);
    assert_eq!(harness.hub.index.entries(), 0);
}

#[test]
fn a_kind_finds_its_sessions_once_all_is_settled() {
    let harness = Harness::new();
    let hub = &harness.hub;
    let member = harness.open_as(&token(0, 1));
    let finds = |kind: &str| hub.finds(kind);
    let reload = |set| {
        let kinds = hub.set_kinds(&claims(set)).unwrap();
        assert!(!hub.is_settled() && !finds("user"), "{set:b}");
        kinds
    };
    let (first, second) = (reload(0b0100), reload(0b0010));
    hub.settle(&first);
    assert!(!hub.is_settled(), "later kinds are in force");
    rekey_all(hub);
    hub.settle(&second);
    assert!(hub.is_settled() && finds("user") && finds("device"));
    assert!(!finds("tenant"), "the settings do not name the kind");
    assert!(hub.set_kinds(&claims(0b0010)).is_none() && hub.is_settled());
    // A kind that the settings do not name finds no session.
    let tenant = RevocationKey::claim("tenant", "acme");
    assert!(
        hub.revoke(&tenant, &Revocation::default())
            .sessions
            .is_empty()
    );
    let device = RevocationKey::claim("device", "phone");
    assert_eq!(
        hub.revoke(&device, &Revocation::default()).sessions.len(),
        1
    );
    assert!(member.outbox().ending().is_some());
}
