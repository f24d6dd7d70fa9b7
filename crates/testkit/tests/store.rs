//! The model stores say what the real servers say: the models are only worth what this test proves.

use twemproxy_testkit::harness::{Server, ServerKind, private_dir};
use twemproxy_testkit::model::{memcache, redis};
use twemproxy_testkit::rng::Rng;

const STEPS: usize = 3000;

#[test]
fn the_redis_store_answers_like_redis() {
    let dir = private_dir();
    let Some(server) = Server::start(ServerKind::Redis, dir.path(), "redis", &[]) else {
        return;
    };
    let mut wire = server.connect();
    let mut store = redis::Store::default();
    let mut rng = Rng::new(1);
    let names = [
        "GET", "SET", "DEL", "MGET", "MSET", "EXISTS", "TOUCH", "UNLINK", "INCR", "APPEND",
        "STRLEN",
    ];
    for _ in 0..STEPS {
        let mut words = vec![names[rng.below(names.len())].as_bytes().to_vec()];
        for _ in 0..rng.below(5) {
            words.push(word(&mut rng));
        }
        // SET takes options after the value, which the model does not know.
        if words[0] == b"SET" {
            words.truncate(3);
        }
        let reply = store.apply(&words);
        wire.roundtrip(&redis::array_of(&words), &reply);
    }
}

#[test]
fn the_memcached_store_answers_like_memcached() {
    let dir = private_dir();
    let Some(server) = Server::start(ServerKind::Memcached, dir.path(), "memcached", &[]) else {
        return;
    };
    let mut wire = server.connect();
    let mut store = memcache::Store::default();
    let mut rng = Rng::new(2);
    for _ in 0..STEPS {
        let line = memcache_request(&mut rng);
        let memcache::Frame::Request {
            words,
            data,
            noreply,
            len,
            ..
        } = memcache::request(&line)
        else {
            panic!("{}", line.escape_ascii());
        };
        assert_eq!(len, line.len());
        let reply = store.apply(&words, &data, noreply);
        wire.send(&line);
        wire.expect(&reply);
    }
}

/// Few keys, so that commands meet each other; numbers, so that INCR finds some.
fn word(rng: &mut Rng) -> Vec<u8> {
    match rng.below(4) {
        0 => rng.below(3).to_string().into_bytes(),
        1 => b"9223372036854775806".to_vec(),
        2 => vec![0, b'\r', b'\n', 0xff],
        _ => vec![b"abc"[rng.below(3)]],
    }
}

fn memcache_request(rng: &mut Rng) -> Vec<u8> {
    let key = ["a", "b", "c"][rng.below(3)];
    let noreply = ["", " noreply"][rng.below(2)];
    let exptime = ["0", "1000", "-1"][rng.below(3)];
    let cas = rng.below(100);
    let data = match rng.below(3) {
        0 => rng.below(200).to_string().into_bytes(),
        1 => b"x\xff\0".to_vec(),
        // Not blank at the front: INCR would make memcached read on behind the item.
        _ => b"x\r\n".to_vec(),
    };
    let storage = |name: &str, cas: &str| {
        let head = format!("{name} {key} 3 {exptime} {}{cas}{noreply}\r\n", data.len());
        [head.as_bytes(), &data, b"\r\n"].concat()
    };
    match rng.below(11) {
        0 | 1 => storage("set", ""),
        2 => storage("add", ""),
        3 => storage("replace", ""),
        4 => storage("append", ""),
        5 => storage("prepend", ""),
        6 => storage("cas", &format!(" {cas}")),
        7 => format!("get {key} b {key}\r\n").into_bytes(),
        8 => format!("delete {key}{noreply}\r\n").into_bytes(),
        9 => format!("incr {key} {}{noreply}\r\n", rng.below(200)).into_bytes(),
        _ => format!("decr {key} {}{noreply}\r\n", rng.below(200)).into_bytes(),
    }
}
