//! The running binary puts keys where a real nutcracker 0.5.0 put them: all cases of the golden file
//! over four named servers, each a pool of one process in front of real redis servers.

#![allow(
    clippy::unwrap_used,
    reason = "a golden file that does not read is a failed test"
)]

use serde_json::Value;
use twemproxy_testkit::harness::{
    ConfigBuilder, PoolBuilder, Proxy, Server, ServerKind, private_dir,
};
use twemproxy_testkit::model::redis::{array_of, bulk};

const BINARY: &str = env!("CARGO_BIN_EXE_nutcracker");
const GOLDEN: &str = include_str!("../../core/tests/data/ring.json");

// C48 C49 C54 C56 C57
#[test]
fn the_binary_places_keys_as_nutcracker_does() {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let keys: Vec<Vec<u8>> = golden["keys_hex"]
        .as_array()
        .unwrap()
        .iter()
        .map(from_hex)
        .collect();
    let cases: Vec<&Value> = golden["cases"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|case| case["servers"] == "named4")
        .collect();
    assert_eq!((keys.len(), cases.len()), (297, 72));

    let dir = private_dir();
    let names = ["server1", "server2", "server3", "server4"];
    let start = |name| Server::start(ServerKind::Redis, dir.path(), name, &[]);
    let Some(servers) = names.map(start).into_iter().collect::<Option<Vec<_>>>() else {
        return;
    };
    let mut config = ConfigBuilder::new(dir.path());
    for (number, case) in cases.iter().enumerate() {
        config = config.pool(pool(number, case, &servers));
    }
    let proxy = Proxy::start(BINARY, dir.path(), &config, &[]);
    // What a key holds tells which server it lives on.
    for server in &servers {
        let mut direct = server.connect();
        for key in &keys {
            let set = array_of(&[b"SET", &key[..], server.name().as_bytes()]);
            direct.roundtrip(&set, b"+OK\r\n");
        }
    }
    for (number, case) in cases.iter().enumerate() {
        let owners = case["map"].as_array().unwrap();
        let mut client = proxy.connect(&format!("p{number}"));
        let asked: Vec<u8> = keys
            .iter()
            .flat_map(|key| array_of(&[b"GET", &key[..]]))
            .collect();
        let place = |owner: &Value| usize::try_from(owner.as_u64().unwrap()).unwrap();
        let told: Vec<u8> = owners
            .iter()
            .flat_map(|owner| bulk(names[place(owner)].as_bytes()))
            .collect();
        client.roundtrip(&asked, &told);
    }
}

fn pool(number: usize, case: &Value, servers: &[Server]) -> PoolBuilder {
    let word = |name: &str| case[name].as_str().unwrap().to_owned();
    let pool = PoolBuilder::new(&format!("p{number}"), ServerKind::Redis)
        .set("hash", &word("hash"))
        .set("distribution", &word("distribution"))
        .servers(servers);
    match case["hash_tag"].as_str() {
        Some(tag) => pool.set("hash_tag", &format!("\"{tag}\"")),
        None => pool,
    }
}

fn from_hex(text: &Value) -> Vec<u8> {
    let digits = text.as_str().unwrap().as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}
