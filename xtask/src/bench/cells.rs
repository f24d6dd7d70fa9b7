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

impl Candidate {
    pub(crate) fn nutcracker(name: &'static str, program: &Path) -> Self {
        let options = vec!["--nutcracker".to_owned(), program.display().to_string()];
        Self { name, options }
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
    /// Options of the load tool.
    pub(crate) load: String,
    /// Least measured time, seconds.
    pub(crate) seconds: Option<f64>,
    pub(crate) candidates: &'static [&'static str],
    /// Rate of an open loop, as a share of what nutcracker reached in the cell [`CAPACITY`].
    pub(crate) share: Option<f64>,
    pub(crate) pairs: Pairs,
}

/// How often a cell is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pairs {
    AsPlanned,
    /// It takes long or does not vary.
    Once,
}

/// Where in the report a cell stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    Cost,
    Latency,
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

/// All cells, what matters most first: a run that is out of time leaves out the last ones.
pub(crate) fn cells() -> Vec<Cell> {
    let mut cells = vec![
        cost(
            "redis-get-1",
            "redis GET, depth 1",
            "--op get --depth 1",
            ALL,
        ),
        cost(
            "redis-get-16",
            "redis GET, depth 16",
            "--op get --depth 16",
            ALL,
        ),
        cost(
            "redis-get-64",
            "redis GET, depth 64",
            "--op get --depth 64",
            ALL,
        ),
        Cell {
            table: Table::Control,
            ..cost(
                CONTROL_CELL,
                "redis GET, depth 16, ours against ours",
                "--op get --depth 16",
                SELF,
            )
        },
        memory(
            "idle-memory",
            "4000 clients, each used once",
            "--clients 4000 --depth 1 --requests 4000 --warmup 0 --watch 1",
            20.0,
        ),
        memory(
            "burst",
            "80 clients pipelining 200 GETs of 1 KiB, then 10 s of rest",
            "--clients 80 --depth 200 --value-size 1024 --warmup 0 --watch 10",
            1.5,
        ),
        open(
            "open-half",
            "GETs at half of nutcracker's capacity",
            0.5,
            "",
        ),
        open("open-90", "GETs at 90 % of nutcracker's capacity", 0.9, ""),
    ];
    cells.extend(costs());
    cells.extend([
        open(
            "beside-64k",
            "GETs at a fifth of nutcracker's capacity while one client pipelines 16 GETs of 64 KiB",
            0.2,
            " --beside-clients 1 --beside-depth 16 --beside-value-size 65536",
        ),
        cost(
            "busy-alone",
            "50 busy clients alone",
            "--op get --depth 1",
            BOTH,
        ),
        cost(
            "busy-and-idle",
            "50 busy clients beside 10,000 idle ones",
            "--op get --depth 1 --idle 10000",
            BOTH,
        ),
        cost(
            "memcache-set-1",
            "memcached set, depth 1",
            "--protocol memcache --op set --depth 1",
            BOTH,
        ),
        cost(
            "memcache-set-16",
            "memcached set, depth 16",
            "--protocol memcache --op set --depth 16",
            BOTH,
        ),
        cost(
            "memcache-set-64",
            "memcached set, depth 64",
            "--protocol memcache --op set --depth 64",
            BOTH,
        ),
    ]);
    cells
}

/// The rest of the matrix of CPU per request.
fn costs() -> Vec<Cell> {
    vec![
        cost(
            "memcache-get-1",
            "memcached get, depth 1",
            "--protocol memcache --depth 1",
            NO_ENVOY,
        ),
        cost(
            "memcache-get-16",
            "memcached get, depth 16",
            "--protocol memcache --depth 16",
            NO_ENVOY,
        ),
        cost(
            "memcache-get-64",
            "memcached get, depth 64",
            "--protocol memcache --depth 64",
            NO_ENVOY,
        ),
        cost(
            "redis-set-1",
            "redis SET, depth 1",
            "--op set --depth 1",
            ALL,
        ),
        cost(
            "redis-set-16",
            "redis SET, depth 16",
            "--op set --depth 16",
            ALL,
        ),
        cost(
            "redis-set-64",
            "redis SET, depth 64",
            "--op set --depth 64",
            ALL,
        ),
        cost(
            "redis-mget-50",
            "redis MGET of 50 keys, depth 1",
            "--op mget --keys 50",
            NO_RELAY,
        ),
        cost(
            "memcache-mget-50",
            "memcached get of 50 keys, depth 1",
            "--protocol memcache --op mget --keys 50",
            BOTH,
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
        cost(
            "unix-get-1",
            "redis GET over unix sockets, depth 1",
            "--transport unix --depth 1",
            NO_ENVOY,
        ),
        cost(
            "unix-get-16",
            "redis GET over unix sockets, depth 16",
            "--transport unix --depth 16",
            NO_ENVOY,
        ),
        cost(
            "unix-get-64",
            "redis GET over unix sockets, depth 64",
            "--transport unix --depth 64",
            NO_ENVOY,
        ),
    ]
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
        load: load.to_owned(),
        seconds: None,
        candidates,
        share: None,
        pairs: Pairs::AsPlanned,
    }
}

fn open(id: &'static str, title: &'static str, share: f64, load: &str) -> Cell {
    Cell {
        share: Some(share),
        // The last thousandth must be more than a handful of requests.
        seconds: Some(1.5),
        table: Table::Latency,
        ..cost(id, title, load, BOTH)
    }
}

fn memory(id: &'static str, title: &'static str, load: &str, seconds: f64) -> Cell {
    Cell {
        table: Table::Memory,
        seconds: Some(seconds),
        pairs: Pairs::Once,
        ..cost(id, title, load, NO_RELAY)
    }
}

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
