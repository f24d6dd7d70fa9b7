//! Memcached through the real binary, byte for byte what one memcached would have said.

use twemproxy_testkit::commands::Manner;
use twemproxy_testkit::harness::{Bed, POOL, PoolBuilder, ServerKind, wait_for};
use twemproxy_testkit::model::memcache::{Frame, Store, request};
use twemproxy_testkit::rng::Rng;
use twemproxy_testkit::transcripts::memcache::set;
use twemproxy_testkit::transcripts::{boundary_sizes, filler};
use twemproxy_testkit::wire::{Wire, escape};

const BINARY: &str = env!("CARGO_BIN_EXE_nutcracker");

fn bed(servers: usize) -> Option<Bed> {
    Bed::start(BINARY, ServerKind::Memcached, servers)
}

fn bed_with(servers: usize, change: impl FnOnce(PoolBuilder) -> PoolBuilder) -> Option<Bed> {
    Bed::start_with(BINARY, ServerKind::Memcached, servers, change)
}

/// Requests with one response each, in an order in which each finds something to do. `\n` stands
/// for the line end on the wire.
const CONVERSATION: &[&str] = &[
    "get a\n",
    "set a 5 0 1\nx\n",
    "get a\n",
    "gets a\n",
    "get a b a\n",
    "gets a b\n",
    "add a 0 0 1\ny\n",
    "add b 0 0 0\n\n",
    "replace b 7 0 2\nbb\n",
    "replace c 0 0 1\nz\n",
    "append b 0 0 2\ncc\n",
    "prepend b 0 0 2\naa\n",
    "append c 0 0 1\nz\n",
    "prepend c 0 0 1\nz\n",
    "get b\n",
    "cas c 0 0 1 1\nx\n",
    "cas a 0 0 1 99999\nx\n",
    "set n 0 0 2\n10\n",
    "incr n 5\n",
    "decr n 100\n",
    "incr n 18446744073709551615\n",
    "incr n 1\n",
    "incr n nonsense\n",
    "incr a 1\n",
    "incr missing 1\n",
    "decr missing 1\n",
    "touch a 0\n",
    "touch missing 0\n",
    "touch a 1000\n",
    "touch a nonsense\n",
    "gat 0 a\n",
    "gat 0 a missing b\n",
    "gats 1000 a\n",
    "delete n\n",
    "delete n\n",
    "delete b 0\n",
    "set gone 0 -1 1\nx\n",
    "get gone\n",
    "set flags 4294967295 0 1\nx\n",
    "get flags\n",
    "set crlf 0 0 4\n\n\n\n",
    "get crlf\n",
    "  get   crlf   a  \n",
    "set spaced   0  0  1  \nx\n",
    "get noreply\n",
    "version\n",
    "verbosity 1\n",
    "nosuch\n",
    "\n",
    "get\n",
    "gets\n",
    "incr a\n",
    "touch a\n",
    "delete\n",
    "touch a -1\n",
    "get a\n",
];

fn converse(bed: &Bed, comparable: impl Fn(&str) -> bool) {
    let (mut client, mut direct) = (bed.client(), bed.direct.connect());
    let manner = Manner::of(&mut direct);
    for line in CONVERSATION {
        let bytes = line.replace('\n', "\r\n").into_bytes();
        client.send(&bytes);
        direct.send(&bytes);
        let (reply, said) = (client.read_memcache(), direct.read_memcache());
        let first = line.split('\n').next().unwrap_or("");
        let expected = manner.in_words_of_reference(first, said);
        if comparable(line) && manner.reads_alike(first) {
            let shown = (escape(&reply), escape(&expected));
            assert!(
                reply == expected,
                "{line:?}: {} is not {}",
                shown.0,
                shown.1
            );
        }
    }
}

// C59 C64 C67 D8 D9
#[test]
fn every_command_answers_as_one_memcached_does() {
    let Some(bed) = bed(1) else { return };
    converse(&bed, |_| true);
}

// C59
#[test]
fn every_command_answers_alike_across_servers() {
    let Some(bed) = bed(4) else { return };
    // Unique numbers are counted by each server for itself; values of different servers may come
    // in another order when some are missing.
    converse(&bed, |line| {
        !line.starts_with("gets") && !line.starts_with("gats") && !line.contains("missing")
    });
}

// C66
#[test]
fn noreply_is_silent_everywhere_and_takes_effect() {
    let Some(bed) = bed(4) else { return };
    let mut client = bed.client();
    // Requests of one client on different servers may overtake each other, those on one key not.
    client.send(
        b"set k 1 0 1 noreply\r\n5\r\nadd k 0 0 1 noreply\r\n6\r\nincr k 10 noreply\r\n\
          append k 0 0 1 noreply\r\n0\r\nprepend k 0 0 1 noreply\r\n1\r\ndecr k 1 noreply\r\n\
          touch k 0 noreply\r\ncas k 0 0 1 99999 noreply\r\nx\r\nreplace k 2 0 2 noreply\r\n77\r\n\
          get k\r\ndelete k noreply\r\nget k\r\n",
    );
    client.expect(b"VALUE k 2 2\r\n77\r\nEND\r\nEND\r\n");
    client.roundtrip(b"verbosity 1 noreply\r\nversion\r\n", b"VERSION ");
}

#[test]
fn requests_with_and_without_reply_mix_in_one_pipeline() {
    let Some(bed) = bed_with(4, |pool| pool.set("server_connections", "1")) else {
        return;
    };
    let mut rng = Rng::new(5);
    let mut store = Store::default();
    let (mut requests, mut replies) = (Vec::new(), Vec::new());
    for i in 0..1000 {
        let key = format!("k{}", rng.below(30));
        let noreply = ["", " noreply"][rng.below(2)];
        let line = match rng.below(7) {
            0 => format!("set {key} {i} 0 2{noreply}\r\n{:02}\r\n", rng.below(100)),
            1 => format!("add {key} 0 0 1{noreply}\r\nx\r\n"),
            2 => format!("append {key} 0 0 1{noreply}\r\n7\r\n"),
            3 => format!("delete {key}{noreply}\r\n"),
            4 => format!("touch {key} 0{noreply}\r\n"),
            _ => format!("get {key}\r\n"),
        };
        let Frame::Request {
            words,
            data,
            noreply,
            ..
        } = request(line.as_bytes())
        else {
            panic!("the model reads {line:?}");
        };
        requests.extend_from_slice(line.as_bytes());
        replies.extend(store.apply(&words, &data, noreply));
    }
    bed.client().roundtrip(&requests, &replies);
}

/// The `VALUE` blocks of a response, each with its data.
fn blocks(response: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = response;
    let mut found = Vec::new();
    while rest != b"END\r\n" {
        let text = rest.split(|&byte| byte == b'\r').next().expect("a line");
        let words: Vec<&[u8]> = text.split(|&byte| byte == b' ').collect();
        let digits = std::str::from_utf8(words[3]).expect("a number");
        let data_len: usize = digits.parse().expect("a number");
        let len = text.len() + 2 + data_len + 2;
        found.push(rest[..len].to_vec());
        rest = &rest[len..];
    }
    found
}

// C68 C69
#[test]
fn a_get_of_many_keys_finds_them_on_all_servers() {
    let Some(bed) = bed(4) else { return };
    let (mut client, mut direct) = (bed.client(), bed.direct.connect());
    let mut rng = Rng::new(6);
    // FNV sends keys that differ in their last bytes only to few servers.
    let mut keys: Vec<String> = (0..60)
        .map(|_| format!("{:016x}", rng.next_u64()))
        .collect();
    for key in &keys {
        let len = rng.below(50);
        let request = set(key.as_bytes(), &rng.bytes(len));
        client.roundtrip(&request, b"STORED\r\n");
        direct.roundtrip(&request, b"STORED\r\n");
    }
    // Without misses the values come in the order of the keys, duplicates included.
    keys.extend(keys.clone());
    keys.reverse();
    let request = format!("get {}\r\n", keys.join(" "));
    client.send(request.as_bytes());
    direct.send(request.as_bytes());
    assert_eq!(client.read_memcache(), direct.read_memcache());
    // With misses, values of different servers may change places; none is lost or altered.
    let with_misses: Vec<String> = keys
        .iter()
        .flat_map(|key| [format!("missing-{key}"), key.clone()])
        .collect();
    let request = format!("get {}\r\n", with_misses.join(" "));
    client.send(request.as_bytes());
    direct.send(request.as_bytes());
    let sorted = |response: Vec<u8>| {
        let mut blocks = blocks(&response);
        blocks.sort();
        blocks
    };
    assert_eq!(
        sorted(client.read_memcache()),
        sorted(direct.read_memcache())
    );
    client.roundtrip(b"get missing-1 missing-2 missing-3\r\n", b"END\r\n");
    for server in ["s0", "s1", "s2", "s3"] {
        assert!(bed.proxy.stat(POOL, &[server, "requests"]) > 0, "{server}");
    }
}

// C70
#[test]
fn cas_takes_what_gets_gave() {
    let Some(bed) = bed(4) else { return };
    let mut client = bed.client();
    client.roundtrip(
        b"set a 0 0 1\r\nx\r\nset b 0 0 1\r\ny\r\n",
        b"STORED\r\nSTORED\r\n",
    );
    client.send(b"gets a b\r\n");
    let response = client.read_memcache();
    for (block, key) in blocks(&response).iter().zip(["a", "b"]) {
        let text = String::from_utf8_lossy(block).into_owned();
        let cas = text
            .lines()
            .next()
            .and_then(|line| line.split(' ').nth(4))
            .expect("gets gives a number");
        let cas_request = format!("cas {key} 0 0 1 {cas}\r\nz\r\n");
        client.roundtrip(cas_request.as_bytes(), b"STORED\r\n");
        client.roundtrip(cas_request.as_bytes(), b"EXISTS\r\n");
    }
}

#[test]
fn flush_all_is_refused_unless_allowed() {
    let Some(bed) = bed(2) else { return };
    let mut client = bed.client();
    client.roundtrip(b"set a 0 0 1\r\nx\r\n", b"STORED\r\n");
    client.send(b"flush_all\r\n");
    let refusal = client.read_memcache();
    let text = String::from_utf8_lossy(&refusal).into_owned();
    assert!(text.contains("ERROR"), "{text}");
    client.roundtrip(b"get a\r\n", b"VALUE a 0 1\r\nx\r\nEND\r\n");
}

// D8
#[test]
fn flush_all_reaches_every_server_where_allowed() {
    let Some(bed) = bed_with(4, |pool| pool.set("allow_flush", "true")) else {
        return;
    };
    let mut client = bed.client();
    let keys: Vec<String> = (0..40).map(|i| format!("k{i}")).collect();
    let store_all = |client: &mut Wire| {
        for key in &keys {
            client.roundtrip(&set(key.as_bytes(), b"v"), b"STORED\r\n");
        }
    };
    let get_all = format!("get {}\r\n", keys.join(" "));
    store_all(&mut client);
    client.roundtrip(b"flush_all\r\n", b"OK\r\n");
    client.roundtrip(get_all.as_bytes(), b"END\r\n");
    client.roundtrip(b"flush_all 0\r\n", b"OK\r\n");
    client.roundtrip(b"flush_all noreply\r\nversion\r\n", b"VERSION ");
}

// C72
#[test]
fn values_of_every_awkward_size_pass_unchanged() {
    let Some(bed) = bed(2) else { return };
    let mut client = bed.client();
    let near_the_limit = [1_000_000, 1 << 19];
    for size in [0, 1]
        .into_iter()
        .chain(boundary_sizes())
        .chain(near_the_limit)
    {
        let value = filler(size);
        let key = format!("size-{size}");
        client.roundtrip(&set(key.as_bytes(), &value), b"STORED\r\n");
        let head = format!("VALUE {key} 0 {size}\r\n");
        let block = [head.as_bytes(), &value, b"\r\n"].concat();
        let get = format!("get {key}\r\n");
        client.roundtrip(get.as_bytes(), &[&block[..], b"END\r\n"].concat());
        let twice = format!("get {key} missing {key}\r\n");
        client.roundtrip(twice.as_bytes(), &[&block[..], &block, b"END\r\n"].concat());
    }
}

// C72
#[test]
fn a_value_of_sixteen_megabytes_passes_unchanged() {
    let large = &["-I", "32m", "-m", "256"];
    let Some(bed) = Bed::start_with_servers(BINARY, ServerKind::Memcached, 1, large, |pool| pool)
    else {
        return;
    };
    let mut client = bed.client();
    let value = filler(16 << 20);
    client.roundtrip(&set(b"big", &value), b"STORED\r\n");
    let head = format!("VALUE big 0 {}\r\n", value.len());
    let expected = [head.as_bytes(), &value, b"\r\nEND\r\n"].concat();
    client.roundtrip(b"get big\r\n", &expected);
    client.roundtrip(b"get big small\r\n", &expected);
}

// C73
#[test]
fn a_value_too_large_for_the_server_is_its_error_and_nobody_else_s() {
    let Some(bed) = bed_with(1, |pool| pool.set("server_connections", "1")) else {
        return;
    };
    let mut other = bed.client();
    other.roundtrip(b"set a 0 0 1\r\nx\r\n", b"STORED\r\n");
    let mut client = bed.client();
    client.send(&set(b"huge", &filler(2 << 20)));
    client.send(b"get a\r\n");
    client.expect(b"SERVER_ERROR object too large for cache\r\n");
    client.expect(b"VALUE a 0 1\r\nx\r\nEND\r\n");
    other.roundtrip(b"get a\r\n", b"VALUE a 0 1\r\nx\r\nEND\r\n");
}

// C63
#[test]
fn keys_may_have_250_bytes() {
    let Some(bed) = bed(4) else { return };
    let mut client = bed.client();
    for byte in [b'k', 0x80, 0xff, b'!'] {
        for len in [1, 249, 250] {
            let key = vec![byte; len];
            client.roundtrip(&set(&key, b"v"), b"STORED\r\n");
            let expected = [b"VALUE ", &key[..], b" 0 1\r\nv\r\nEND\r\n"].concat();
            client.roundtrip(&[b"get ", &key[..], b"\r\n"].concat(), &expected);
            client.roundtrip(&[b"get x ", &key[..], b"\r\n"].concat(), &expected);
        }
    }
}

#[test]
fn requests_may_arrive_one_byte_at_a_time() {
    let Some(bed) = bed(4) else { return };
    let mut client = bed.client();
    client.send_byte_by_byte(
        b"set a 0 0 3\r\n1\r\n\r\nset b 0 0 1 noreply\r\nx\r\nget a b\r\nnosuch\r\ndelete a\r\n",
    );
    client.expect(
        b"STORED\r\nVALUE a 0 3\r\n1\r\n\r\nVALUE b 0 1\r\nx\r\nEND\r\nERROR\r\nDELETED\r\n",
    );
}

// C61
#[test]
fn quit_closes_after_everything_before_it() {
    let Some(bed) = bed(2) else { return };
    let ended = |count| {
        wait_for("the end of a client is counted", || {
            (bed.proxy.stat(POOL, &["client_eof"]) == count).then_some(())
        });
    };
    // The harness' first connection.
    ended(1);
    let mut client = bed.client();
    client.send(b"set a 0 0 1\r\nx\r\nget a b\r\nquit\r\nset a 0 0 1\r\ny\r\n");
    client.expect(b"STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n");
    client.expect_close();
    ended(2);
    assert_eq!(bed.proxy.stat(POOL, &["client_err"]), 0);
    bed.client()
        .roundtrip(b"get a\r\n", b"VALUE a 0 1\r\nx\r\nEND\r\n");
}

// C121
#[test]
fn half_a_close_still_delivers_every_reply() {
    let Some(bed) = bed(4) else { return };
    let mut client = bed.client();
    let mut requests = b"set a 0 0 1\r\nx\r\n".to_vec();
    requests.extend(b"get a b c d e\r\n".repeat(100));
    // The last request never ends and is dropped.
    requests.extend(b"set a 0 0 5\r\nyy");
    client.send(&requests);
    client.half_close();
    client.expect(b"STORED\r\n");
    client.expect(&b"VALUE a 0 1\r\nx\r\nEND\r\n".repeat(100));
    client.expect_close();
}

#[test]
fn a_hundred_clients_on_one_server_connection_get_their_own_replies() {
    let Some(bed) = bed_with(1, |pool| pool.set("server_connections", "1")) else {
        return;
    };
    let mut clients: Vec<Wire> = (0..100).map(|_| bed.client()).collect();
    for round in 0..20 {
        let value = |i: usize| format!("client-{i}-round-{round}-{}", "x".repeat(i * 17 % 300));
        for (i, client) in clients.iter_mut().enumerate() {
            let key = format!("key-{i}");
            client.send(&set(key.as_bytes(), value(i).as_bytes()));
            client.send(format!("touch {key} 0 noreply\r\nget {key} missing\r\n").as_bytes());
        }
        for (i, client) in clients.iter_mut().enumerate() {
            let value = value(i);
            let head = format!("STORED\r\nVALUE key-{i} 0 {}\r\n", value.len());
            client.expect(format!("{head}{value}\r\nEND\r\n").as_bytes());
        }
    }
    assert_eq!(bed.proxy.stat(POOL, &["s0", "server_connections"]), 1);
}
