//! Commands about the server itself: `INFO`, `ROLE`, `TIME`, `CONFIG GET` and similar ones.

use std::fmt::Write as _;

use super::call::{Call, Done, NOT_AN_INTEGER};
use super::{VERSION, glob, number};

/// Settings that `CONFIG GET` knows.
const SETTINGS: [(&str, &str); 6] = [
    ("appendonly", "no"),
    ("databases", "1"),
    ("maxmemory", "0"),
    ("maxmemory-policy", "noeviction"),
    ("notify-keyspace-events", ""),
    ("save", ""),
];

pub(super) fn time(call: &mut Call<'_>, _: &[&[u8]]) -> Done {
    call.out.array(2);
    call.out.bulk(call.now.as_secs().to_string().as_bytes());
    call.out
        .bulk(call.now.subsec_micros().to_string().as_bytes());
    Ok(())
}

pub(super) fn role(call: &mut Call<'_>, _: &[&[u8]]) -> Done {
    if call.server.replica {
        call.out.array(5);
        call.out.bulk(b"slave");
        call.out.bulk(b"127.0.0.1");
        call.out.integer(6379);
        call.out.bulk(b"connected");
        call.out.integer(0);
    } else {
        call.out.array(3);
        call.out.bulk(b"master");
        call.out.integer(0);
        call.out.array(0);
    }
    Ok(())
}

/// `WAIT`. There are no replicas, so the command answers at once.
pub(super) fn wait(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    if call.server.replica {
        return Err("ERR WAIT cannot be used with replica instances. Please also note that since Redis 4.0 if a replica is configured to be writable (which is not the default) writes to replicas are just local and are not propagated.".into());
    }
    number::integer(args[1]).ok_or(NOT_AN_INTEGER)?;
    match number::integer(args[2]) {
        None => return Err("ERR timeout is not an integer or out of range".into()),
        Some(..0) => return Err("ERR timeout is negative".into()),
        Some(_) => call.out.integer(0),
    }
    Ok(())
}

pub(super) fn config_get(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    let asked = |name: &str| {
        let mut patterns = args[2..].iter();
        patterns.any(|pattern| glob::matches(&pattern.to_ascii_lowercase(), name.as_bytes()))
    };
    let found: Vec<_> = SETTINGS.iter().filter(|(name, _)| asked(name)).collect();
    call.out.map(found.len());
    for (name, value) in found {
        call.out.bulk(name.as_bytes());
        call.out.bulk(value.as_bytes());
    }
    Ok(())
}

/// `COMMAND`. `redis-cli` asks for the table of commands, but works without it.
pub(super) fn command(call: &mut Call<'_>, _: &[&[u8]]) -> Done {
    call.out.array(0);
    Ok(())
}

pub(super) fn no_cluster(_: &mut Call<'_>, _: &[&[u8]]) -> Done {
    Err("ERR This instance has cluster support disabled".into())
}

pub(super) fn info(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    let server = &call.server;
    let uptime = call.now.saturating_sub(server.started_at).as_secs();
    let role = if server.replica { "slave" } else { "master" };
    let sections = [
        (
            "Server",
            format!(
                "redis_version:{VERSION}\r\nredis_mode:standalone\r\nrun_id:{}\r\ntcp_port:6379\r\nserver_time_usec:{}\r\nuptime_in_seconds:{uptime}\r\n",
                server.run_id,
                call.now.as_micros(),
            ),
        ),
        (
            "Clients",
            format!(
                "connected_clients:{}\r\nmaxclients:10000\r\nblocked_clients:0\r\n",
                server.clients.len(),
            ),
        ),
        (
            "Memory",
            format!(
                "maxmemory:{}\r\nmaxmemory_policy:noeviction\r\n",
                u8::from(server.out_of_memory),
            ),
        ),
        (
            "Persistence",
            "loading:0\r\nasync_loading:0\r\naof_enabled:0\r\n".to_owned(),
        ),
        (
            "Replication",
            format!(
                "role:{role}\r\n{}connected_slaves:0\r\nmaster_failover_state:no-failover\r\nmaster_replid:{}\r\nmaster_repl_offset:0\r\n",
                if server.replica {
                    "master_host:127.0.0.1\r\nmaster_port:6379\r\nmaster_link_status:up\r\n"
                } else {
                    ""
                },
                server.replication_id,
            ),
        ),
        ("Cluster", "cluster_enabled:0\r\n".to_owned()),
        ("Keyspace", keyspace(server)),
    ];
    let mut text = String::new();
    for (name, fields) in sections {
        let asked = args[1..].iter().any(|section| {
            ["all", "default", "everything", name]
                .iter()
                .any(|asked| section.eq_ignore_ascii_case(asked.as_bytes()))
        });
        if asked || args.len() == 1 {
            let gap = if text.is_empty() { "" } else { "\r\n" };
            write!(text, "{gap}# {name}\r\n{fields}").expect("writing to a string cannot fail");
        }
    }
    call.out.verbatim(&text);
    Ok(())
}

fn keyspace(server: &super::Server) -> String {
    match server.data.len() {
        0 => String::new(),
        keys => format!("db0:keys={keys},expires={}\r\n", server.data.expiring()),
    }
}
