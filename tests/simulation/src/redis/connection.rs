//! Commands about connections. They set the protocol and the name, and close the own connection or
//! another connection.

use std::fmt::Write as _;

use super::call::{Call, Done, Failure, NOT_AN_INTEGER, SYNTAX};
use super::client::Client;
use super::{ConnectionId, OPERATOR, VERSION, number};

pub(super) fn ping(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    if args.len() > 2 {
        return Err("ERR wrong number of arguments for 'ping' command".into());
    }
    let is_subscribed = call.client().is_subscribed();
    match args.get(1) {
        message if is_subscribed && !call.out.resp3 => {
            call.out.array(2);
            call.out.bulk(b"pong");
            call.out.bulk(message.copied().unwrap_or_default());
        }
        Some(message) => call.out.bulk(message),
        None => call.out.simple("PONG"),
    }
    Ok(())
}

pub(super) fn echo(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    call.out.bulk(args[1]);
    Ok(())
}

pub(super) fn quit(call: &mut Call<'_>, _: &[&[u8]]) -> Done {
    call.out.ok();
    call.close();
    Ok(())
}

pub(super) fn reset(call: &mut Call<'_>, _: &[&[u8]]) -> Done {
    let id = call.id;
    call.server.forget(id);
    call.out.resp3 = false;
    call.out.simple("RESET");
    Ok(())
}

pub(super) fn select(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    match number::integer(args[1]) {
        Some(0) => call.out.ok(),
        Some(1..16) => return Err("ERR the simulated Redis has one database".into()),
        Some(_) => return Err("ERR DB index is out of range".into()),
        None => return Err(NOT_AN_INTEGER.into()),
    }
    Ok(())
}

pub(super) fn auth(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    match args {
        [_, _] => Err("ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?".into()),
        [_, user, _] => {
            login(user)?;
            call.out.ok();
            Ok(())
        }
        _ => Err(SYNTAX.into()),
    }
}

/// Accepts any password, because the only user needs none.
fn login(user: &[u8]) -> Done {
    match user {
        b"default" => Ok(()),
        _ => Err("WRONGPASS invalid username-password pair or user is disabled.".into()),
    }
}

/// `HELLO [2|3 [AUTH user password] [SETNAME name]]`.
pub(super) fn hello(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    let mut resp3 = call.out.resp3;
    if let Some(version) = args.get(1) {
        resp3 = match number::integer(version) {
            Some(2) => false,
            Some(3) => true,
            Some(_) => return Err("NOPROTO unsupported protocol version".into()),
            None => return Err("ERR Protocol version is not an integer or out of range".into()),
        };
    }
    let mut options = args.iter().skip(2);
    let mut name = None;
    while let Some(option) = options.next() {
        let unknown = || {
            let option = String::from_utf8_lossy(option);
            Failure::from(format!("ERR Syntax error in HELLO option '{option}'"))
        };
        match option.to_ascii_uppercase().as_slice() {
            b"AUTH" => {
                let (Some(user), Some(_)) = (options.next(), options.next()) else {
                    return Err(unknown());
                };
                login(user)?;
            }
            b"SETNAME" => {
                let given = options.next().ok_or_else(unknown)?;
                check_name(given)?;
                name = Some(given.to_vec());
            }
            _ => return Err(unknown()),
        }
    }
    if let Some(name) = name {
        call.client().name = name;
    }
    call.client().resp3 = resp3;
    let id = call.id;
    let role = if call.server.replica {
        "replica"
    } else {
        "master"
    };
    let out = &mut call.out;
    out.resp3 = resp3;
    out.map(7);
    for (field, value) in [("server", "redis"), ("version", VERSION)] {
        out.bulk(field.as_bytes());
        out.bulk(value.as_bytes());
    }
    out.bulk(b"proto");
    out.integer(if resp3 { 3 } else { 2 });
    out.bulk(b"id");
    out.integer(number_of(id));
    for (field, value) in [("mode", "standalone"), ("role", role)] {
        out.bulk(field.as_bytes());
        out.bulk(value.as_bytes());
    }
    out.bulk(b"modules");
    out.array(0);
    Ok(())
}

fn check_name(name: &[u8]) -> Done {
    match name.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        true => Ok(()),
        false => {
            Err("ERR Client names cannot contain spaces, newlines or special characters.".into())
        }
    }
}

pub(super) fn client_id(call: &mut Call<'_>, _: &[&[u8]]) -> Done {
    call.out.integer(number_of(call.id));
    Ok(())
}

pub(super) fn client_getname(call: &mut Call<'_>, _: &[&[u8]]) -> Done {
    let name = call.client().name.clone();
    match name.is_empty() {
        true => call.out.nil(),
        false => call.out.bulk(&name),
    }
    Ok(())
}

pub(super) fn client_setname(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    check_name(args[2])?;
    call.client().name = args[2].to_vec();
    call.out.ok();
    Ok(())
}

/// `CLIENT NO-EVICT on|off`.
pub(super) fn client_no_evict(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    call.client().is_kept_in_memory = match args[2].to_ascii_lowercase().as_slice() {
        b"on" => true,
        b"off" => false,
        _ => return Err(SYNTAX.into()),
    };
    call.out.ok();
    Ok(())
}

pub(super) fn client_info(call: &mut Call<'_>, _: &[&[u8]]) -> Done {
    let id = call.id;
    let text = describe(id, call.client());
    call.out.verbatim(&text);
    Ok(())
}

pub(super) fn client_list(call: &mut Call<'_>, _: &[&[u8]]) -> Done {
    let clients = call.server.clients.iter();
    let text: String = clients.map(|(id, client)| describe(*id, client)).collect();
    call.out.verbatim(&text);
    Ok(())
}

fn describe(id: ConnectionId, client: &Client) -> String {
    let mut flags = String::new();
    let tracking = client.tracking.as_ref();
    for (is_set, flag) in [
        (client.is_subscribed(), 'P'),
        (client.transaction.is_some(), 'x'),
        (tracking.is_some(), 't'),
        (tracking.is_some_and(|t| t.prefixes.is_some()), 'B'),
        (client.is_dirty, 'd'),
        (client.is_kept_in_memory, 'e'),
    ] {
        if is_set {
            flags.push(flag);
        }
    }
    if flags.is_empty() {
        flags.push('N');
    }
    let mut line = format!(
        "id={} addr={} laddr=127.0.0.1:6379 ",
        number_of(id),
        address(id)
    );
    let queued = client
        .transaction
        .as_ref()
        .map(|transaction| transaction.queued.len());
    write!(
        line,
        "name={} flags={flags} db=0 sub={} psub={} ssub={} multi={} resp={}",
        String::from_utf8_lossy(&client.name),
        client.channels.len(),
        client.patterns.len(),
        client.shard_channels.len(),
        queued.map_or_else(|| "-1".to_owned(), |queued| queued.to_string()),
        if client.resp3 { 3 } else { 2 },
    )
    .expect("writing to a string cannot fail");
    line.push('\n');
    line
}

/// An invented address, because connections have no real address. It contains the connection's
/// number.
fn address(id: ConnectionId) -> String {
    format!("127.0.0.1:{}", number_of(id))
}

fn number_of(id: ConnectionId) -> i64 {
    i64::try_from(id).unwrap_or(i64::MAX)
}

/// `CLIENT KILL address`, or `CLIENT KILL` with `ID`, `ADDR`, `TYPE` and `SKIPME`.
pub(super) fn client_kill(call: &mut Call<'_>, args: &[&[u8]]) -> Done {
    if let [_, _, wanted] = args {
        let mut all = call.server.clients.keys().copied();
        let found = all.find(|id| address(*id).as_bytes() == *wanted);
        let id = found.ok_or("ERR No such client")?;
        call.out.ok();
        call.kill(id);
        return Ok(());
    }
    let filter = Filter::parse(&args[2..])?;
    let own = call.id;
    let killed: Vec<ConnectionId> = call
        .server
        .clients
        .iter()
        .filter(|(id, client)| filter.admits(**id, client) && !(filter.skip_me && **id == own))
        .map(|(id, _)| *id)
        .collect();
    call.out.count(killed.len());
    for id in killed {
        call.kill(id);
    }
    Ok(())
}

impl Call<'_> {
    /// Closes a connection. The own connection is closed after the reply, another connection at
    /// once.
    fn kill(&mut self, id: ConnectionId) {
        if id == self.id {
            self.close();
        } else if id != OPERATOR {
            self.server.disconnect(id);
            self.server.closed.push(id);
        }
    }
}

#[derive(Debug)]
struct Filter<'a> {
    id: Option<i64>,
    address: Option<&'a [u8]>,
    /// `Some(true)` selects only subscribed connections, `Some(false)` only other connections.
    listens: Option<bool>,
    none: bool,
    skip_me: bool,
}

impl<'a> Filter<'a> {
    fn parse(options: &[&'a [u8]]) -> Result<Self, Failure> {
        let mut filter = Self {
            id: None,
            address: None,
            listens: None,
            none: false,
            skip_me: true,
        };
        for pair in options.chunks(2) {
            let [option, value] = pair else {
                return Err(SYNTAX.into());
            };
            match option.to_ascii_uppercase().as_slice() {
                b"ID" => match number::integer(value) {
                    Some(id) if id > 0 => filter.id = Some(id),
                    _ => return Err("ERR client-id should be greater than 0".into()),
                },
                b"ADDR" => filter.address = Some(value),
                b"TYPE" => match value.to_ascii_lowercase().as_slice() {
                    b"normal" => filter.listens = Some(false),
                    b"pubsub" => filter.listens = Some(true),
                    b"master" | b"slave" | b"replica" => filter.none = true,
                    _ => {
                        let kind = String::from_utf8_lossy(value);
                        return Err(format!("ERR Unknown client type '{kind}'").into());
                    }
                },
                b"USER" => match *value {
                    b"default" => {}
                    other => {
                        let user = String::from_utf8_lossy(other);
                        return Err(format!("ERR No such user '{user}'").into());
                    }
                },
                b"SKIPME" => match value.to_ascii_lowercase().as_slice() {
                    b"yes" => filter.skip_me = true,
                    b"no" => filter.skip_me = false,
                    _ => return Err(SYNTAX.into()),
                },
                _ => return Err(SYNTAX.into()),
            }
        }
        Ok(filter)
    }

    fn admits(&self, id: ConnectionId, client: &Client) -> bool {
        !self.none
            && self.id.is_none_or(|wanted| wanted == number_of(id))
            && self
                .address
                .is_none_or(|wanted| address(id).as_bytes() == wanted)
            && self
                .listens
                .is_none_or(|listens| listens == client.is_subscribed())
    }
}
