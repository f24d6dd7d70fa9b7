//! Where keys go: every hash with every distribution, tags, weights and names.
//!
//! The servers answer with their names, so that the replies say which server each key went to.

use std::fmt::Write as _;

use twemproxy_testkit::harness::private_dir;
use twemproxy_testkit::model::redis::array_of;

use super::Pair;
use super::canned::{Canned, Manner};
use super::side::converse;
use super::verdict::{Cell, Expect};

#[rustfmt::skip]
const HASHES: [&str; 12] = [
    "one_at_a_time", "md5", "crc16", "crc32", "crc32a", "fnv1_64", "fnv1a_64", "fnv1_32", "fnv1a_32", "hsieh", "murmur",
    "jenkins",
];

/// Directives of further pools.
const VARIANTS: [(&str, &str); 5] = [
    ("tag braces", "  hash_tag: \"{}\"\n"),
    ("tag dollars", "  hash_tag: \"$$\"\n"),
    ("tag modula", "  hash_tag: \"{}\"\n  distribution: modula\n"),
    ("tag letters", "  hash_tag: ky\n  hash: md5\n"),
    ("defaults", ""),
];

/// Weights of the five servers in three ways.
const WEIGHTS: [(&str, [u32; 5]); 3] = [
    ("equal", [1; 5]),
    ("weighted", [1, 5, 2, 9, 3]),
    ("lopsided", [100_000, 1, 1, 50_000, 7]),
];

/// The servers' names sort by length first, unlike their order in the file.
const NAMES: [&str; 5] = ["gamma-long", "b", "aa", "server1", "zz"];

struct Pool {
    name: String,
    yaml: String,
}

pub(super) fn compare(pair: &Pair) -> Vec<Cell> {
    let dir = private_dir();
    let servers: Vec<Canned> = NAMES
        .iter()
        .map(|name| Canned::unix(dir.path(), name, Manner::Redis))
        .collect();
    let mut pools = Vec::new();
    for (weight_name, weights) in WEIGHTS {
        let mut lines = String::new();
        for (server, weight) in servers.iter().zip(weights) {
            lines.push_str(&server.line(weight));
        }
        for hash in HASHES {
            for distribution in ["ketama", "modula"] {
                let directives = format!("  hash: {hash}\n  distribution: {distribution}\n");
                pools.push(pool(
                    format!("{hash} {distribution} {weight_name}"),
                    &directives,
                    &lines,
                ));
            }
        }
        for (name, directives) in VARIANTS {
            pools.push(pool(format!("{name} {weight_name}"), directives, &lines));
        }
    }
    // Names by address: the port of memcached is left out, a unix path gets a colon.
    let unnamed: String = servers.iter().fold(String::new(), |mut lines, server| {
        writeln!(lines, "    - {}:1", server.place).expect("a string takes everything");
        lines
    });
    pools.push(pool("unnamed sockets".to_owned(), "", &unnamed));
    let theirs = placed(pair, false, &pools);
    let ours = placed(pair, true, &pools);
    let cells = pools.iter().zip(theirs.into_iter().zip(ours));
    cells
        .map(|(pool, (theirs, ours))| Cell {
            area: "placement of keys",
            name: pool.name.clone(),
            expect: Expect::Same,
            theirs,
            ours,
        })
        .collect()
}

fn pool(name: String, directives: &str, servers: &str) -> Pool {
    let yaml = format!("  redis: true\n{directives}  servers:\n{servers}");
    Pool { name, yaml }
}

/// The owners of all keys, pool by pool.
fn placed(pair: &Pair, ours: bool, pools: &[Pool]) -> Vec<Vec<u8>> {
    let dir = private_dir();
    let mut yaml = String::new();
    let mut sockets = Vec::new();
    for (i, pool) in pools.iter().enumerate() {
        let socket = dir.path().join(format!("{i}.sock"));
        write!(
            yaml,
            "pool{i}:\n  listen: {}\n{}",
            socket.display(),
            pool.yaml
        )
        .expect("a string takes everything");
        sockets.push(socket);
    }
    let side = if ours { &pair.ours } else { &pair.theirs };
    let running = match side.serve(dir.path(), &yaml, &sockets) {
        Ok(running) => running,
        Err(error) => return pools.iter().map(|_| error.clone().into_bytes()).collect(),
    };
    let requests = requests();
    let answers = sockets
        .iter()
        .map(|socket| converse(socket, &requests))
        .collect();
    drop(running);
    answers
}

/// A GET of each key of a colourful set: plain, tagged, binary, empty, long.
fn requests() -> Vec<u8> {
    let mut keys: Vec<Vec<u8>> = (0..300)
        .map(|i| format!("key:{i:06}").into_bytes())
        .collect();
    for text in [
        "",
        "a",
        "apple",
        "beat",
        "carrot",
        "daikon",
        "eggplant",
        "foo",
        "user1",
        "placeholder",
        "{a}x",
        "{a}y",
        "{}a",
        "x{b}{c}",
        "{a",
        "a}b{c}",
        "{{d}}",
        "$u$1",
        "$u$2",
        "$$x",
        "k1y",
        "\r\n",
        " ",
    ] {
        keys.push(text.as_bytes().to_vec());
    }
    keys.extend((0..=255).map(|byte| vec![byte]));
    keys.extend((1..40_u8).map(|len| (0..len).map(|i| i.wrapping_mul(83) ^ len).collect()));
    keys.push(vec![b'k'; 5000]);
    keys.iter()
        .flat_map(|key| array_of(&[b"GET", &key[..]]))
        .collect()
}
