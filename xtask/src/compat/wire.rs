//! Bytes that reach the servers.

use std::fmt::Write as _;

use twemproxy_testkit::harness::private_dir;
use twemproxy_testkit::model::redis::array_of;

use super::Pair;
use super::canned::{Canned, Manner};
use super::side::{Running, Side, converse};
use super::verdict::{Cell, Expect};

/// A pool in front of canned servers.
struct Pool {
    name: &'static str,
    manner: Manner,
    directives: &'static str,
    servers: usize,
    tcp: bool,
}

#[rustfmt::skip]
const POOLS: [Pool; 6] = [
    Pool { name: "redis", manner: Manner::Redis, directives: "redis: true", servers: 3, tcp: false },
    Pool { name: "memcached", manner: Manner::Memcached, directives: "redis: false", servers: 3, tcp: false },
    Pool {
        name: "auth", manner: Manner::Redis, directives: "redis: true\n  redis_auth: secret", servers: 1, tcp: true,
    },
    Pool { name: "db", manner: Manner::Redis, directives: "redis: true\n  redis_db: 3", servers: 1, tcp: true },
    Pool { name: "db-unix", manner: Manner::Redis, directives: "redis: true\n  redis_db: 3", servers: 1, tcp: false },
    Pool {
        name: "auth-db", manner: Manner::Redis, directives: "redis: true\n  redis_auth: secret\n  redis_db: 3",
        servers: 1, tcp: true,
    },
];

/// Redis requests as words, for the pool in front of three servers.
#[rustfmt::skip]
const REDIS: [&str; 44] = [
    "GET a", "get a", "GeT a", "SET a 1", "SET a 1 EX 5 NX", "SET k", "INCR n", "APPEND a x", "SETEX a 1 v", "GETRANGE a 0 1",
    "LPUSH l 1 2 3", "LINSERT l BEFORE 1 2", "SADD s a b c", "ZADD z 1 a 2 b", "ZRANGEBYSCORE z -inf +inf", "HSET h f v g w",
    "HMGET h f g", "PFADD p a b", "GEOADD g 13.3 38.1 x", "EVAL return 1 a", "EVALSHA abc 1 a", "SORT l", "DUMP a",
    "RESTORE a 0 x", "EXPIRE a 10", "TYPE a", "BITFIELD a GET u8 0", "MGET a", "DEL a", "UNLINK a", "TOUCH a", "MSET a 1",
    "MGET apple beat carrot daikon eggplant foo user1 lychee", "mget a a a", "DEL apple beat carrot daikon eggplant foo", "UNLINK apple beat carrot daikon", "TOUCH daikon carrot beat apple", "MSET apple 1 beat 2 carrot 3 daikon 4",
    "MSET a 1 a 2", "MGET b a", "LOLWUT", "COMMAND", "EXISTS a", "COPY a a",
];

/// Every other command of 0.5 with the words that follow its key, by how many there are.
#[rustfmt::skip]
const COMMANDS: [(&str, &str); 5] = [
    ("", "DECR DUMP GET GETDEL HGETALL HKEYS HLEN HVALS INCR LLEN PERSIST PTTL SCARD SMEMBERS STRLEN TTL TYPE ZCARD"),
    (" 1", "APPEND DECRBY EXPIRE EXPIREAT GETBIT GETSET HEXISTS HGET HSTRLEN INCRBY INCRBYFLOAT LINDEX PEXPIRE PEXPIREAT SETNX \
        SISMEMBER ZRANK ZREVRANK ZSCORE"),
    (" 1 2", "GETRANGE HINCRBY HINCRBYFLOAT HSETNX LRANGE LREM LSET LTRIM PSETEX SETBIT SETEX SETRANGE ZCOUNT ZINCRBY ZLEXCOUNT \
        ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE"),
    (" 1 2 3", "LINSERT"),
    (" 1 2 3 4", "BITCOUNT BITFIELD BITPOS GEOADD GEODIST GEOHASH GEOPOS GEORADIUS GEORADIUSBYMEMBER GEOSEARCH GETEX HDEL HMGET HMSET \
        HRANDFIELD HSCAN HSET LPOP LPOS LPUSH LPUSHX PFADD RESTORE RPOP RPUSH RPUSHX SADD SET SMISMEMBER SORT SPOP SRANDMEMBER SREM SSCAN \
        ZADD ZMSCORE ZPOPMAX ZPOPMIN ZRANDMEMBER ZRANGE ZRANGEBYLEX ZRANGEBYSCORE ZREM ZREVRANGE ZREVRANGEBYLEX ZREVRANGEBYSCORE ZSCAN"),
];

/// Commands with several keys that are never split; here the keys are the same one.
#[rustfmt::skip]
const SAME_KEYS: [&str; 15] = [
    "RPOPLPUSH k k", "SMOVE k k m", "LMOVE k k LEFT RIGHT", "PFCOUNT k k", "PFMERGE k k", "SDIFF k k", "SDIFFSTORE k k", "SINTER k k",
    "SINTERSTORE k k k", "SUNION k k", "SUNIONSTORE k k", "GEOSEARCHSTORE k k FROMMEMBER m", "ZRANGESTORE k k 0 1",
    "ZUNIONSTORE k 2 k k", "ZINTERSTORE k 1 k",
];

/// Memcached requests with the line end as `\n`.
#[rustfmt::skip]
const MEMCACHED: [&str; 27] = [
    "get a\n", "gets a\n", "  get   a  \n", "get apple beat carrot daikon eggplant foo user1 lychee\n", "gets apple beat carrot daikon eggplant foo\n", "get a a a\n", "get  b   a \n",
    "set a 0 0 1\nx\n", "set  a  0  0  1 \nx\n", "add a 5 100 3\nabc\n", "replace a 0 0 0\n\n", "append a 0 0 1\ny\n",
    "prepend a 0 0 1\nz\n", "cas a 0 0 1 77\nx\n", "set a 4294967295 2147483647 4\n\n\n\n", "incr n 5\n", "decr n 18446744073709551615\n",
    "delete a\n", "touch a 100\n", "touch a -1\n", "version\n", "set a 0 0 1 noreply\nx\nget a\n", "delete a noreply\nget a\n",
    "incr a 1 noreply\nget a\n", "touch a 1 noreply\nget a\n", "get noreply\n", "cas a 0 0 1 77 noreply\nx\nget a\n",
];

/// Our bytes where 0.5 sends others.
const BETTER: [(&str, &str, &str); 3] = [
    (
        r#"memcached "  get   a  \n""#,
        "D41",
        "[memcached0] get   a  \r\n => VALUE a 0 10\r\nmemcached0\r\nEND\r\n",
    ),
    (
        "db on a unix socket: first request",
        "D18",
        "[db-unix0] *2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\n => $8\r\ndb-unix0\r\n",
    ),
    (
        "auth and db: first request",
        "D18",
        "[auth-db0] *2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\n \
         => +OK\r\n$8\r\nauth-db0\r\n",
    ),
];

pub(super) fn compare(pair: &Pair) -> Vec<Cell> {
    let theirs = recorded(&pair.theirs);
    let ours = recorded(&pair.ours);
    let cells = theirs.into_iter().zip(ours);
    cells
        .map(|((name, theirs), (_, ours))| {
            let better = BETTER.iter().find(|(case, ..)| *case == name);
            let expect = better.map_or(Expect::Same, |(_, reason, ours)| {
                Expect::better(reason, *ours)
            });
            Cell {
                area: "bytes to servers",
                name,
                expect,
                theirs,
                ours,
            }
        })
        .collect()
}

/// Each request as each server received it, by the request's name.
fn recorded(side: &Side) -> Vec<(String, Vec<u8>)> {
    let dir = private_dir();
    let mut yaml = String::new();
    let mut sockets = Vec::new();
    let mut all = Vec::new();
    for pool in &POOLS {
        let socket = dir.path().join(format!("{}.sock", pool.name));
        let servers: Vec<Canned> = (0..pool.servers)
            .map(|i| {
                let name = format!("{}{i}", pool.name);
                if pool.tcp {
                    Canned::tcp(&name, pool.manner)
                } else {
                    Canned::unix(dir.path(), &name, pool.manner)
                }
            })
            .collect();
        let lines: String = servers.iter().map(|server| server.line(1)).collect();
        let (name, directives) = (pool.name, pool.directives);
        write!(
            yaml,
            "{name}:\n  listen: {}\n  {directives}\n  servers:\n{lines}",
            socket.display()
        )
        .expect("a string takes everything");
        sockets.push(socket);
        all.push(servers);
    }
    let running: Running = match side.serve(dir.path(), &yaml, &sockets) {
        Ok(running) => running,
        Err(error) => return vec![("start".to_owned(), error.into_bytes())],
    };
    let sent = |pool: usize, request: &[u8]| {
        let answer = converse(&sockets[pool], request);
        let mut seen = Vec::new();
        for server in &all[pool] {
            let bytes = server.take();
            if !bytes.is_empty() {
                seen.extend_from_slice(format!("[{}] ", server.name).as_bytes());
                seen.extend(bytes);
            }
        }
        seen.extend_from_slice(b" => ");
        seen.extend(answer);
        seen
    };
    let mut cells = Vec::new();
    for text in REDIS {
        let words: Vec<&str> = text.split(' ').collect();
        // A script's key count stands before its keys.
        let words = if words[0] == "EVAL" {
            vec!["EVAL", "return 1", "1", "a"]
        } else {
            words
        };
        cells.push((format!("redis {text}"), sent(0, &array_of(&words))));
    }
    for (words, names) in COMMANDS {
        for name in names.split_whitespace() {
            let text = format!("{name} key:{name}{words}");
            let request = array_of(&text.split(' ').collect::<Vec<_>>());
            cells.push((format!("redis {text}"), sent(0, &request)));
        }
    }
    for text in SAME_KEYS {
        let request = array_of(&text.split(' ').collect::<Vec<_>>());
        cells.push((format!("redis {text}"), sent(0, &request)));
    }
    for text in MEMCACHED {
        let request = text.replace('\n', "\r\n");
        cells.push((format!("memcached {text:?}"), sent(1, request.as_bytes())));
    }
    let auth = array_of(&["AUTH", "secret"]);
    for (pool, name) in [
        (2, "auth"),
        (3, "db"),
        (4, "db on a unix socket"),
        (5, "auth and db"),
    ] {
        let greeting = if name.starts_with("auth") {
            auth.as_slice()
        } else {
            b""
        };
        let request = [greeting, &array_of(&["GET", "a"])].concat();
        cells.push((format!("{name}: first request"), sent(pool, &request)));
        cells.push((format!("{name}: second request"), sent(pool, &request)));
    }
    drop(running);
    cells
}
