//! Checks of events that must happen once all trouble is over.

use std::collections::BTreeSet;

use curfew_model::Revocation;

use super::{ON_ITS_WAY, Violation, session_of};
use crate::client::Client;
use crate::machine::elapsed;
use crate::record::{Place, Token};
use crate::world::{ConnectionId, World};

/// A publication that must reach every client that has service at the time of the publication.
#[derive(Debug)]
pub struct Probe {
    number: u64,
    by: usize,
    hearers: Vec<(usize, ConnectionId)>,
}

/// Lets the first client that has service publish. Returns `None` if no client has service.
pub fn begin_probe(world: &mut World) -> Option<Probe> {
    let clients = 0..world.clients.len();
    let served = clients.filter(|client| is_served(world, *client));
    let hearers = served.filter_map(|client| Some((client, world.clients[client].open()?)));
    let hearers: Vec<(usize, ConnectionId)> = hearers.collect();
    let (by, connection) = *hearers.first()?;
    Client::publish(world, by, connection);
    Some(Probe {
        number: world.published,
        by,
        hearers,
    })
}

fn is_served(world: &World, client: usize) -> bool {
    let client = &world.clients[client];
    let is_in_lobby = !world.record.presence.is_on || client.is_in_lobby();
    client.open().is_some() && client.subscribed.len() == world.channels() && is_in_lobby
}

/// Checks that clients whose user has access have service, that other clients have none, and that
/// the clients of `probe` have received its publication.
pub fn liveness(world: &World, probe: Option<&Probe>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut report = |what: String| {
        found.push(Violation {
            promise: "liveness",
            at: elapsed(),
            what,
        });
    };
    let up = world.up();
    let tenants: BTreeSet<bool> = up
        .iter()
        .map(|node| world.record.tenants_of(*node))
        .collect();
    for (number, client) in world.clients.iter().enumerate() {
        let Some(token) = client.token() else {
            continue;
        };
        match (is_banned(world, token, &tenants), is_served(world, number)) {
            (Some(false), false) if !client.comes_back() => report(format!(
                "client {number} ({}) has access, but no service",
                token.user
            )),
            (Some(true), true) => report(format!(
                "client {number} ({}) has service, but no access",
                token.user
            )),
            _ => {}
        }
    }
    if let Some(Probe {
        number,
        by,
        hearers,
    }) = probe
    {
        for (hearer, connection) in hearers {
            let client = &world.clients[*hearer];
            let heard = client.heard.contains(&(*connection, *number));
            if client.open() != Some(*connection) || client.comes_back() {
                continue;
            }
            if !heard {
                report(format!(
                    "client {hearer} has not received the last publication of client {by}"
                ));
            }
            if let Some(top) = top(world)
                && client.place.as_ref() != Some(top)
            {
                let place = &client.place;
                report(format!(
                    "client {hearer} has the position {place:?}, but the stream ends at {top:?}"
                ));
            }
        }
    }
    found
}

/// The position of the last publication; `None` if a publication is still in flight, or if Redis
/// has lost its data since.
fn top(world: &World) -> Option<&Place> {
    let (at, place, _) = world.record.placed.last()?;
    let is_lost = world.record.losses.iter().any(|(lost_at, _)| lost_at >= at);
    (!is_lost && elapsed() > *at + ON_ITS_WAY).then_some(place)
}

/// True if Redis has a key that bans the user of a token; `None` if the nodes' settings give
/// different answers.
fn is_banned(world: &World, token: &Token, tenants: &BTreeSet<bool>) -> Option<bool> {
    let now = world.host.now();
    let server = world.host.server();
    let keys: Vec<String> = server
        .keys(now)
        .into_iter()
        .filter_map(|key| String::from_utf8(key).ok())
        .filter(|key| key.starts_with("curfew:{revoked}:"))
        .collect();
    let covers = |key: &str| match server.get(key.as_bytes(), now) {
        Some(value) => Revocation::parse(&value).covers(Some(token.issued_at)),
        None => true,
    };
    let mut by_tenant = false;
    for key in &keys {
        let name = key.trim_start_matches("curfew:{revoked}:");
        if name == "epoch" {
            continue;
        }
        let named = name == "all" || names(name, "user", &token.user);
        if named && covers(key) {
            return Some(true);
        }
        by_tenant |= names(name, "tenant", &token.tenant) && covers(key);
    }
    match (by_tenant, tenants.len()) {
        (true, 1) => Some(tenants.contains(&true)),
        (true, _) => None,
        (false, _) => Some(false),
    }
}

/// True if a key's name is the name of a revocation of `value`, as plain text or as digest.
fn names(name: &str, kind: &str, value: &str) -> bool {
    let Some(written) = name
        .strip_prefix(kind)
        .and_then(|rest| rest.strip_prefix(':'))
    else {
        return false;
    };
    let key = curfew_model::RevocationKey::claim(kind, value);
    let key = if kind == "user" {
        curfew_model::RevocationKey::user(value)
    } else {
        key
    };
    let digest = key.written(curfew_model::Spelling::Digest);
    written == value || digest.ends_with(written) && written.starts_with('~')
}

/// R4 and the inventory: Redis has exactly the records of the existing sessions.
pub fn records(world: &World) -> Vec<Violation> {
    let now = world.host.now();
    let keys = world.host.server().keys(now);
    let prefix = b"curfew:session:";
    let recorded: BTreeSet<String> = keys
        .iter()
        .filter(|key| key.starts_with(prefix))
        .map(|key| String::from_utf8_lossy(&key[prefix.len()..]).into_owned())
        .collect();
    let open: BTreeSet<String> = world
        .clients
        .iter()
        .filter_map(Client::open)
        .filter_map(|connection| session_of(world.record.wires.get(&connection)?))
        .map(|session| session.to_string())
        .collect();
    let violation = |promise, what| Violation {
        promise,
        at: elapsed(),
        what,
    };
    let ghosts = recorded.difference(&open).map(|session| {
        violation(
            "R4",
            format!("session {session} has a record in Redis, but does not exist"),
        )
    });
    let missing = open.difference(&recorded).map(|session| {
        violation(
            "records",
            format!("session {session} exists, but has no record in Redis"),
        )
    });
    let mut found: Vec<Violation> = ghosts.chain(missing).collect();
    found.truncate(5);
    found
}
