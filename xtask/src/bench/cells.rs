//! The matrix: which loads are measured, on whom.

use std::path::Path;

/// A proxy, or what takes its place, as the load tool starts it.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) name: &'static str,
    pub(crate) options: Vec<String>,
}

pub(crate) const OURS: &str = "ours";
pub(crate) const NUTCRACKER: &str = "nutcracker";
pub(crate) const ENVOY: &str = "envoy";
pub(crate) const RELAY: &str = "relay";
/// Ours once more: what the machine's noise makes of no difference at all.
pub(crate) const CONTROL: &str = "control";
/// Ours and nutcracker with many idle clients beside the busy ones.
pub(crate) const OURS_AND_IDLE: &str = "ours-and-idle";
pub(crate) const NUTCRACKER_AND_IDLE: &str = "nutcracker-and-idle";

impl Candidate {
    pub(crate) fn nutcracker(name: &'static str, program: &Path) -> Self {
        let options = vec!["--nutcracker".to_owned(), program.display().to_string()];
        Self { name, options }
    }

    /// The same with 10,000 clients that say nothing.
    pub(crate) fn and_idle(mut self, name: &'static str) -> Self {
        self.options.extend(["--idle", "10000"].map(str::to_owned));
        Self { name, ..self }
    }

    pub(crate) fn envoy(program: &Path) -> Self {
        let options = vec!["--envoy".to_owned(), program.display().to_string()];
        Self {
            name: ENVOY,
            options,
        }
    }

    /// The relay knows lengths only, so its keys have one: 18 bytes, where those of the others have 17.5 on average.
    pub(crate) fn relay() -> Self {
        let options = vec!["--relay".to_owned(), "--fixed-keys".to_owned()];
        Self {
            name: RELAY,
            options,
        }
    }
}

/// One load.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) table: Table,
    /// Verb and options of the load tool.
    pub(crate) load: String,
    /// Least measured time, seconds.
    pub(crate) seconds: Option<f64>,
    pub(crate) candidates: &'static [&'static str],
    /// Rate of an open loop, as a share of what nutcracker reached in the cell [`CAPACITY`].
    pub(crate) share: Option<f64>,
    /// The same of the clients beside, if they have a rate.
    pub(crate) beside_share: Option<f64>,
    pub(crate) pairs: Pairs,
    /// Seconds that a run takes beside the measured ones and the warm-up, about.
    pub(crate) around: f64,
}

impl Cell {
    /// Whether a run that nobody counts goes first. Large values over unix sockets make the kernel take megabytes of
    /// memory afresh, which a virtual machine may first have to get back from its host: the first run took 77 us a
    /// request in the proxy and 81 in the tool, later ones 17 and 18.
    pub(crate) fn is_warmed(&self) -> bool {
        self.table == Table::Unix && self.pairs == Pairs::AsPlanned
    }
}

/// How often a cell is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pairs {
    AsPlanned,
    /// No goal is about it.
    Reported,
    /// It takes long or does not vary.
    Once,
}

/// Where in the report a cell stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    Cost,
    /// The same over unix sockets.
    Unix,
    Latency,
    /// With real servers and a real generator.
    Real,
    /// With and without idle clients.
    Idle,
    Memory,
    /// In no table: what it shows is the least difference that counts.
    Control,
}

/// The cell whose rate is nutcracker's capacity.
pub(crate) const CAPACITY: &str = "redis-get-1";

/// The cell in which ours meets itself.
pub(crate) const CONTROL_CELL: &str = "control";

const ALL: &[&str] = &[OURS, NUTCRACKER, ENVOY, RELAY];
const SELF: &[&str] = &[OURS, CONTROL];
const BOTH: &[&str] = &[OURS, NUTCRACKER];
const NO_RELAY: &[&str] = &[OURS, NUTCRACKER, ENVOY];
const NO_ENVOY: &[&str] = &[OURS, NUTCRACKER, RELAY];
const IDLE: &[&str] = &[OURS, OURS_AND_IDLE, NUTCRACKER, NUTCRACKER_AND_IDLE];

/// All cells, what is needed by others and what takes longest first.
pub(crate) fn cells() -> Vec<Cell> {
    let mut cells = vec![
        cost("redis-get-1", "redis GET, depth 1", "--depth 1", ALL),
        cost("redis-get-16", "redis GET, depth 16", "--depth 16", ALL),
        cost("redis-get-64", "redis GET, depth 64", "--depth 64", ALL),
        Cell {
            table: Table::Control,
            ..cost(
                CONTROL_CELL,
                "redis GET, depth 16, ours against ours",
                "--depth 16",
                SELF,
            )
        },
    ];
    cells.extend(latencies());
    cells.extend(memories());
    cells.extend(costs());
    cells.extend(reals());
    cells.push(Cell {
        table: Table::Idle,
        // Ten thousand connections take their time to make and to close.
        around: 1.5,
        ..cost(
            "idle-clients",
            "redis GET, depth 1, 50 busy clients without and with 10,000 idle ones",
            "--depth 1",
            IDLE,
        )
    });
    cells.extend(unix());
    cells
}

/// CPU per request over TCP, less what stands first.
fn costs() -> Vec<Cell> {
    let redis_set = |id, title, load| cost(id, title, load, NO_RELAY);
    let memcache = |id, title, load: &str| {
        let load = format!("--protocol memcache {load}");
        cost(id, title, &load, BOTH)
    };
    vec![
        redis_set("redis-set-1", "redis SET, depth 1", "--op set --depth 1"),
        redis_set("redis-set-16", "redis SET, depth 16", "--op set --depth 16"),
        redis_set("redis-set-64", "redis SET, depth 64", "--op set --depth 64"),
        memcache("memcache-get-1", "memcached get, depth 1", "--depth 1"),
        memcache("memcache-get-16", "memcached get, depth 16", "--depth 16"),
        memcache("memcache-get-64", "memcached get, depth 64", "--depth 64"),
        memcache(
            "memcache-set-1",
            "memcached set, depth 1",
            "--op set --depth 1",
        ),
        memcache(
            "memcache-set-16",
            "memcached set, depth 16",
            "--op set --depth 16",
        ),
        memcache(
            "memcache-set-64",
            "memcached set, depth 64",
            "--op set --depth 64",
        ),
        cost(
            "redis-mget-50",
            "redis MGET of 50 keys, depth 1",
            "--op mget --keys 50",
            NO_RELAY,
        ),
        memcache(
            "memcache-mget-50",
            "memcached get of 50 keys, depth 1",
            "--op mget --keys 50",
        ),
        cost(
            "redis-get-64k",
            "redis GET of 64 KiB, depth 1",
            "--value-size 65536",
            ALL,
        ),
        cost(
            "redis-set-64k",
            "redis SET of 64 KiB, depth 1",
            "--op set --value-size 65536",
            ALL,
        ),
        memcache(
            "memcache-get-64k",
            "memcached get of 64 KiB, depth 1",
            "--value-size 65536",
        ),
        memcache(
            "memcache-set-64k",
            "memcached set of 64 KiB, depth 1",
            "--op set --value-size 65536",
        ),
    ]
}

fn over_unix(
    id: &'static str,
    title: &'static str,
    load: &str,
    candidates: &'static [&'static str],
) -> Cell {
    Cell {
        table: Table::Unix,
        ..reported(cost(
            id,
            title,
            &format!("--transport unix {load}"),
            candidates,
        ))
    }
}

/// The same over unix sockets, reported only.
fn unix() -> Vec<Cell> {
    let redis = |id, title, load| over_unix(id, title, load, BOTH);
    let memcache = |id, title, load: &str| {
        let load = format!("--protocol memcache {load}");
        over_unix(id, title, &load, BOTH)
    };
    vec![
        over_unix(
            "unix-redis-get-1",
            "redis GET, depth 1",
            "--depth 1",
            NO_ENVOY,
        ),
        over_unix(
            "unix-redis-get-16",
            "redis GET, depth 16",
            "--depth 16",
            NO_ENVOY,
        ),
        over_unix(
            "unix-redis-get-64",
            "redis GET, depth 64",
            "--depth 64",
            NO_ENVOY,
        ),
        redis(
            "unix-redis-set-1",
            "redis SET, depth 1",
            "--op set --depth 1",
        ),
        redis(
            "unix-redis-set-16",
            "redis SET, depth 16",
            "--op set --depth 16",
        ),
        redis(
            "unix-redis-set-64",
            "redis SET, depth 64",
            "--op set --depth 64",
        ),
        memcache("unix-memcache-get-1", "memcached get, depth 1", "--depth 1"),
        memcache(
            "unix-memcache-get-16",
            "memcached get, depth 16",
            "--depth 16",
        ),
        memcache(
            "unix-memcache-get-64",
            "memcached get, depth 64",
            "--depth 64",
        ),
        memcache(
            "unix-memcache-set-1",
            "memcached set, depth 1",
            "--op set --depth 1",
        ),
        memcache(
            "unix-memcache-set-16",
            "memcached set, depth 16",
            "--op set --depth 16",
        ),
        memcache(
            "unix-memcache-set-64",
            "memcached set, depth 64",
            "--op set --depth 64",
        ),
        redis(
            "unix-redis-mget-50",
            "redis MGET of 50 keys, depth 1",
            "--op mget --keys 50",
        ),
        memcache(
            "unix-memcache-mget-50",
            "memcached get of 50 keys, depth 1",
            "--op mget --keys 50",
        ),
        planned(redis(
            "unix-redis-get-64k",
            "redis GET of 64 KiB, depth 1",
            "--value-size 65536",
        )),
        planned(redis(
            "unix-redis-set-64k",
            "redis SET of 64 KiB, depth 1",
            "--op set --value-size 65536",
        )),
        planned(memcache(
            "unix-memcache-get-64k",
            "memcached get of 64 KiB, depth 1",
            "--value-size 65536",
        )),
        planned(memcache(
            "unix-memcache-set-64k",
            "memcached set of 64 KiB, depth 1",
            "--op set --value-size 65536",
        )),
    ]
}

/// Latency at a fixed rate.
fn latencies() -> Vec<Cell> {
    let open = |id, title, share, load| Cell {
        share: Some(share),
        // The last thousandth must be more than a handful of requests.
        seconds: Some(2.0),
        table: Table::Latency,
        ..cost(id, title, load, BOTH)
    };
    vec![
        open(
            "open-half",
            "GETs at half of nutcracker's capacity",
            0.5,
            "",
        ),
        open("open-90", "GETs at 90 % of nutcracker's capacity", 0.9, ""),
        open(
            "beside-64k",
            "GETs at a fifth of nutcracker's capacity while one client has 16 GETs of 64 KiB in flight all the time",
            0.2,
            "--beside-clients 1 --beside-depth 16 --beside-value-size 65536",
        ),
        reported(Cell {
            // With the small ones about half of what nutcracker can carry.
            beside_share: Some(0.03),
            ..open(
                "beside-64k-paced",
                "GETs at a fifth of nutcracker's capacity while one client pipelines 16 GETs of 64 KiB, at 3 % of it",
                0.2,
                "--beside-clients 1 --beside-depth 16 --beside-value-size 65536",
            )
        }),
        reported(open(
            "beside-slow",
            "GETs at half of nutcracker's capacity while 10 clients pipeline 16 GETs of 64 KiB and read 1 MB/s each",
            0.5,
            "--beside-clients 10 --beside-depth 16 --beside-value-size 65536 --beside-read-rate 1000000",
        )),
    ]
}

/// Resident memory.
fn memories() -> Vec<Cell> {
    let memory = |id, title, load, seconds, around| Cell {
        table: Table::Memory,
        seconds: Some(seconds),
        pairs: Pairs::Once,
        around,
        ..cost(id, title, load, NO_RELAY)
    };
    vec![
        memory(
            "idle-memory",
            "10,000 clients, each used once",
            "--clients 10000 --depth 1 --requests 10000 --warmup 0 --watch 5",
            20.0,
            // The requests are done long before the measured time is over.
            -14.0,
        ),
        memory(
            "burst",
            "80 clients pipelining 200 GETs of 1 KiB, then 10 s of rest",
            "--clients 80 --depth 200 --value-size 1024 --warmup 0 --watch 10",
            1.5,
            AROUND + 10.0,
        ),
    ]
}

/// Real servers and a real generator.
fn reals() -> Vec<Cell> {
    let real = |id, title, load: &str| Cell {
        table: Table::Real,
        load: format!("real {load}"),
        seconds: Some(1.5),
        around: 1.0,
        ..cost(id, title, "", BOTH)
    };
    vec![
        real("real-get", "redis-benchmark GET, depth 1", "--op get"),
        real("real-set", "redis-benchmark SET, depth 1", "--op set"),
    ]
}

fn reported(cell: Cell) -> Cell {
    Cell {
        pairs: Pairs::Reported,
        ..cell
    }
}

fn planned(cell: Cell) -> Cell {
    Cell {
        pairs: Pairs::AsPlanned,
        ..cell
    }
}

fn cost(
    id: &'static str,
    title: &'static str,
    load: &str,
    candidates: &'static [&'static str],
) -> Cell {
    Cell {
        id,
        title,
        table: Table::Cost,
        load: format!("run {load}"),
        seconds: None,
        candidates,
        share: None,
        beside_share: None,
        pairs: Pairs::AsPlanned,
        around: AROUND,
    }
}

/// Starting and stopping a proxy.
const AROUND: f64 = 0.25;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_has_a_name_of_its_own_and_measures_us() {
        let cells = cells();
        for (index, cell) in cells.iter().enumerate() {
            assert!(cell.candidates.contains(&OURS), "{}", cell.id);
            assert!(
                cells[..index].iter().all(|other| other.id != cell.id),
                "{}",
                cell.id
            );
        }
        let capacity = cells.iter().position(|cell| cell.id == CAPACITY);
        let first_open = cells.iter().position(|cell| cell.share.is_some());
        assert!(
            capacity < first_open,
            "the capacity is known when it is needed"
        );
    }
}
