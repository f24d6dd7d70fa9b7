//! What hostile or broken clients get: the servers' own words, the right fate of the connection,
//! little memory, and nobody else disturbed.
//!
//! The words were taken from redis 7.0.15 and memcached 1.6.18.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;

use twemproxy_testkit::harness::{
    Bed, ConfigBuilder, POOL, PoolBuilder, Proxy, ServerKind, private_dir,
};
use twemproxy_testkit::model::redis::array_of;
use twemproxy_testkit::transcripts::memcache::set;
use twemproxy_testkit::wire::{Wire, escape};

const BINARY: &str = env!("CARGO_BIN_EXE_nutcracker");

/// What the proxy may grow by while a single attack goes on.
const GROWTH_KIB: u64 = 64 * 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Open,
    Closed,
}

/// Sends `attack` between two good requests; `witness` is another client, connected all the time.
fn suffer(bed: &Bed, attack: &[u8], reply: &[u8], fate: Fate, good: (&[u8], &[u8])) {
    let (request, answer) = good;
    let mut witness = bed.client();
    witness.roundtrip(request, answer);
    let mut client = bed.client();
    // Replies to what came before are delivered first.
    client.send_what_it_takes(&[request, attack].concat());
    client.expect(answer);
    client.expect(reply);
    match fate {
        Fate::Open => client.roundtrip(request, answer),
        Fate::Closed => client.expect_close(),
    }
    witness.roundtrip(request, answer);
}

const REDIS_GOOD: (&[u8], &[u8]) = (b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n", b"$1\r\n1\r\n");

fn redis_bed() -> Option<Bed> {
    let bed = Bed::start(BINARY, ServerKind::Redis, 2)?;
    bed.client()
        .roundtrip(&array_of(&["SET", "a", "1"]), b"+OK\r\n");
    Some(bed)
}

// C79 C122 D2
#[test]
fn broken_redis_frames_get_redis_words_and_a_close() {
    const COUNT: &str = "invalid multibulk length";
    const BULK: &str = "invalid bulk length";
    const QUOTES: &str = "unbalanced quotes in request";
    let Some(bed) = redis_bed() else { return };
    for (attack, words) in [
        (&b"*abc\r\n"[..], COUNT),
        (b"*\r\n", COUNT),
        (b"*+1\r\n$4\r\nPING\r\n", COUNT),
        (b"*01\r\n$4\r\nPING\r\n", COUNT),
        (b"*2147483648\r\n", COUNT),
        (b"*-99999999999999999999\r\n", COUNT),
        (b"*1048577\r\n", COUNT),
        (b"*2000000000\r\n", COUNT),
        (b"*1\r\n$-1\r\n", BULK),
        (b"*1\r\n$-2147483648\r\n", BULK),
        (b"*1\r\n$536870913\r\n", BULK),
        (b"*1\r\n$4294967296\r\n", BULK),
        (b"*1\r\n$18446744073709551616\r\n", BULK),
        (b"*1\r\n$abc\r\n", BULK),
        (b"*1\r\n$\r\n", BULK),
        (b"*1\r\n:3\r\nabc\r\n", "expected '$', got ':'"),
        (b"*1\r\nabc\r\n", "expected '$', got 'a'"),
        (
            b"*2\r\n$3\r\nGET\r\n*1\r\n$1\r\na\r\n",
            "expected '$', got '*'",
        ),
        (b"GET \"abc\r\n", QUOTES),
        (b"GET 'abc\r\n", QUOTES),
        (b"GET \"a\"b\r\n", QUOTES),
        (b"\"\\x\r\n", QUOTES),
    ] {
        let reply = format!("-ERR Protocol error: {words}\r\n");
        suffer(&bed, attack, reply.as_bytes(), Fate::Closed, REDIS_GOOD);
    }
}

#[test]
fn a_request_behind_a_broken_one_is_not_served() {
    let Some(bed) = redis_bed() else { return };
    let attack = [b"*1\r\n$x\r\n".to_vec(), array_of(&["SET", "a", "2"])].concat();
    let reply = b"-ERR Protocol error: invalid bulk length\r\n";
    suffer(&bed, &attack, reply, Fate::Closed, REDIS_GOOD);
}

#[test]
fn a_bulk_string_without_its_line_end_closes() {
    let Some(bed) = redis_bed() else { return };
    let mut client = bed.client();
    client.send(b"*2\r\n$3\r\nGETxx$1\r\na\r\n");
    let said = client.read_to_close();
    assert!(
        said.starts_with(b"-ERR Protocol error"),
        "{}",
        escape(&said)
    );
    bed.client().roundtrip(REDIS_GOOD.0, REDIS_GOOD.1);
}

// C76 C77 D1
#[test]
fn commands_that_do_not_exist_leave_the_connection_open() {
    let Some(bed) = redis_bed() else { return };
    let long = "x".repeat(200);
    let cases = [
        (
            array_of(&["nosuch"]),
            "'nosuch', with args beginning with: ".to_owned(),
        ),
        (
            array_of(&["NoSuch", "a", "b"]),
            "'NoSuch', with args beginning with: 'a' 'b' ".to_owned(),
        ),
        (array_of(&[""]), "'', with args beginning with: ".to_owned()),
        (
            array_of(&["a\r\nb"]),
            "'a  b', with args beginning with: ".to_owned(),
        ),
        (
            array_of(&[long.as_str(), "y"]),
            format!("'{}', with args beginning with: 'y' ", &long[..128]),
        ),
        (
            array_of(&["x".repeat(65_536)]),
            format!("'{}', with args beginning with: ", &long[..128]),
        ),
        (
            b"garbage\r\n".to_vec(),
            "'garbage', with args beginning with: ".to_owned(),
        ),
    ];
    for (attack, rest) in cases {
        let reply = format!("-ERR unknown command {rest}\r\n");
        suffer(&bed, &attack, reply.as_bytes(), Fate::Open, REDIS_GOOD);
    }
}

// D2
#[test]
fn what_means_nothing_is_ignored() {
    let Some(bed) = redis_bed() else { return };
    for nothing in [
        &b"\r\n"[..],
        b"\n",
        b"   \r\n",
        b"*0\r\n",
        b"*-1\r\n",
        b"*-2\r\n",
    ] {
        suffer(&bed, nothing, b"", Fate::Open, REDIS_GOOD);
    }
}

// D3
#[test]
fn http_is_hung_up_on() {
    let Some(bed) = redis_bed() else { return };
    for attack in [
        &b"POST / HTTP/1.1\r\nHost: x\r\n\r\nSET a 2\r\n"[..],
        b"post /\r\n",
        b"Host: example\r\nSET a 2\r\n",
    ] {
        suffer(&bed, attack, b"", Fate::Closed, REDIS_GOOD);
    }
}

#[test]
fn lines_without_end_are_cut_off() {
    let Some(bed) = redis_bed() else { return };
    let before = bed.proxy.resident_kib();
    let digits = "1".repeat(70_000);
    for (attack, words) in [
        ("a".repeat(70_000), "too big inline request"),
        (format!("*{digits}"), "too big mbulk count string"),
        (format!("*1\r\n${digits}"), "too big bulk count string"),
    ] {
        let reply = format!("-ERR Protocol error: {words}\r\n");
        suffer(
            &bed,
            attack.as_bytes(),
            reply.as_bytes(),
            Fate::Closed,
            REDIS_GOOD,
        );
    }
    // One that never stops.
    let mut client = bed.client();
    client.send_what_it_takes(&vec![b'a'; 32 << 20]);
    let grown = bed.proxy.resident_kib().saturating_sub(before);
    assert!(grown < GROWTH_KIB, "{grown} KiB for lines");
}

#[test]
fn promises_of_much_to_come_cost_no_memory() {
    let Some(bed) = redis_bed() else { return };
    let before = bed.proxy.resident_kib();
    let mut clients: Vec<Wire> = (0..100).map(|_| bed.client()).collect();
    for client in &mut clients {
        client.send(b"*1048576\r\n$3\r\nGET\r\n$536870912\r\nabc");
    }
    // All of them were read once this one is answered for each worker that exists.
    for _ in 0..20 {
        bed.client().roundtrip(REDIS_GOOD.0, REDIS_GOOD.1);
    }
    let grown = bed.proxy.resident_kib().saturating_sub(before);
    assert!(grown < GROWTH_KIB, "{grown} KiB for promises");
}

// D17
#[test]
fn a_request_above_the_limit_is_refused_and_swallowed() {
    let Some(bed) = Bed::start_with(BINARY, ServerKind::Redis, 1, |pool| {
        pool.set("request_size_limit", "100000")
    }) else {
        return;
    };
    let before = bed.proxy.resident_kib();
    let mut client = bed.client();
    client.roundtrip(&array_of(&["SET", "a", "1"]), b"+OK\r\n");
    let big = vec![b'x'; 64 << 20];
    client.send(&array_of(&[b"SET", &b"a"[..], &big]));
    let refusal = client.read_redis();
    assert!(refusal.starts_with(b"-ERR "), "{}", escape(&refusal));
    client.roundtrip(&array_of(&["GET", "a"]), b"$1\r\n1\r\n");
    let grown = bed.proxy.resident_kib().saturating_sub(before);
    assert!(grown < GROWTH_KIB / 2, "{grown} KiB for a refused request");
}

/// A server that answers each connection's first bytes with `reply`, then closes.
fn with_mad_server(kind: ServerKind, reply: &'static [u8], check: impl FnOnce(&mut Proxy)) {
    let dir = private_dir();
    let socket = dir.path().join("mad.sock");
    let listener = UnixListener::bind(&socket).expect("a private path");
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut request = [0; 4096];
            // The proxy may be gone already.
            if stream.read(&mut request).is_ok_and(|len| len > 0) {
                let _ = stream.write_all(reply);
            }
        }
    });
    let entry = format!("{}:1 mad", socket.display());
    let pool = PoolBuilder::new(POOL, kind).server_line(&entry);
    let config = ConfigBuilder::new(dir.path()).pool(pool);
    let mut proxy = Proxy::start(BINARY, dir.path(), &config, &[]);
    check(&mut proxy);
}

#[test]
fn a_reply_that_claims_two_billion_elements_costs_no_memory() {
    with_mad_server(ServerKind::Redis, b"*2147483647\r\n:1\r\n", |proxy| {
        let before = proxy.resident_kib();
        let mut client = proxy.connect(POOL);
        client.send(&array_of(&["GET", "a"]));
        // The reply cannot be completed: an error if nothing of it was passed on, else a close.
        client.half_close();
        client.read_to_close();
        let grown = proxy.resident_kib().saturating_sub(before);
        assert!(grown < GROWTH_KIB, "{grown} KiB for a header");
        proxy
            .connect(POOL)
            .roundtrip(&array_of(&["PING"]), b"+PONG\r\n");
    });
}

// C114
#[test]
fn a_redis_server_that_talks_nonsense_is_an_invalid_argument() {
    with_mad_server(ServerKind::Redis, b"hello\r\n", |proxy| {
        proxy
            .connect(POOL)
            .roundtrip(&array_of(&["GET", "a"]), b"-ERR Invalid argument\r\n");
    });
}

// C114
#[test]
fn a_memcached_server_that_talks_nonsense_is_an_invalid_argument() {
    with_mad_server(ServerKind::Memcached, b"hello\r\n", |proxy| {
        proxy
            .connect(POOL)
            .roundtrip(b"get a\r\n", b"SERVER_ERROR Invalid argument\r\n");
    });
}

const MEMCACHE_GOOD: (&[u8], &[u8]) = (b"get a\r\n", b"VALUE a 0 1\r\n1\r\nEND\r\n");
const ERROR: &[u8] = b"ERROR\r\n";
const BAD_FORMAT: &[u8] = b"CLIENT_ERROR bad command line format\r\n";

fn memcache_bed() -> Option<Bed> {
    let bed = Bed::start(BINARY, ServerKind::Memcached, 2)?;
    bed.client().roundtrip(&set(b"a", b"1"), b"STORED\r\n");
    Some(bed)
}

// C62 C67 D8
#[test]
fn bad_memcached_lines_get_memcached_words_and_nothing_is_lost() {
    let Some(bed) = memcache_bed() else { return };
    for (attack, reply) in [
        (&b"nosuch\r\n"[..], ERROR),
        (b"\r\n", ERROR),
        (b"get\r\n", ERROR),
        (b"get \r\n", ERROR),
        (b"SET a 0 0 1\r\n", ERROR),
        (b"incr a\r\n", ERROR),
        (b"touch a\r\n", ERROR),
        (b"delete\r\n", ERROR),
        (b"verbosity\r\n", ERROR),
        (b"set a 0 0 abc\r\n", BAD_FORMAT),
        (b"set a 0 0 -1\r\n", BAD_FORMAT),
        (
            b"touch a x\r\n",
            b"CLIENT_ERROR invalid exptime argument\r\n",
        ),
        (
            b"incr a x\r\n",
            b"CLIENT_ERROR invalid numeric delta argument\r\n",
        ),
        (
            b"incr a -1\r\n",
            b"CLIENT_ERROR invalid numeric delta argument\r\n",
        ),
        (
            b"delete a 1\r\n",
            b"CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n",
        ),
    ] {
        suffer(&bed, attack, reply, Fate::Open, MEMCACHE_GOOD);
    }
}

// C63 D31
#[test]
fn memcached_keys_are_checked_before_anything_is_forwarded() {
    let Some(bed) = memcache_bed() else { return };
    let long = "k".repeat(251);
    let text = |line: String| line.into_bytes();
    for attack in [
        text(format!("get {long}\r\n")),
        text(format!("get a {long} a\r\n")),
        text(format!("gets {long}\r\n")),
        text(format!("delete {long}\r\n")),
        text(format!("incr {long} 1\r\n")),
        text(format!("touch {long} 0\r\n")),
        b"get a\0b\r\n".to_vec(),
        b"get a\rb\r\n".to_vec(),
        b"delete a\r\r\n".to_vec(),
        // Some versions of memcached answer it, others do not.
        b"delete noreply\r\n".to_vec(),
        // The announced block is swallowed; memcached itself would execute it.
        text(format!("set {long} 0 0 9\r\ndelete a\n\r\n")),
        b"set \0 0 0 9\r\ndelete a\n\r\n".to_vec(),
        b"set a x 0 9\r\ndelete a\n\r\n".to_vec(),
    ] {
        suffer(&bed, &attack, BAD_FORMAT, Fate::Open, MEMCACHE_GOOD);
    }
}

// D31
#[test]
fn a_line_feed_in_a_memcached_key_ends_the_line() {
    let Some(bed) = memcache_bed() else { return };
    suffer(
        &bed,
        b"get a\nnosuch\r\n",
        b"VALUE a 0 1\r\n1\r\nEND\r\nERROR\r\n",
        Fate::Open,
        MEMCACHE_GOOD,
    );
    // The line is too short to announce a block.
    suffer(
        &bed,
        b"set a\nb 0 0 1\r\nx\r\n",
        b"ERROR\r\nERROR\r\nERROR\r\n",
        Fate::Open,
        MEMCACHE_GOOD,
    );
}

// C65 D8
#[test]
fn a_wrong_data_block_is_said_so_and_the_value_stays() {
    let Some(bed) = memcache_bed() else { return };
    let mut client = bed.client();
    client.send(b"set a 0 0 1\r\nxyz\r\n");
    client.expect(b"CLIENT_ERROR bad data chunk\r\n");
    // Whether the rest of the line counts as a line of its own is memcached's affair.
    client.send(b"nosuch\r\nget a\r\n");
    let mut said = client.read_memcache();
    while said == ERROR {
        said = client.read_memcache();
    }
    assert_eq!(said, MEMCACHE_GOOD.1, "{}", escape(&said));
}

#[test]
fn noreply_does_not_silence_a_refusal_that_would_shift_replies() {
    let Some(bed) = memcache_bed() else { return };
    let long = "k".repeat(251);
    let mut client = bed.client();
    let request = format!("set {long} 0 0 1 noreply\r\nx\r\nget a\r\n");
    client.send(request.as_bytes());
    // Said or unsaid: the reply to the next request is the next request's.
    let mut said = client.read_memcache();
    if said == BAD_FORMAT {
        said = client.read_memcache();
    }
    assert_eq!(said, MEMCACHE_GOOD.1, "{}", escape(&said));
    client.roundtrip(b"version\r\n", b"VERSION ");
}

#[test]
fn memcached_lines_without_end_are_cut_off() {
    let Some(bed) = memcache_bed() else { return };
    let before = bed.proxy.resident_kib();
    for attack in [
        vec![b'a'; 100_000],
        [b"set ".to_vec(), vec![b'k'; 100_000]].concat(),
    ] {
        let mut client = bed.client();
        client.send_what_it_takes(&attack);
        let said = client.read_to_close();
        let silent_or_error = said.is_empty() || said.ends_with(b"\r\n");
        assert!(silent_or_error, "{}", escape(&said));
        bed.client().roundtrip(MEMCACHE_GOOD.0, MEMCACHE_GOOD.1);
    }
    let grown = bed.proxy.resident_kib().saturating_sub(before);
    assert!(grown < GROWTH_KIB, "{grown} KiB for lines");
}

// D38
#[test]
fn http_and_the_binary_protocol_close_a_memcached_client() {
    let Some(bed) = memcache_bed() else { return };
    suffer(
        &bed,
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"",
        Fate::Closed,
        MEMCACHE_GOOD,
    );
    suffer(
        &bed,
        b"POST / HTTP/1.0\r\n\r\n",
        b"",
        Fate::Closed,
        MEMCACHE_GOOD,
    );
    // Magic, opcode (list of SASL mechanisms), lengths, status, opaque, cas.
    let request = b"\x80\x20\0\0\0\0\0\0\0\0\0\0\x01\x02\x03\x04\0\0\0\0\0\0\0\0";
    let header = b"\x81\x20\0\0\0\0\0\x81\0\0\0\x24\x01\x02\x03\x04\0\0\0\0\0\0\0\0";
    for request in [request.to_vec(), [&request[..], &request[..]].concat()] {
        let mut client = bed.client();
        client.send_what_it_takes(&request);
        let expected = [&header[..], b"The binary protocol is not supported"].concat();
        assert_eq!(client.read_to_close(), expected);
    }
    bed.client().roundtrip(MEMCACHE_GOOD.0, MEMCACHE_GOOD.1);
}

#[test]
fn random_bytes_never_hurt_anyone() {
    for (kind, good) in [
        (ServerKind::Redis, REDIS_GOOD),
        (ServerKind::Memcached, MEMCACHE_GOOD),
    ] {
        let bed = match kind {
            ServerKind::Redis | ServerKind::Valkey => redis_bed(),
            ServerKind::Memcached => memcache_bed(),
        };
        let Some(bed) = bed else { return };
        let mut witness = bed.client();
        for seed in 0..200 {
            let mut rng = twemproxy_testkit::rng::Rng::new(seed);
            let len = 1 + rng.below(2000);
            let mut client = bed.client();
            client.send_what_it_takes(&rng.bytes(len));
            witness.roundtrip(good.0, good.1);
        }
        bed.client().roundtrip(good.0, good.1);
    }
}
