//! The table of commands: their names, arguments, keys and permissions.

use super::call::{Call, Done, Failure};
use super::{
    connection, hashes, introspection, keyspace, pubsub, scripts, sets, sorted, strings, tracking,
    transactions,
};

/// One command.
#[derive(Debug)]
pub(super) struct Command {
    /// The name in lower case. A subcommand has its container's name before its own.
    pub(super) name: &'static str,
    /// The number of arguments, including the name. A negative number is a minimum.
    arity: i8,
    flags: u8,
    keys: Keys,
    pub(super) run: fn(&mut Call<'_>, &[&[u8]]) -> Done,
}

/// Positions of the keys among a command's arguments.
#[derive(Debug, Clone, Copy)]
enum Keys {
    None,
    First,
    All,
    FirstTwo,
    EverySecond,
}

const WRITE: u8 = 1;
/// Flag of commands that are refused while there is no memory.
const MEMORY: u8 = 2;
const READ: u8 = 4;
/// Flag of commands that are executed at once within `MULTI`.
const UNQUEUED: u8 = 8;
/// Flag of commands that are allowed on a subscribed connection in RESP2.
const LISTENING: u8 = 16;
/// Flag of commands with subcommands.
const CONTAINER: u8 = 32;
const GROW: u8 = WRITE | MEMORY;

impl Command {
    pub(super) fn writes(&self) -> bool {
        self.flags & WRITE != 0
    }

    pub(super) fn takes_memory(&self) -> bool {
        self.flags & MEMORY != 0
    }

    pub(super) fn is_read(&self) -> bool {
        self.flags & READ != 0
    }

    pub(super) fn is_unqueued(&self) -> bool {
        self.flags & UNQUEUED != 0
    }

    pub(super) fn is_for_listeners(&self) -> bool {
        self.flags & LISTENING != 0
    }

    pub(super) fn keys_of<'k>(&self, args: &'k [&'k [u8]]) -> impl Iterator<Item = &'k [u8]> {
        let (last, step) = match self.keys {
            Keys::None => (0, 1),
            Keys::First => (1, 1),
            Keys::FirstTwo => (2, 1),
            Keys::All => (args.len(), 1),
            Keys::EverySecond => (args.len(), 2),
        };
        args.iter().take(last + 1).skip(1).step_by(step).copied()
    }
}

/// The command that these arguments name.
pub(super) fn find(args: &[&[u8]]) -> Result<&'static Command, Failure> {
    let Some(command) = by_name(args[0]) else {
        return Err(unknown(args));
    };
    if command.flags & CONTAINER == 0 || args.len() < 2 {
        return checked(command, args);
    }
    let mut full = command.name.as_bytes().to_vec();
    full.push(b'|');
    full.extend_from_slice(args[1]);
    let Some(command) = by_name(&full) else {
        let sub = clipped(args[1]);
        let name = command.name.to_ascii_uppercase();
        return Err(format!("ERR unknown subcommand '{sub}'. Try {name} HELP.").into());
    };
    checked(command, args)
}

fn checked(command: &'static Command, args: &[&[u8]]) -> Result<&'static Command, Failure> {
    let arity = usize::from(command.arity.unsigned_abs());
    let fits = match command.arity > 0 {
        true => args.len() == arity,
        false => args.len() >= arity,
    };
    match fits {
        true => Ok(command),
        false => {
            let name = command.name;
            Err(format!("ERR wrong number of arguments for '{name}' command").into())
        }
    }
}

fn by_name(name: &[u8]) -> Option<&'static Command> {
    let mut small = [0; 24];
    let small = small.get_mut(..name.len())?;
    small.copy_from_slice(name);
    small.make_ascii_lowercase();
    let small: &[u8] = small;
    let found = COMMANDS.binary_search_by(|command| command.name.as_bytes().cmp(small));
    found.ok().map(|at| &COMMANDS[at])
}

fn unknown(args: &[&[u8]]) -> Failure {
    const MOST: usize = 128;
    let mut shown = String::new();
    for arg in &args[1..] {
        if shown.len() >= MOST {
            break;
        }
        let arg = &arg[..arg.len().min(MOST - shown.len())];
        shown.push('\'');
        shown.push_str(&String::from_utf8_lossy(arg));
        shown.push_str("' ");
    }
    let name = clipped(args[0]);
    format!("ERR unknown command '{name}', with args beginning with: {shown}").into()
}

fn clipped(text: &[u8]) -> String {
    String::from_utf8_lossy(&text[..text.len().min(128)]).into_owned()
}

const fn c(
    name: &'static str,
    arity: i8,
    flags: u8,
    keys: Keys,
    run: fn(&mut Call<'_>, &[&[u8]]) -> Done,
) -> Command {
    Command {
        name,
        arity,
        flags,
        keys,
        run,
    }
}

fn container(_: &mut Call<'_>, _: &[&[u8]]) -> Done {
    Err("ERR syntax error".into())
}

use Keys::{All, EverySecond, First, FirstTwo, None as NoKeys};

/// The commands, sorted by name.
#[rustfmt::skip]
static COMMANDS: [Command; 125] = [
    c("append", 3, GROW, First, strings::append),
    c("asking", 1, 0, NoKeys, introspection::no_cluster),
    c("auth", -2, 0, NoKeys, connection::auth),
    c("client", -2, CONTAINER, NoKeys, container),
    c("client|getname", 2, 0, NoKeys, connection::client_getname),
    c("client|id", 2, 0, NoKeys, connection::client_id),
    c("client|info", 2, 0, NoKeys, connection::client_info),
    c("client|kill", -3, 0, NoKeys, connection::client_kill),
    c("client|list", -2, 0, NoKeys, connection::client_list),
    c("client|no-evict", 3, 0, NoKeys, connection::client_no_evict),
    c("client|setname", 3, 0, NoKeys, connection::client_setname),
    c("client|tracking", -3, 0, NoKeys, tracking::client_tracking),
    c("cluster", -2, CONTAINER, NoKeys, container),
    c("cluster|info", 2, 0, NoKeys, introspection::no_cluster),
    c("cluster|slots", 2, 0, NoKeys, introspection::no_cluster),
    c("command", -1, 0, NoKeys, introspection::command),
    c("config", -2, CONTAINER, NoKeys, container),
    c("config|get", -3, 0, NoKeys, introspection::config_get),
    c("copy", -3, GROW, FirstTwo, keyspace::copy),
    c("dbsize", 1, READ, NoKeys, keyspace::dbsize),
    c("decr", 2, GROW, First, strings::incr),
    c("decrby", 3, GROW, First, strings::incr),
    c("del", -2, WRITE, All, keyspace::del),
    c("discard", 1, UNQUEUED, NoKeys, transactions::discard),
    c("echo", 2, 0, NoKeys, connection::echo),
    c("eval", -3, 0, NoKeys, scripts::eval),
    c("evalsha", -3, 0, NoKeys, scripts::eval),
    c("exec", 1, UNQUEUED, NoKeys, transactions::exec),
    c("exists", -2, READ, All, keyspace::exists),
    c("expire", -3, WRITE, First, keyspace::expire),
    c("expireat", -3, WRITE, First, keyspace::expire),
    c("expiretime", 2, READ, First, keyspace::ttl),
    c("flushall", -1, WRITE, NoKeys, keyspace::flush),
    c("flushdb", -1, WRITE, NoKeys, keyspace::flush),
    c("get", 2, READ, First, strings::get),
    c("getdel", 2, WRITE, First, strings::getdel),
    c("getex", -2, WRITE, First, strings::getex),
    c("getrange", 4, READ, First, strings::getrange),
    c("getset", 3, GROW, First, strings::getset),
    c("hdel", -3, WRITE, First, hashes::hdel),
    c("hello", -1, 0, NoKeys, connection::hello),
    c("hexists", 3, READ, First, hashes::hexists),
    c("hget", 3, READ, First, hashes::hget),
    c("hgetall", 2, READ, First, hashes::hgetall),
    c("hincrby", 4, GROW, First, hashes::hincrby),
    c("hkeys", 2, READ, First, hashes::hgetall),
    c("hlen", 2, READ, First, hashes::hlen),
    c("hmget", -3, READ, First, hashes::hmget),
    c("hmset", -4, GROW, First, hashes::hset),
    c("hrandfield", -2, READ, First, hashes::hrandfield),
    c("hset", -4, GROW, First, hashes::hset),
    c("hsetnx", 4, GROW, First, hashes::hset),
    c("hvals", 2, READ, First, hashes::hgetall),
    c("incr", 2, GROW, First, strings::incr),
    c("incrby", 3, GROW, First, strings::incr),
    c("info", -1, 0, NoKeys, introspection::info),
    c("keys", 2, READ, NoKeys, keyspace::keys),
    c("mget", -2, READ, All, strings::mget),
    c("mset", -3, GROW, EverySecond, strings::mset),
    c("msetnx", -3, GROW, EverySecond, strings::mset),
    c("multi", 1, UNQUEUED, NoKeys, transactions::multi),
    c("persist", 2, WRITE, First, keyspace::persist),
    c("pexpire", -3, WRITE, First, keyspace::expire),
    c("pexpireat", -3, WRITE, First, keyspace::expire),
    c("pexpiretime", 2, READ, First, keyspace::ttl),
    c("ping", -1, LISTENING, NoKeys, connection::ping),
    c("psetex", 4, GROW, First, strings::setex),
    c("psubscribe", -2, LISTENING, NoKeys, pubsub::subscribe),
    c("pttl", 2, READ, First, keyspace::ttl),
    c("publish", 3, 0, NoKeys, pubsub::publish),
    c("pubsub", -2, CONTAINER, NoKeys, container),
    c("pubsub|channels", -2, 0, NoKeys, pubsub::pubsub_channels),
    c("pubsub|numpat", 2, 0, NoKeys, pubsub::pubsub_numpat),
    c("pubsub|numsub", -2, 0, NoKeys, pubsub::pubsub_numsub),
    c("pubsub|shardchannels", -2, 0, NoKeys, pubsub::pubsub_channels),
    c("pubsub|shardnumsub", -2, 0, NoKeys, pubsub::pubsub_numsub),
    c("punsubscribe", -1, LISTENING, NoKeys, pubsub::unsubscribe),
    c("quit", -1, UNQUEUED | LISTENING, NoKeys, connection::quit),
    c("rename", 3, WRITE, FirstTwo, keyspace::rename),
    c("renamenx", 3, WRITE, FirstTwo, keyspace::rename),
    c("reset", 1, UNQUEUED | LISTENING, NoKeys, connection::reset),
    c("role", 1, 0, NoKeys, introspection::role),
    c("sadd", -3, GROW, First, sets::sadd),
    c("scan", -2, READ, NoKeys, keyspace::scan),
    c("scard", 2, READ, First, sets::scard),
    c("script", -2, CONTAINER, NoKeys, container),
    c("script|exists", -3, 0, NoKeys, scripts::script_exists),
    c("script|flush", -2, 0, NoKeys, scripts::script_flush),
    c("script|load", 3, 0, NoKeys, scripts::script_load),
    c("select", 2, 0, NoKeys, connection::select),
    c("set", -3, GROW, First, strings::set),
    c("setex", 4, GROW, First, strings::setex),
    c("setnx", 3, GROW, First, strings::setnx),
    c("setrange", 4, GROW, First, strings::setrange),
    c("sismember", 3, READ, First, sets::sismember),
    c("smembers", 2, READ, First, sets::smembers),
    c("smismember", -3, READ, First, sets::sismember),
    c("spop", -2, WRITE, First, sets::spop),
    c("spublish", 3, 0, NoKeys, pubsub::publish),
    c("srem", -3, WRITE, First, sets::srem),
    c("sscan", -3, READ, First, sets::sscan),
    c("ssubscribe", -2, LISTENING, NoKeys, pubsub::subscribe),
    c("strlen", 2, READ, First, strings::strlen),
    c("subscribe", -2, LISTENING, NoKeys, pubsub::subscribe),
    c("sunsubscribe", -1, LISTENING, NoKeys, pubsub::unsubscribe),
    c("time", 1, 0, NoKeys, introspection::time),
    c("touch", -2, READ, All, keyspace::exists),
    c("ttl", 2, READ, First, keyspace::ttl),
    c("type", 2, READ, First, keyspace::type_of),
    c("unlink", -2, WRITE, All, keyspace::del),
    c("unsubscribe", -1, LISTENING, NoKeys, pubsub::unsubscribe),
    c("unwatch", 1, 0, NoKeys, transactions::unwatch),
    c("wait", 3, 0, NoKeys, introspection::wait),
    c("watch", -2, UNQUEUED, NoKeys, transactions::watch),
    c("zadd", -4, GROW, First, sorted::zadd),
    c("zcard", 2, READ, First, sorted::zcard),
    c("zcount", 4, READ, First, sorted::zcount),
    c("zincrby", 4, GROW, First, sorted::zadd),
    c("zrange", -4, READ, First, sorted::zrange),
    c("zrangebylex", -4, READ, First, sorted::zrange),
    c("zrangebyscore", -4, READ, First, sorted::zrange),
    c("zrank", 3, READ, First, sorted::zrank),
    c("zrem", -3, WRITE, First, sorted::zrem),
    c("zremrangebyscore", 4, WRITE, First, sorted::zremrangebyscore),
    c("zscore", 3, READ, First, sorted::zscore),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order() {
        assert!(COMMANDS.is_sorted_by(|one, two| one.name < two.name));
    }
}
