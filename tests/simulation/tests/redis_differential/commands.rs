//! Random commands. Most of them are meaningful.
//!
//! `@0` stands for the id of the first connection, and `@script` for the digest of the script.

use fastrand::Rng;

use crate::pair::{CONNECTIONS, SCRIPT};

pub(crate) fn words(words: &[&str]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

fn pick<'a>(random: &mut Rng, of: &[&'a str]) -> &'a str {
    of[random.usize(..of.len())]
}

/// A key, of any type.
pub(crate) fn key(random: &mut Rng) -> String {
    pick(
        random,
        &["p:s", "p:s2", "q:s", "h", "p:h", "set", "z", "p:z", "z2"],
    )
    .to_owned()
}

/// One of the `usual` keys, or now and then a key whose type the command does not expect.
fn key_of(random: &mut Rng, usual: &[&str]) -> String {
    match random.u8(..12) {
        0 => key(random),
        _ => pick(random, usual).to_owned(),
    }
}

/// A command, mostly a meaningful one.
pub(crate) fn command(random: &mut Rng) -> Vec<Vec<u8>> {
    let line = match random.u32(..100) {
        0..28 => string_command(random),
        28..42 => key_command(random),
        42..52 => hash_command(random),
        52..58 => set_command(random),
        58..72 => sorted_command(random),
        72..82 => transaction_command(random),
        82..90 => pubsub_command(random),
        90..96 => connection_command(random),
        96..99 => return script_command(random),
        _ => nonsense(random),
    };
    words(&line.split(' ').collect::<Vec<_>>())
}

fn number(random: &mut Rng) -> String {
    match random.u8(..12) {
        0 => pick(
            random,
            &[
                "x",
                "",
                "01",
                "9223372036854775807",
                "-9223372036854775808",
                "1.5",
            ],
        )
        .to_owned(),
        _ => random.i64(-3..6).to_string(),
    }
}

fn value(random: &mut Rng) -> String {
    pick(random, &["a", "b", "1", "17", "some-longer-value", "-5"]).to_owned()
}

/// Options of `SET`. Times of expiry in them are long past or far in the future.
fn set_options(random: &mut Rng) -> String {
    let mut options = String::new();
    for _ in 0..random.usize(..3) {
        options.push(' ');
        options.push_str(pick(
            random,
            &[
                "NX",
                "XX",
                "GET",
                "KEEPTTL",
                "EX 100",
                "PX 200000",
                "PXAT 1",
                "EXAT 1",
                "EXAT 4000000000",
                "PXAT 4000000000000",
                "EX 0",
                "PX x",
                "EX",
                "nx",
                "bad",
                "EX 9223372036854775807",
                "PX -1",
            ],
        ));
    }
    options
}

fn string_command(random: &mut Rng) -> String {
    let key = key_of(random, &["p:s", "p:s2", "q:s"]);
    let (value, number) = (value(random), number(random));
    match random.u8(..24) {
        0..7 => format!("SET {key} {value}{}", set_options(random)),
        7..10 => format!("GET {key}"),
        10 => format!("GETRANGE {key} {number} {}", random.i64(-4..8)),
        11 => format!("APPEND {key} {value}"),
        12 => format!("{} {key}", pick(random, &["INCR", "DECR"])),
        13 => format!("{} {key} {number}", pick(random, &["INCRBY", "DECRBY"])),
        14 => format!("STRLEN {key}"),
        15 => format!("GETDEL {key}"),
        16 => {
            let option = pick(
                random,
                &["", " PERSIST", " EX 100", " PXAT 1", " EX 0", " NX"],
            );
            format!("GETEX {key}{option}")
        }
        17 => format!("MGET {key} q:s h none"),
        18 => format!("{} {key} {value} q:s 1", pick(random, &["MSET", "MSETNX"])),
        19 => format!("SETNX {key} {value}"),
        20 => format!(
            "{} {key} 200000 {value}",
            pick(random, &["SETEX", "PSETEX"])
        ),
        21 => format!("GETSET {key} {value}"),
        22 => format!("SETRANGE {key} {number} {value}"),
        _ => format!("MSET {key} {value} q:s"),
    }
}

fn key_command(random: &mut Rng) -> String {
    let (one, two) = (key(random), key(random));
    match random.u8(..18) {
        0..3 => format!(
            "{} {one} {two}",
            pick(random, &["DEL", "UNLINK", "EXISTS", "TOUCH"])
        ),
        3 => format!("TYPE {one}"),
        4..8 => {
            let line = pick(
                random,
                &[
                    "EXPIRE # 100",
                    "PEXPIRE # 100000",
                    "PEXPIREAT # 4000000000000",
                    "EXPIREAT # 4000000000",
                    "PEXPIREAT # 1",
                    "EXPIRE # -1",
                    "EXPIRE # 0",
                    "EXPIRE # x",
                    "PEXPIRE # 9223372036854775807",
                    "EXPIREAT # 4000000001",
                ],
            );
            let options = pick(
                random,
                &[
                    "", "", "", " NX", " GT", " XX", " LT", " NX XX", " GT LT", " XX GT", " what",
                ],
            );
            format!("{}{options}", line.replace('#', &one))
        }
        8..11 => {
            let verb = pick(random, &["TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME"]);
            format!("{verb} {one}")
        }
        11 => format!("PERSIST {one}"),
        12 => format!("{} {one} {two}", pick(random, &["RENAME", "RENAMENX"])),
        13 => {
            let options = pick(random, &["", " REPLACE", " DB 0", " what", " DB"]);
            format!("COPY {one} {two}{options}")
        }
        14 => pick(
            random,
            &[
                "DBSIZE",
                "KEYS q:*",
                "KEYS ?2",
                "KEYS [^a-zA-Z]",
                "DBSIZE x",
            ],
        )
        .to_owned(),
        15 if random.u8(..4) == 0 => pick(
            random,
            &["FLUSHALL", "FLUSHDB", "FLUSHALL ASYNC", "FLUSHALL what"],
        )
        .to_owned(),
        _ => format!("EXISTS {one}"),
    }
}

fn hash_command(random: &mut Rng) -> String {
    let key = key_of(random, &["h", "p:h"]);
    let (field, value) = (pick(random, &["f", "g", "i"]), value(random));
    match random.u8(..12) {
        0..4 => format!("HSET {key} {field} {value} g 2"),
        4 => format!("HSET {key} {field}"),
        5 => format!("HGETALL {key}"),
        6 => format!("HMGET {key} {field} none"),
        7 => format!("HDEL {key} {field} none"),
        8 => format!("{} {key}", pick(random, &["HLEN", "HKEYS", "HVALS"])),
        9 => format!("{} {key} {field}", pick(random, &["HGET", "HEXISTS"])),
        10 => format!(
            "{} {key} {field} {value}",
            pick(random, &["HSETNX", "HMSET"])
        ),
        _ => format!("HINCRBY {key} {field} {}", number(random)),
    }
}

fn set_command(random: &mut Rng) -> String {
    let key = key_of(random, &["set"]);
    let member = pick(random, &["a", "b", "c"]);
    match random.u8(..6) {
        0 | 1 => format!("SADD {key} {member} a"),
        2 => format!("SREM {key} {member}"),
        // `SMEMBERS` is left out, because the order of members is undefined, and the comparison
        // heeds the order in RESP2.
        3 => format!("SCARD {key}"),
        4 => format!("SISMEMBER {key} {member}"),
        _ => format!("SMISMEMBER {key} {member} a"),
    }
}

fn sorted_command(random: &mut Rng) -> String {
    let key = key_of(random, &["z", "p:z", "z2"]);
    let member = pick(random, &["a", "b", "c", "ab", "(b"]);
    let score = pick(
        random,
        &[
            "0",
            "0",
            "1",
            "2.5",
            "-inf",
            "+inf",
            "1e3",
            "x",
            "nan",
            "1764379200123",
        ],
    );
    match random.u8(..14) {
        0..4 => {
            let options = pick(
                random,
                &[
                    "", "", "", "NX ", "XX ", "GT ", "LT ", "CH ", "INCR ", "NX XX ", "GT CH ",
                    "NX GT ",
                ],
            );
            format!("ZADD {key} {options}{score} {member}")
        }
        4 => format!("ZADD z2 0 {member} 0 a 0 c"),
        5 => format!("ZREM {key} {member} none"),
        6 => format!("ZCARD {key}"),
        7 => format!("{} {key} {member}", pick(random, &["ZSCORE", "ZRANK"])),
        8 => {
            let options = pick(
                random,
                &["", " WITHSCORES", " REV", " LIMIT 0 1", " REV WITHSCORES"],
            );
            format!(
                "ZRANGE {key} {} {}{options}",
                number(random),
                random.i64(-3..4)
            )
        }
        9 => {
            let options = pick(
                random,
                &[
                    "",
                    " LIMIT 0 2",
                    " LIMIT 1 -1",
                    " REV",
                    " WITHSCORES",
                    " LIMIT -1 2",
                ],
            );
            let ends = pick(random, &["- +", "(a +", "[a [b", "+ -", "a b", "(a (c"]);
            // The order has a meaning only if all scores are equal.
            format!("ZRANGE z3 {ends} BYLEX{options}")
        }
        10 => {
            let ends = pick(
                random,
                &["-inf +inf", "0 1", "(0 2.5", "1 0", "x 1", "-inf (1"],
            );
            let options = pick(
                random,
                &["", " LIMIT 0 2", " WITHSCORES", " REV", " LIMIT 1"],
            );
            format!("ZRANGE {key} {ends} BYSCORE{options}")
        }
        11 => format!("ZREMRANGEBYSCORE {key} -inf {score}"),
        12 => format!("ZCOUNT {key} {score} +inf"),
        _ => {
            let more = pick(random, &["0 a", "0 b 0 c", "0 ab", "0 d"]);
            format!("ZADD z3 {more}")
        }
    }
}

fn transaction_command(random: &mut Rng) -> String {
    match random.u8(..10) {
        0..3 => "MULTI".to_owned(),
        3..7 => "EXEC".to_owned(),
        7 => "DISCARD".to_owned(),
        8 => format!("WATCH {} {}", key(random), key(random)),
        _ => "UNWATCH".to_owned(),
    }
}

fn pubsub_command(random: &mut Rng) -> String {
    let channel = pick(random, &["c1", "c2", "c3"]);
    match random.u8(..16) {
        0..2 => format!("SUBSCRIBE {channel} c1"),
        2 => format!("UNSUBSCRIBE {channel} none"),
        3 => format!("SSUBSCRIBE {channel}"),
        4 => format!("SUNSUBSCRIBE {channel}"),
        5 => pick(
            random,
            &["PSUBSCRIBE c*", "PUNSUBSCRIBE c*", "PUNSUBSCRIBE"],
        )
        .to_owned(),
        6 => format!("PUBSUB NUMSUB {channel} none"),
        7 => pick(
            random,
            &[
                "PUBSUB NUMPAT",
                "PUBSUB SHARDNUMSUB c1",
                "PUBSUB CHANNELS c1",
            ],
        )
        .to_owned(),
        8..10 => format!("SPUBLISH {channel} shard"),
        _ => format!("PUBLISH {channel} payload"),
    }
}

fn connection_command(random: &mut Rng) -> String {
    match random.u8(..16) {
        0..8 => {
            let options = pick(
                random,
                &[
                    "ON BCAST",
                    "ON BCAST PREFIX p:",
                    "ON BCAST PREFIX p: PREFIX q:",
                    "ON",
                    "OFF",
                    "ON BCAST NOLOOP",
                    "ON NOLOOP",
                    "ON BCAST NOLOOP PREFIX z",
                    "ON PREFIX p:",
                    "ON BCAST PREFIX p PREFIX p:",
                    "what",
                    "ON what",
                    "ON BCAST PREFIX",
                ],
            );
            format!("CLIENT TRACKING {options}")
        }
        8 => pick(
            random,
            &["ECHO hello", "PING", "PING one two", "PING hello"],
        )
        .to_owned(),
        9 => pick(random, &["SELECT 0", "SELECT x", "SELECT 99", "SELECT -1"]).to_owned(),
        10 => pick(
            random,
            &[
                "HELLO 3",
                "HELLO",
                "HELLO 9",
                "HELLO x",
                "HELLO 2",
                "HELLO 3 SETNAME n",
            ],
        )
        .to_owned(),
        11 => pick(
            random,
            &["CLIENT GETNAME", "CLIENT SETNAME me", "CLIENT NO-EVICT on"],
        )
        .to_owned(),
        12 => "RESET".to_owned(),
        13 if random.bool() => "QUIT".to_owned(),
        14 => format!("CLIENT KILL ID @{}", random.usize(..CONNECTIONS)),
        15 => format!("CLIENT KILL ID @{} SKIPME no", random.usize(..CONNECTIONS)),
        _ => pick(
            random,
            &[
                "ROLE",
                "WAIT 0 10",
                "CLIENT KILL 1.2.3.4:5",
                "AUTH x",
                "CLIENT KILL TYPE pubsub",
                "CLIENT KILL TYPE what",
            ],
        )
        .to_owned(),
    }
}

fn script_command(random: &mut Rng) -> Vec<Vec<u8>> {
    const NEVER: &str = "9007199254740992";
    match random.u8(..8) {
        0 | 1 => words(&["SCRIPT", "LOAD", SCRIPT]),
        2 => words(&["EVAL", SCRIPT, "0", NEVER, "c1", "from a script"]),
        3 => words(&["EVALSHA", "@script", "0", "1", "c1", "too late"]),
        4 => words(&["EVALSHA", "@script", "1", "c1", NEVER, "one", "two"]),
        5 => words(&[
            "EVALSHA",
            "@script",
            "0",
            pick(random, &[NEVER, "x"]),
            "c1",
            "odd",
            "c2",
        ]),
        6 => words(&["EVALSHA", "ff", "0"]),
        _ => words(&["EVALSHA", "@script", "0", NEVER, "c1", "one", "c2", "two"]),
    }
}

fn nonsense(random: &mut Rng) -> String {
    pick(
        random,
        &[
            "NOSUCH a b",
            "GET",
            "CLIENT",
            "CLIENT NOSUCH",
            "SET a",
            "CLUSTER SLOTS",
            "PUBSUB what",
            "SCRIPT EXISTS ff",
            "EVALSHA ff x",
            "EVALSHA @script 9",
            "EVALSHA @script -1",
        ],
    )
    .to_owned()
}
