//! Keys stay where twemproxy 0.5 put them.
//!
//! `data/ring.json` holds what a real nutcracker 0.5.0 answered: for each server list, hash,
//! distribution and hash tag, the place in the list as written of the server that got each key. The
//! other expectations are the published values of its hash functions and rings computed by an
//! independent implementation, for what a running proxy cannot be asked (points, ejected servers).

#![allow(
    clippy::unwrap_used,
    reason = "a golden file that does not read is a failed test"
)]

use std::collections::BTreeMap;

use serde_json::Value;
use twemproxy_core::topology::{Distribution, HashKind, Placement, RingServer, tag::hashed_part};

#[test]
fn every_golden_key_goes_where_nutcracker_sends_it() {
    let golden = Golden::load();
    assert_eq!((golden.cases.len(), golden.keys.len()), (312, 297));

    for case in &golden.cases {
        let pool = &golden.pools[&case.servers];
        let ring = Placement::build(case.distribution, &pool.ring_servers());
        assert_eq!(case.owners.len(), golden.keys.len());
        for (key, &expected) in golden.keys.iter().zip(&case.owners) {
            let hash = case.hash.hash(hashed_part(key, case.hash_tag));
            let owner = ring.pick(hash).map(|index| pool.place_as_written(index));
            assert_eq!(
                owner,
                Some(expected),
                "{} {} {} tag {:?} key {}",
                case.servers,
                case.hash.name(),
                case.distribution.name(),
                case.hash_tag,
                key.escape_ascii(),
            );
        }
    }
}

#[test]
fn golden_answers_cover_every_hash() {
    let golden = Golden::load();
    for &(name, hash) in HashKind::ALL {
        let count = golden.cases.iter().filter(|c| c.hash == hash).count();
        assert_eq!(count, 26, "{name}");
    }
}

// C48
#[test]
fn hash_functions_return_the_published_values() {
    for (key, values) in HASH_VALUES {
        assert_eq!(values.len(), HashKind::ALL.len());
        for ((name, kind), value) in HashKind::ALL.iter().zip(values) {
            assert_eq!(kind.hash(key), value, "{name} of {}", key.escape_ascii());
        }
    }
}

// C49
#[test]
fn four_equal_servers_have_the_known_ring() {
    let pool = four_servers();
    let ring = Placement::build(Distribution::Ketama, &pool.ring_servers());
    assert_eq!(ring.points().len(), 640);
    assert_lowest_points(
        &pool,
        &ring,
        &[
            (9_796_559, "server3"),
            (10_686_546, "server2"),
            (26_495_822, "server1"),
            (41_163_405, "server4"),
        ],
    );
    assert_owners(
        &pool,
        &ring,
        &[
            ("server1", "apple beat carrot foo"),
            ("server4", "daikon"),
            ("server2", "eggplant"),
            ("server3", "user1 placeholder"),
        ],
    );
    assert_eq!(pool.owner(&ring, b""), "server3");
}

// C50
#[test]
fn an_ejected_server_leaves_the_known_ring() {
    let pool = four_servers();
    let mut servers = pool.ring_servers();
    servers[2].live = false;
    let ring = Placement::build(Distribution::Ketama, &servers);
    assert_eq!(ring.points().len(), 480);
    assert_lowest_points(
        &pool,
        &ring,
        &[
            (10_686_546, "server2"),
            (26_495_822, "server1"),
            (41_163_405, "server4"),
        ],
    );
    assert_owners(
        &pool,
        &ring,
        &[
            ("server1", "apple beat carrot foo"),
            ("server4", "daikon"),
            ("server2", "eggplant user1 placeholder"),
        ],
    );
}

// C52
#[test]
fn a_heavier_server_has_more_of_the_known_ring() {
    let pool = Pool::new(&["h:1:3 server1", "h:2:1 server2"]);
    let ring = Placement::build(Distribution::Ketama, &pool.ring_servers());
    assert_eq!(point_counts(&ring, 2), [240, 80]);
    assert_lowest_points(
        &pool,
        &ring,
        &[
            (26_495_822, "server1"),
            (43_122_646, "server2"),
            (47_406_603, "server2"),
        ],
    );
    assert_owners(
        &pool,
        &ring,
        &[
            (
                "server1",
                "apple beat carrot daikon eggplant foo placeholder",
            ),
            ("server2", "user1"),
        ],
    );
}

#[test]
fn unnamed_servers_are_hashed_by_address() {
    let pool = Pool::new(&["127.0.0.1:11212:1", "127.0.0.1:11213:1"]);
    let ring = Placement::build(Distribution::Ketama, &pool.ring_servers());
    assert_eq!(ring.points().len(), 320);
    assert_lowest_points(
        &pool,
        &ring,
        &[
            (15_946_801, "127.0.0.1:11212"),
            (24_051_458, "127.0.0.1:11212"),
            (32_225_788, "127.0.0.1:11212"),
        ],
    );
    assert_owners(
        &pool,
        &ring,
        &[
            (
                "127.0.0.1:11212",
                "apple beat carrot daikon foo placeholder",
            ),
            ("127.0.0.1:11213", "eggplant"),
        ],
    );
}

// C51
#[test]
fn the_memcached_port_is_not_part_of_a_name() {
    let pool = Pool::new(&["10.0.0.1:11211:1", "10.0.0.2:11211:1", "10.0.0.3:11212:1"]);
    let ring = Placement::build(Distribution::Ketama, &pool.ring_servers());
    assert_eq!(ring.points().len(), 480);
    assert_lowest_points(
        &pool,
        &ring,
        &[
            (3_706_987, "10.0.0.3:11212"),
            (6_707_921, "10.0.0.3:11212"),
            (18_272_749, "10.0.0.2"),
        ],
    );
    assert_owners(
        &pool,
        &ring,
        &[
            ("10.0.0.2", "apple carrot daikon eggplant foo"),
            ("10.0.0.3:11212", "beat user1 placeholder"),
        ],
    );
}

#[test]
fn unnamed_unix_sockets_are_hashed_with_a_colon() {
    let pool = Pool::new(&["/tmp/a.sock:1", "/tmp/b.sock:1"]);
    let ring = Placement::build(Distribution::Ketama, &pool.ring_servers());
    assert_eq!(ring.points().len(), 320);
    assert_lowest_points(
        &pool,
        &ring,
        &[
            (33_666_573, "/tmp/a.sock:"),
            (36_129_412, "/tmp/a.sock:"),
            (59_117_669, "/tmp/b.sock:"),
        ],
    );
    assert_owners(
        &pool,
        &ring,
        &[
            ("/tmp/b.sock:", "carrot"),
            ("/tmp/a.sock:", "apple beat daikon eggplant foo user1"),
        ],
    );
}

// C54
#[test]
fn modula_divides_as_published() {
    let pool = four_servers();
    let ring = Placement::build(Distribution::Modula, &pool.ring_servers());
    assert_owners(
        &pool,
        &ring,
        &[
            ("server4", "apple daikon eggplant foo"),
            ("server2", "beat user1"),
            ("server3", "carrot placeholder"),
        ],
    );
    assert_eq!(pool.owner(&ring, b""), "server1");

    let weighted = Pool::new(&["h:1:1 aa", "h:2:2 b", "h:3:1 c"]);
    let ring = Placement::build(Distribution::Modula, &weighted.ring_servers());
    let slots = [0, 1, 2, 3].map(|hash| weighted.name(ring.pick(hash).unwrap()));
    assert_eq!(slots, ["b", "b", "c", "aa"]);
    assert_owners(
        &weighted,
        &ring,
        &[("aa", "apple"), ("b", "beat user1"), ("c", "carrot")],
    );
}

// C53
#[test]
fn point_counts_keep_the_rounding_of_single_precision() {
    for (server_count, points_each) in [(24, 160), (25, 156), (26, 160), (47, 156), (100, 156)] {
        let entries: Vec<String> = (0..server_count).map(|i| format!("h:{i}:1")).collect();
        let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
        let ring = Placement::build(Distribution::Ketama, &Pool::new(&entries).ring_servers());
        assert_eq!(
            point_counts(&ring, server_count),
            vec![points_each; server_count],
        );
    }
}

// C52
#[test]
fn a_very_light_server_has_no_points_and_no_keys() {
    let pool = Pool::new(&["h:1:100000 heavy", "h:2:1 light"]);
    let ring = Placement::build(Distribution::Ketama, &pool.ring_servers());
    assert_eq!(point_counts(&ring, 2), [4 * 79, 0]);
    assert!((0..1000).all(|i| ring.pick(i << 22) == Some(0)));
}

/// The golden file, read.
struct Golden {
    keys: Vec<Vec<u8>>,
    pools: BTreeMap<String, Pool>,
    cases: Vec<Case>,
}

struct Case {
    servers: String,
    hash: HashKind,
    distribution: Distribution,
    hash_tag: Option<[u8; 2]>,
    /// For each key, a place in the server list as written.
    owners: Vec<usize>,
}

impl Golden {
    fn load() -> Self {
        let file: Value = serde_json::from_str(include_str!("data/ring.json")).unwrap();
        let pools = file["servers"].as_object().unwrap().iter();
        Self {
            keys: array(&file["keys_hex"])
                .map(|key| unhex(text(key)))
                .collect(),
            pools: pools
                .map(|(name, list)| {
                    let entries: Vec<&str> = array(list).map(text).collect();
                    (name.clone(), Pool::new(&entries))
                })
                .collect(),
            cases: array(&file["cases"]).map(Case::read).collect(),
        }
    }
}

impl Case {
    fn read(case: &Value) -> Self {
        let place = |owner: &Value| usize::try_from(owner.as_u64().unwrap()).unwrap();
        Self {
            servers: text(&case["servers"]).to_owned(),
            hash: HashKind::from_name(text(&case["hash"])).unwrap(),
            distribution: Distribution::from_name(text(&case["distribution"])).unwrap(),
            hash_tag: case["hash_tag"]
                .as_str()
                .map(|tag| tag.as_bytes().try_into().unwrap()),
            owners: array(&case["map"]).map(place).collect(),
        }
    }
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().unwrap().iter()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// Servers in index order, each with its place in the list as written.
struct Pool {
    servers: Vec<Server>,
}

struct Server {
    name: String,
    weight: u32,
    place: usize,
}

impl Pool {
    fn new(entries: &[&str]) -> Self {
        let mut servers: Vec<Server> = entries
            .iter()
            .enumerate()
            .map(|(place, entry)| {
                let (name, weight) = name_and_weight(entry);
                Server {
                    name,
                    weight,
                    place,
                }
            })
            .collect();
        servers.sort_by(|a, b| (a.name.len(), &a.name).cmp(&(b.name.len(), &b.name)));
        Self { servers }
    }

    fn ring_servers(&self) -> Vec<RingServer<'_>> {
        let servers = self.servers.iter();
        servers
            .map(|server| RingServer {
                name: &server.name,
                weight: server.weight,
                live: true,
            })
            .collect()
    }

    fn place_as_written(&self, index: u32) -> usize {
        self.servers[usize::try_from(index).unwrap()].place
    }

    fn name(&self, index: u32) -> &str {
        &self.servers[usize::try_from(index).unwrap()].name
    }

    /// Name of the owner of a key under twemproxy's default hash.
    fn owner(&self, ring: &Placement, key: &[u8]) -> &str {
        self.name(ring.pick(HashKind::Fnv1a64.hash(key)).unwrap())
    }
}

/// Reads `host:port:weight [name]` or `/path:weight [name]`, from the right.
fn name_and_weight(entry: &str) -> (String, u32) {
    let (address_and_weight, name) = match entry.rsplit_once(' ') {
        Some((rest, name)) => (rest, Some(name)),
        None => (entry, None),
    };
    let (address, weight) = address_and_weight.rsplit_once(':').unwrap();
    let name = match (name, address.strip_suffix(":11211")) {
        (Some(name), _) => name.to_owned(),
        (None, _) if address.starts_with('/') => format!("{address}:"),
        (None, Some(host)) => host.to_owned(),
        (None, None) => address.to_owned(),
    };
    (name, weight.parse().unwrap())
}

fn four_servers() -> Pool {
    Pool::new(&[
        "h:1:1 server1",
        "h:2:1 server2",
        "h:3:1 server3",
        "h:4:1 server4",
    ])
}

/// How many points each of the servers has.
fn point_counts(ring: &Placement, server_count: usize) -> Vec<usize> {
    let mut counts = vec![0; server_count];
    for point in ring.points() {
        counts[usize::try_from(point.server).unwrap()] += 1;
    }
    counts
}

fn assert_lowest_points(pool: &Pool, ring: &Placement, expected: &[(u32, &str)]) {
    let points = ring.points().iter().take(expected.len());
    let points: Vec<(u32, &str)> = points.map(|p| (p.value, pool.name(p.server))).collect();
    assert_eq!(points, expected);
}

/// Checks the owners of keys, given as words after the owner's name.
fn assert_owners(pool: &Pool, ring: &Placement, expected: &[(&str, &str)]) {
    for (owner, keys) in expected {
        for key in keys.split(' ') {
            assert_eq!(pool.owner(ring, key.as_bytes()), *owner, "{key}");
        }
    }
}

/// Values in the order of [`HashKind::ALL`]. The first row is published with its source; the
/// others were computed by an independent implementation that reproduces the first.
#[rustfmt::skip]
const HASH_VALUES: [(&[u8], [u32; 12]); 10] = [
    (b"apple", [
        2_297_466_611, 3_195_025_439, 3_662_830_516, 10_542, 2_838_417_488, 473_199_127,
        1_488_911_807, 67_176_023, 280_767_167, 3_738_850_110, 4_142_305_122, 1_442_444_624,
    ]),
    (b"beat", [
        3_902_465_932, 2_556_848_621, 1_367_196_201, 22_009, 3_589_867_164, 4_148_981_457,
        2_500_855_813, 1_190_179_409, 2_421_315_013, 3_636_226_060, 734_504_955, 4_253_821_186,
    ]),
    (b"carrot", [
        469_785_835, 3_724_893_440, 1_587_355_143, 14_526, 3_099_497_678, 3_971_873_300,
        1_510_099_634, 2_043_204_404, 3_072_375_666, 3_821_074_029, 3_802_834_688, 1_885_058_256,
    ]),
    (b"daikon", [
        1_937_308_741, 3_332_385_401, 1_408_286_071, 19_510, 3_426_096_493, 3_257_986_707,
        1_390_325_195, 3_221_866_419, 855_001_899, 3_489_929_160, 4_076_891_445, 2_120_131_735,
    ]),
    (b"eggplant", [
        261_917_617, 245_758_794, 2_151_303_434, 19_432, 3_421_029_968, 1_722_477_987,
        3_647_689_787, 2_567_703_427, 459_261_019, 3_485_772_682, 387_802_650, 3_261_968_576,
    ]),
    (b"foo", [
        596_015_325, 3_675_831_724, 205_303_702, 3_187, 2_356_372_769, 1_805_727_027,
        4_275_688_823, 1_083_137_555, 2_851_307_223, 1_993_659_431, 3_303_027_599, 2_583_187_353,
    ]),
    (b"a", [
        3_392_050_242, 3_111_502_092, 31_879, 26_807, 3_904_355_907, 2_248_259_518,
        2_248_273_036, 84_696_446, 3_826_002_220, 2_472_816_263, 1_262_581_116, 3_768_813_200,
    ]),
    (b"key:000000000001", [
        2_001_924_870, 1_964_159_014, 963_175_132, 12_075, 791_383_045, 2_116_155_901,
        1_870_535_797, 2_822_210_973, 611_578_645, 249_238_381, 481_916_606, 2_724_167_308,
    ]),
    (b"\xff", [
        2_925_896_852, 3_561_969_920, 7_920, 32_512, 4_278_190_080, 2_046_707_744,
        2_046_707_310, 4_210_270_944, 4_193_493_326, 44_489_640, 3_679_652_508, 3_784_723_880,
    ]),
    (b"\xc3\xa9\xe2\x82\xac", [
        686_222_668, 3_984_937_687, 97_256_358, 9_287, 608_641_629, 304_443_531,
        3_319_204_535, 2_179_051_435, 1_165_923_927, 2_235_502_855, 479_484_265, 1_760_013_529,
    ]),
];
