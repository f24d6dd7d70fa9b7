//! Redis through the real binary, byte for byte what one redis would have said.

#[path = "redis/table.rs"]
mod table;

use std::collections::BTreeSet;

use twemproxy_testkit::harness::{Bed, POOL, PoolBuilder, ServerKind};
use twemproxy_testkit::model::redis::{Store, array_of, bulk, split_words};
use twemproxy_testkit::rng::Rng;
use twemproxy_testkit::transcripts::{boundary_sizes, filler};
use twemproxy_testkit::wire::{Wire, escape};

const BINARY: &str = env!("CARGO_BIN_EXE_nutcracker");

fn bed(servers: usize) -> Option<Bed> {
    Bed::start(BINARY, ServerKind::Redis, servers)
}

fn bed_with(servers: usize, change: impl FnOnce(PoolBuilder) -> PoolBuilder) -> Option<Bed> {
    Bed::start_with(BINARY, ServerKind::Redis, servers, change)
}

fn ask<W: AsRef<[u8]>>(wire: &mut Wire, words: &[W]) -> Vec<u8> {
    wire.send(&array_of(words));
    wire.read_redis()
}

/// The server in whose memory `key` is.
fn owner(bed: &Bed, key: &[u8]) -> usize {
    let holds =
        |server: usize| ask(&mut bed.servers[server].connect(), &[b"EXISTS", key]) == b":1\r\n";
    (0..bed.servers.len())
        .find(|&server| holds(server))
        .expect("the key was set")
}

/// Two keys with values, owned by different servers.
fn keys_on_two_servers(bed: &Bed) -> [(Vec<u8>, usize); 2] {
    let mut client = bed.client();
    let mut found: Vec<(Vec<u8>, usize)> = Vec::new();
    for i in 0..100 {
        let key = format!("cross-{i}").into_bytes();
        client.roundtrip(&array_of(&[b"SET", &key[..], b"v"]), b"+OK\r\n");
        let at = owner(bed, &key);
        if found.iter().all(|(_, server)| *server != at) {
            found.push((key, at));
        }
        if let [first, second] = &found[..] {
            return [first.clone(), second.clone()];
        }
    }
    panic!("a hundred keys live on one server");
}

// C78 C82
#[test]
fn every_command_answers_as_one_redis_does() {
    let Some(bed) = bed_with(4, |pool| pool.set("hash_tag", "\"{}\"")) else {
        return;
    };
    let mut client = bed.client();
    let mut direct = bed.direct.connect();
    for line in table::LINES {
        let (text, exact) = line
            .strip_prefix('~')
            .map_or((*line, true), |text| (text, false));
        let words = split_words(text.as_bytes()).expect("the table has no open quotes");
        let expected = ask(&mut direct, &words);
        let reply = ask(&mut client, &words);
        if exact {
            let shown = (escape(&reply), escape(&expected));
            assert!(reply == expected, "{text}: {} is not {}", shown.0, shown.1);
        } else {
            assert_eq!(reply[0], expected[0], "{text}: {}", escape(&reply));
        }
    }
}

#[test]
fn the_table_names_every_command_of_twemproxy() {
    let tried: BTreeSet<String> = table::LINES
        .iter()
        .filter_map(|line| line.trim_start_matches('~').split(' ').next())
        .map(str::to_uppercase)
        .collect();
    let supported: Vec<&str> = table::SUPPORTED.split_whitespace().collect();
    assert_eq!(supported.len(), 135, "137 without AUTH and QUIT");
    let missing: Vec<_> = supported
        .iter()
        .filter(|name| !tried.contains(**name))
        .collect();
    assert!(missing.is_empty(), "never tried: {missing:?}");
}

// D3
#[test]
fn inline_commands_are_served_like_arrays() {
    let Some(bed) = bed(2) else { return };
    let mut client = bed.client();
    client.roundtrip(b"SET a \"x\\x41\\n\"\r\n", b"+OK\r\n");
    client.roundtrip(b"GET a\n", b"$3\r\nxA\n\r\n");
    client.roundtrip(
        b"\r\n  \r\nMGET a 'b c'  \r\n",
        b"*2\r\n$3\r\nxA\n\r\n$-1\r\n",
    );
    client.roundtrip(&array_of(&["GET", "a"]), b"$3\r\nxA\n\r\n");
}

// C97
#[test]
fn a_thousand_pipelined_requests_are_answered_in_order() {
    let Some(bed) = bed(4) else { return };
    let mut rng = Rng::new(3);
    let mut store = Store::default();
    let (mut requests, mut replies) = (Vec::new(), Vec::new());
    for i in 0..1000_usize {
        let key = |rng: &mut Rng| format!("k{}", rng.below(50)).into_bytes();
        let value = format!("value-{i}").into_bytes();
        let words: Vec<Vec<u8>> = match rng.below(8) {
            0 | 1 => vec![b"GET".to_vec(), key(&mut rng)],
            2 => vec![b"SET".to_vec(), key(&mut rng), value],
            3 => vec![b"APPEND".to_vec(), key(&mut rng), value],
            4 => vec![b"DEL".to_vec(), key(&mut rng), key(&mut rng)],
            5 => {
                let mut words = vec![b"MGET".to_vec()];
                words.extend((0..5).map(|_| key(&mut rng)));
                words
            }
            6 => {
                let pair = [key(&mut rng), value.clone(), key(&mut rng), value];
                [vec![b"MSET".to_vec()], pair.to_vec()].concat()
            }
            _ => {
                requests.extend(array_of(&[&b"ECHO"[..], &value]));
                replies.extend(bulk(&value));
                continue;
            }
        };
        requests.extend(array_of(&words));
        replies.extend(store.apply(&words));
    }
    bed.client().roundtrip(&requests, &replies);
}

// C86 C87 C88 C89 D6
#[test]
fn multi_key_commands_work_across_servers() {
    let Some(bed) = bed(4) else { return };
    let mut client = bed.client();
    let mut direct = bed.direct.connect();
    // Binary keys and values, an empty one of each.
    let mut rng = Rng::new(4);
    let mut keys: Vec<Vec<u8>> = (0..40).map(|len| rng.bytes(len)).collect();
    keys.push(b"\r\n$-1\r\n".to_vec());
    let mut mset = vec![b"MSET".to_vec()];
    for (i, key) in keys.iter().enumerate() {
        mset.extend([key.clone(), rng.bytes(i * 7 % 40)]);
    }
    let missing = (0..10).map(|i| format!("missing-{i}").into_bytes());
    let mut asked: Vec<Vec<u8>> = keys.iter().cloned().chain(missing).collect();
    // Twice each, and not in the order of setting.
    asked = [asked.clone(), asked].concat();
    asked.reverse();
    let with = |name: &str, keys: &[Vec<u8>]| [&[name.as_bytes().to_vec()], keys].concat();
    let requests = [
        mset,
        with("MGET", &asked),
        with("EXISTS", &asked),
        with("TOUCH", &asked),
        with("DEL", &asked[..30]),
        with("MGET", &asked),
        with("UNLINK", &asked),
        with("EXISTS", &asked),
        with("MGET", &asked[..1]),
    ];
    for words in requests {
        let name = escape(&words[0]);
        let expected = ask(&mut direct, &words);
        let reply = ask(&mut client, &words);
        assert!(
            reply == expected,
            "{name}: {} is not {}",
            escape(&reply),
            escape(&expected)
        );
    }
    let used = bed.servers.iter().enumerate();
    for (i, server) in used {
        let stats = ask(&mut server.connect(), &[&b"INFO"[..], b"commandstats"]);
        let stats = String::from_utf8_lossy(&stats).into_owned();
        assert!(stats.contains("cmdstat_mget"), "server {i} got no fragment");
    }
}

// C131
#[test]
fn a_hundred_clients_on_one_server_connection_get_their_own_replies() {
    let Some(bed) = bed_with(1, |pool| pool.set("server_connections", "1")) else {
        return;
    };
    const ROUNDS: usize = 20;
    let mut clients: Vec<Wire> = (0..100).map(|_| bed.client()).collect();
    for round in 0..ROUNDS {
        for (i, client) in clients.iter_mut().enumerate() {
            let value = format!("client-{i}-round-{round}-{}", "x".repeat(i * 17 % 300));
            let key = format!("key-{i}");
            client.send(&array_of(&["SET", &key, &value]));
            client.send(&array_of(&["GET", &key]));
            client.send(&array_of(&["MGET", &key, &key]));
        }
        for (i, client) in clients.iter_mut().enumerate() {
            let value = format!("client-{i}-round-{round}-{}", "x".repeat(i * 17 % 300));
            let one = bulk(value.as_bytes());
            client.expect(&[b"+OK\r\n", &one[..], b"*2\r\n", &one, &one].concat());
        }
    }
    assert_eq!(bed.proxy.stat(POOL, &["s0", "server_connections"]), 1);
    assert_eq!(bed.proxy.stat(POOL, &["s0", "in_queue"]), 0);
    assert_eq!(bed.proxy.stat(POOL, &["s0", "out_queue"]), 0);
}

#[test]
fn values_of_every_awkward_size_pass_unchanged() {
    let Some(bed) = bed(2) else { return };
    let mut client = bed.client();
    for size in [0, 1].into_iter().chain(boundary_sizes()) {
        let value = filler(size);
        let key = format!("size-{size}");
        client.roundtrip(&array_of(&[b"SET", key.as_bytes(), &value]), b"+OK\r\n");
        client.roundtrip(&array_of(&["GET", &key]), &bulk(&value));
        let twice = [b"*2\r\n".to_vec(), bulk(&value), bulk(&value)].concat();
        client.roundtrip(&array_of(&["MGET", &key, &key]), &twice);
    }
}

// C92
#[test]
fn a_value_of_sixteen_megabytes_passes_unchanged() {
    let Some(bed) = bed(1) else { return };
    let mut client = bed.client();
    let value = filler(16 << 20);
    client.roundtrip(&array_of(&[b"SET", &b"big"[..], &value]), b"+OK\r\n");
    client.roundtrip(&array_of(&["GET", "big"]), &bulk(&value));
    let mget = [b"*2\r\n".to_vec(), bulk(&value), b"$-1\r\n".to_vec()].concat();
    client.roundtrip(&array_of(&["MGET", "big", "small"]), &mget);
}

// C57 C91 D7
#[test]
fn keys_are_as_long_as_redis_takes_them() {
    let Some(bed) = bed(4) else { return };
    let mut client = bed.client();
    // 16335 was twemproxy's limit with chunks of 16 KB.
    for len in [0, 1, 250, 251, 16_335, 16_336, 65_536, 1 << 20] {
        let key = filler(len);
        client.roundtrip(&array_of(&[b"SET", &key[..], b"v"]), b"+OK\r\n");
        client.roundtrip(&array_of(&[b"GET", &key[..]]), b"$1\r\nv\r\n");
        let both = array_of(&[b"MGET", &key[..], b"missing"]);
        client.roundtrip(&both, b"*2\r\n$1\r\nv\r\n$-1\r\n");
        client.roundtrip(&array_of(&[b"DEL", &key[..], b"missing"]), b":1\r\n");
    }
}

// C96
#[test]
fn requests_may_arrive_one_byte_at_a_time() {
    let Some(bed) = bed(4) else { return };
    let mut client = bed.client();
    let requests = [
        array_of(&["SET", "a", "1"]),
        array_of(&["MSET", "b", "2", "c", "3"]),
        b"GET \"a\"\r\n".to_vec(),
        array_of(&["MGET", "c", "b", "a", "d"]),
        array_of(&["nosuch", "x"]),
        array_of(&["DEL", "a", "b", "d"]),
    ];
    client.send_byte_by_byte(&requests.concat());
    client.expect(
        b"+OK\r\n+OK\r\n$1\r\n1\r\n*4\r\n$1\r\n3\r\n$1\r\n2\r\n$1\r\n1\r\n$-1\r\n\
          -ERR unknown command 'nosuch', with args beginning with: 'x' \r\n:2\r\n",
    );
}

// C83 C93 D5
#[test]
fn a_script_without_keys_runs_on_some_server() {
    let Some(bed) = bed(4) else { return };
    let mut client = bed.client();
    let nested = array_of(&["EVAL", "return {1,{2,{3,{'x',{}}}},false}", "0"]);
    client.roundtrip(
        &nested,
        b"*3\r\n:1\r\n*2\r\n:2\r\n*2\r\n:3\r\n*2\r\n$1\r\nx\r\n*0\r\n$-1\r\n",
    );
    let deep = "local t={} for i=1,50 do t={t} end return t";
    let expected = [b"*1\r\n".repeat(50), b"*0\r\n".to_vec()].concat();
    client.roundtrip(&array_of(&["EVAL", deep, "0", "arg"]), &expected);
}

// D29
#[test]
fn keys_on_two_servers_are_refused_where_no_merge_exists() {
    let Some(bed) = bed(4) else { return };
    let [(one, first), (two, second)] = keys_on_two_servers(&bed);
    let mut client = bed.client();
    let (one, two) = (&one[..], &two[..]);
    let expected = format!(
        "-CROSSSLOT Keys in request don't hash to the same server ({}: s{first}, {}: s{second})\r\n",
        String::from_utf8_lossy(one),
        String::from_utf8_lossy(two)
    );
    for words in [
        vec![b"SUNION", one, two],
        vec![b"SMOVE", one, two, b"m"],
        vec![b"PFCOUNT", one, two],
        vec![b"COPY", one, two],
        vec![b"EVAL", b"return 1", b"2", one, two],
        vec![b"ZUNION", b"2", one, two],
    ] {
        client.roundtrip(&array_of(&words), expected.as_bytes());
    }
    client.roundtrip(&array_of(&[b"GET", one]), b"$1\r\nv\r\n");
}

// C83 D29
#[test]
fn cross_server_keys_first_brings_back_the_old_routing() {
    let Some(bed) = bed_with(4, |pool| pool.set("cross_server_keys", "first")) else {
        return;
    };
    let [(one, _), (two, _)] = keys_on_two_servers(&bed);
    let mut client = bed.client();
    let (one, two) = (&one[..], &two[..]);
    // The second key is looked for on the first one's server, where it does not exist.
    let script = b"return {redis.call('exists',KEYS[1]),redis.call('exists',KEYS[2])}";
    let eval = array_of(&[b"EVAL", &script[..], b"2", one, two]);
    client.roundtrip(&eval, b"*2\r\n:1\r\n:0\r\n");
    client.roundtrip(&array_of(&[b"COPY", one, two]), b":1\r\n");
}

// C121
#[test]
fn half_a_close_still_delivers_every_reply() {
    let Some(bed) = bed(4) else { return };
    let mut client = bed.client();
    let mut requests = array_of(&["SET", "k", "v"]);
    let mut replies = b"+OK\r\n".to_vec();
    for i in 0..100 {
        requests.extend(array_of(&["MGET", "k", &format!("missing-{i}")]));
        replies.extend(b"*2\r\n$1\r\nv\r\n$-1\r\n");
    }
    // The last request never ends and is dropped.
    requests.extend(b"*2\r\n$3\r\nGET\r\n$1\r\n");
    client.send(&requests);
    client.half_close();
    client.expect(&replies);
    client.expect_close();
}

// C81 D4
#[test]
fn quit_is_answered_after_everything_before_it() {
    let Some(bed) = bed(2) else { return };
    let mut client = bed.client();
    let requests = [
        array_of(&["SET", "a", "1"]),
        array_of(&["GET", "a"]),
        array_of(&["QUIT"]),
        array_of(&["SET", "a", "2"]),
    ];
    client.send(&requests.concat());
    client.expect(b"+OK\r\n$1\r\n1\r\n+OK\r\n");
    client.expect_close();
    bed.client()
        .roundtrip(&array_of(&["GET", "a"]), b"$1\r\n1\r\n");
}

// C80 C101 D4
#[test]
fn what_the_proxy_answers_itself_needs_no_server() {
    let Some(mut bed) = bed(1) else { return };
    bed.servers[0].process().kill();
    let mut client = bed.client();
    client.roundtrip(&array_of(&["PING"]), b"+PONG\r\n");
    client.roundtrip(&array_of(&["PING", "hi"]), b"$2\r\nhi\r\n");
    client.roundtrip(&array_of(&["ECHO", "hi"]), b"$2\r\nhi\r\n");
    client.roundtrip(&array_of(&["SELECT", "0"]), b"+OK\r\n");
    client.roundtrip(
        &array_of(&["SELECT", "1"]),
        b"-ERR DB index is out of range\r\n",
    );
    client.roundtrip(
        &array_of(&["HELLO", "3"]),
        b"-NOPROTO unsupported protocol version\r\n",
    );
    client.roundtrip(&array_of(&["CLIENT", "GETNAME"]), b"$-1\r\n");
    client.roundtrip(&array_of(&["CLIENT", "SETNAME", "me"]), b"+OK\r\n");
    client.roundtrip(&array_of(&["CLIENT", "GETNAME"]), b"$2\r\nme\r\n");
    let setinfo = array_of(&["CLIENT", "SETINFO", "LIB-NAME", "x"]);
    client.roundtrip(&setinfo, b"+OK\r\n");
    let hello = ask(&mut client, &["HELLO", "2"]);
    let hello = String::from_utf8_lossy(&hello).into_owned();
    assert!(hello.contains("$5\r\nproto\r\n:2\r\n"), "{hello}");
    let auth = array_of(&["AUTH", "x"]);
    client.roundtrip(&auth, b"-ERR Client sent AUTH, but no password is set\r\n");
    let reply = ask(&mut client, &["GET", "a"]);
    assert!(reply.starts_with(b"-ERR "), "{}", escape(&reply));
    client.roundtrip(&array_of(&["QUIT"]), b"+OK\r\n");
    client.expect_close();
}

#[test]
fn ids_of_clients_are_their_own() {
    let Some(bed) = bed(1) else { return };
    let mut ids = BTreeSet::new();
    for _ in 0..10 {
        let mut client = bed.client();
        let id = ask(&mut client, &["CLIENT", "ID"]);
        assert_eq!(ask(&mut client, &["CLIENT", "ID"]), id);
        assert!(ids.insert(id), "given twice");
    }
}

// C84 D1 D50
#[test]
fn commands_a_sharding_proxy_cannot_serve_say_why() {
    let Some(bed) = bed(2) else { return };
    let mut client = bed.client();
    for words in [
        &["SUBSCRIBE", "c"][..],
        &["WATCH", "k"],
        &["MIGRATE", "h", "1", "k", "0", "1"],
        &["KEYS", "*"],
        &["BLPOP", "k", "0"],
        &["FLUSHALL"],
    ] {
        let reply = String::from_utf8(ask(&mut client, words)).expect("text");
        let name = words[0].to_lowercase();
        let expected = format!("-ERR '{name}' is not supported by this proxy");
        assert!(
            reply.to_lowercase().starts_with(&expected.to_lowercase()),
            "{reply}"
        );
        client.roundtrip(&array_of(&["PING"]), b"+PONG\r\n");
    }
}

fn guarded_bed() -> Option<Bed> {
    Bed::start_with_servers(
        BINARY,
        ServerKind::Redis,
        2,
        &["--requirepass", "secret"],
        |pool| pool.set("redis_auth", "secret"),
    )
}

// C98 C99 C100 C103 D28
#[test]
fn a_pool_with_a_password_wants_it() {
    let Some(bed) = guarded_bed() else { return };
    let mut client = bed.client();
    let noauth = b"-NOAUTH Authentication required.\r\n";
    let wrongpass = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n";
    client.roundtrip(&array_of(&["GET", "a"]), noauth);
    client.roundtrip(&array_of(&["PING"]), noauth);
    client.roundtrip(&array_of(&["MGET", "a", "b"]), noauth);
    client.roundtrip(&array_of(&["AUTH", "wrong"]), wrongpass);
    client.roundtrip(&array_of(&["AUTH", "nobody", "secret"]), wrongpass);
    client.roundtrip(&array_of(&["GET", "a"]), noauth);
    client.roundtrip(&array_of(&["AUTH", "secret"]), b"+OK\r\n");
    client.roundtrip(&array_of(&["MSET", "a", "1", "b", "2"]), b"+OK\r\n");
    // A wrong password later does not take the right one back.
    client.roundtrip(&array_of(&["AUTH", "wrong"]), wrongpass);
    client.roundtrip(
        &array_of(&["MGET", "a", "b"]),
        b"*2\r\n$1\r\n1\r\n$1\r\n2\r\n",
    );
    let mut other = bed.client();
    other.roundtrip(&array_of(&["GET", "a"]), noauth);
    other.roundtrip(&array_of(&["AUTH", "default", "secret"]), b"+OK\r\n");
    other.roundtrip(&array_of(&["GET", "a"]), b"$1\r\n1\r\n");
}

#[test]
fn authentication_and_requests_may_be_pipelined() {
    let Some(bed) = guarded_bed() else { return };
    let requests = [
        array_of(&["GET", "a"]),
        array_of(&["AUTH", "secret"]),
        array_of(&["SET", "a", "1"]),
        array_of(&["GET", "a"]),
        array_of(&["QUIT"]),
    ];
    let mut client = bed.client();
    client.send(&requests.concat());
    client.expect(b"-NOAUTH Authentication required.\r\n+OK\r\n+OK\r\n$1\r\n1\r\n+OK\r\n");
    client.expect_close();
}

#[test]
fn strangers_may_only_send_little() {
    let Some(bed) = guarded_bed() else { return };
    for (bytes, reply) in [
        (
            &b"*11\r\n"[..],
            &b"-ERR Protocol error: unauthenticated multibulk length\r\n"[..],
        ),
        (
            b"*1\r\n$16385\r\n",
            b"-ERR Protocol error: unauthenticated bulk length\r\n",
        ),
    ] {
        let mut client = bed.client();
        client.roundtrip(bytes, reply);
        client.expect_close();
    }
}

// C104 C106 D18
#[test]
fn a_pool_with_a_database_uses_it() {
    let Some(bed) = bed_with(1, |pool| pool.set("redis_db", "3")) else {
        return;
    };
    let mut client = bed.client();
    client.roundtrip(&array_of(&["SET", "k", "v"]), b"+OK\r\n");
    client.roundtrip(&array_of(&["SELECT", "3"]), b"+OK\r\n");
    let mut direct = bed.servers[0].connect();
    direct.roundtrip(&array_of(&["GET", "k"]), b"$-1\r\n");
    direct.roundtrip(&array_of(&["SELECT", "3"]), b"+OK\r\n");
    direct.roundtrip(&array_of(&["GET", "k"]), b"$1\r\nv\r\n");
}

#[test]
fn the_statistics_count_what_happened() {
    let Some(bed) = bed(2) else { return };
    let mut client = bed.client();
    client.roundtrip(&array_of(&["SET", "a", "1"]), b"+OK\r\n");
    client.roundtrip(&array_of(&["GET", "a"]), b"$1\r\n1\r\n");
    let number = |name: &str| -> i64 {
        ["s0", "s1"]
            .iter()
            .map(|server| bed.proxy.stat(POOL, &[server, name]))
            .sum()
    };
    assert_eq!(number("requests"), 2);
    assert_eq!(number("responses"), 2);
    assert_eq!(number("in_queue") + number("out_queue"), 0);
    assert_eq!(bed.proxy.stat(POOL, &["client_connections"]), 1);
    assert_eq!(bed.proxy.stat(POOL, &["client_err"]), 0);
}
