//! Servers that are killed, stopped and restarted while many clients pipeline through every kind of
//! pool, both protocols at once.
//!
//! Every request is answered once, in order: by its own value, or by words that are promised for
//! what has happened to the servers of its keys. Who wants nothing of the harmed servers sees no
//! error and no stall. Afterwards the counters balance, and those of failures moved only where
//! something failed.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use twemproxy_core::topology::{Distribution, HashKind, Placement, RingServer};
use twemproxy_testkit::harness::{
    ConfigBuilder, PoolBuilder, Proxy, Server, ServerKind, private_dir, wait_for,
};
use twemproxy_testkit::model::redis::array_of;
use twemproxy_testkit::wire::{Wire, escape};

const BINARY: &str = env!("CARGO_BIN_EXE_nutcracker");

const KINDS: [ServerKind; 2] = [ServerKind::Redis, ServerKind::Memcached];
const SERVERS: [&str; 3] = ["s0", "s1", "s2"];
/// What becomes of each server.
const KILLED: usize = 0;
const STOPPED: usize = 1;
const WELL: usize = 2;

/// Clients of each pool: those that use all servers, and those that use only the one that is well.
const MIXED: usize = 3;
const BYSTANDERS: usize = 2;
/// Requests in a pipeline: a write and a read of each key, one answered by the proxy, and one of
/// several keys or of a single one.
const KEYS: usize = 7;
/// Longer than a busy machine lets a healthy server wait.
const TIMEOUT_MS: &str = "1000";

/// What a pool does about a server that fails: `None` keeps it, else `auto_eject_policy`.
const POLICIES: [Option<&str>; 4] = [None, Some("rehash"), Some("fail"), Some("miss")];

/// Words for a server that was killed, and is not there for a while.
const LOST: [&str; 5] = [
    "Server closed the connection",
    "Connection reset by peer",
    "Broken pipe",
    "Connection refused",
    "No such file or directory",
];
const LATE: &str = "Connection timed out";
/// For the keys of an ejected server, or if all are.
const EJECTED: &str = "Connection refused";

#[derive(Clone, Debug)]
struct Pool {
    name: String,
    kind: ServerKind,
    policy: Option<&'static str>,
}

/// What a client has seen.
#[derive(Clone, Copy, Default, Debug)]
struct Tally {
    /// Good replies to requests of one key.
    good: i64,
    /// Errors to requests of one key.
    errors: i64,
    /// Good replies to, and errors of requests of several keys.
    many_good: i64,
    many_errors: i64,
    /// Requests without a reply.
    quiet: i64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.good += other.good;
        self.errors += other.errors;
        self.many_good += other.many_good;
        self.many_errors += other.many_errors;
        self.quiet += other.quiet;
    }
}

/// What clients are told while they work.
#[derive(Default, Debug)]
struct Signs {
    over: AtomicBool,
    /// Everything works again: no error is promised to what is asked from now on.
    calm: AtomicBool,
    /// Pipelines answered, by client.
    done: Vec<AtomicUsize>,
}

fn pools() -> Vec<Pool> {
    let each = |kind| {
        POLICIES.map(|policy| Pool {
            name: format!("{kind:?}-{}", policy.unwrap_or("keep")).to_lowercase(),
            kind,
            policy,
        })
    };
    KINDS.into_iter().flat_map(each).collect()
}

/// The first keys of a client that live on `server`, named so that no other client has them.
fn keys_on(server: usize, owner: &str, count: usize) -> Vec<String> {
    let servers = SERVERS.map(|name| RingServer {
        name,
        weight: 1,
        live: true,
    });
    let ring = Placement::build(Distribution::Ketama, &servers);
    let position = u32::try_from(server).expect("few servers");
    (0..)
        .map(|n| format!("{owner}:{n}"))
        .filter(|key| ring.pick(HashKind::Fnv1a64.hash(key.as_bytes())) == Some(position))
        .take(count)
        .collect()
}

/// One client: what it asks and what it may be told.
struct Client<'a> {
    pool: &'a Pool,
    wire: Wire,
    /// With the server each lives on as long as that is not ejected.
    keys: Vec<(String, usize)>,
    quiet_key: String,
    round: usize,
    tally: Tally,
}

impl<'a> Client<'a> {
    fn new(pool: &'a Pool, number: usize, socket: &Path) -> Self {
        let owner = format!("{}-{number}", pool.name);
        let servers = if number < MIXED {
            0..SERVERS.len()
        } else {
            WELL..WELL + 1
        };
        let each = KEYS.div_ceil(servers.len());
        let keys = servers.flat_map(|server| {
            let keys = keys_on(server, &owner, each);
            keys.into_iter().map(move |key| (key, server))
        });
        let mut keys: Vec<_> = keys.collect();
        // So that neighbours in a pipeline live on different servers.
        keys.sort_unstable();
        keys.truncate(KEYS);
        Self {
            pool,
            wire: Wire::unix(socket).expect("the proxy listens"),
            quiet_key: keys_on(WELL, &format!("{owner}-quiet"), 1).remove(0),
            keys,
            round: 0,
            tally: Tally::default(),
        }
    }

    fn value(&self, key: &str, round: usize) -> String {
        format!("<{key}={round}>{}", "v".repeat(40 + round % 50))
    }

    /// Whether it asks for several keys at once. Where none does, each reply is one of a server or
    /// one error, and the counters can be foretold exactly.
    fn asks_for_many(&self) -> bool {
        self.pool.policy.is_some()
    }

    fn pipeline(&self) -> Vec<u8> {
        let redis = self.pool.kind == ServerKind::Redis;
        let mut out = Vec::new();
        for (n, (key, _)) in self.keys.iter().enumerate() {
            let value = self.value(key, self.round);
            if n == KEYS / 2 {
                out.extend(if redis {
                    array_of(&["ECHO", key])
                } else {
                    b"nonsense\r\n".to_vec()
                });
            }
            out.extend(if redis {
                [array_of(&["SET", key, &value]), array_of(&["GET", key])].concat()
            } else {
                format!("set {key} 0 0 {}\r\n{value}\r\nget {key}\r\n", value.len()).into_bytes()
            });
        }
        let keys: Vec<&str> = self.keys.iter().map(|(key, _)| key.as_str()).collect();
        let keys = if self.asks_for_many() {
            &keys[..]
        } else {
            &keys[..1]
        };
        if redis {
            out.extend(array_of(&[&["MGET"], keys].concat()));
        } else {
            let quiet = &self.quiet_key;
            out.extend(
                format!(
                    "set {quiet} 0 0 1 noreply\r\nx\r\nget {}\r\n",
                    keys.join(" ")
                )
                .bytes(),
            );
        }
        out
    }

    fn reply(&mut self) -> String {
        let reply = match self.pool.kind {
            ServerKind::Memcached => self.wire.read_memcache(),
            ServerKind::Redis | ServerKind::Valkey => self.wire.read_redis(),
        };
        String::from_utf8(reply).unwrap_or_else(|error| panic!("{}", escape(error.as_bytes())))
    }

    /// Asks once and checks each reply. In calm, nothing but what it has just written will do.
    fn run_round(&mut self, calm: bool) {
        self.round += 1;
        self.wire.send(&self.pipeline());
        let keys = self.keys.clone();
        for (n, (key, server)) in keys.iter().enumerate() {
            if n == KEYS / 2 {
                let reply = self.reply();
                let own = match self.pool.kind {
                    ServerKind::Memcached => reply == "ERROR\r\n",
                    ServerKind::Redis | ServerKind::Valkey => reply.contains(key.as_str()),
                };
                assert!(own, "{key}: {reply}");
            }
            let reply = self.reply();
            let is_stored = reply == "+OK\r\n" || reply == "STORED\r\n";
            if self.check_single(&reply, *server, calm) {
                // An ejected server's keys are missed where the pool says so.
                let is_missed = !calm && *server != WELL && reply == "NOT_STORED\r\n";
                assert!(is_stored || is_missed, "to a write of {key}: {reply}");
            }
            let reply = self.reply();
            if self.check_single(&reply, *server, calm) {
                self.check_values(&reply, &keys[n..=n], calm || *server == WELL);
            }
        }
        let reply = self.reply();
        if !self.asks_for_many() {
            if self.check_single(&reply, keys[0].1, calm) {
                self.check_values(&reply, &keys[..1], calm || keys[0].1 == WELL);
            }
        } else if self.is_promised(&reply, None, calm) {
            self.tally.many_errors += 1;
        } else {
            self.tally.many_good += 1;
            let exact = calm || keys.iter().all(|&(_, server)| server == WELL);
            self.check_values(&reply, &keys, exact);
        }
        if self.pool.kind == ServerKind::Memcached {
            self.tally.quiet += 1;
        }
    }

    /// Whether the reply to a request of one key is a good one.
    fn check_single(&mut self, reply: &str, server: usize, calm: bool) -> bool {
        let is_good = !self.is_promised(reply, Some(server), calm);
        self.tally.good += i64::from(is_good);
        self.tally.errors += i64::from(!is_good);
        is_good
    }

    /// Whether a reply is an error that is promised now for keys of `server`, or of all of this
    /// client's. Any other error fails the test.
    fn is_promised(&self, reply: &str, server: Option<usize>, calm: bool) -> bool {
        let text = match reply
            .strip_prefix("-ERR ")
            .or_else(|| reply.strip_prefix("SERVER_ERROR "))
        {
            Some(text) => text.trim_end(),
            None => {
                assert!(
                    !reply.starts_with('-') && !reply.contains("ERROR"),
                    "{reply}"
                );
                return false;
            }
        };
        let uses = |harmed| {
            server.map_or_else(
                || self.keys.iter().any(|&(_, server)| server == harmed),
                |server| server == harmed,
            )
        };
        // An ejected server's keys live on another one, which may be harmed, too.
        let is_rehashed = self.pool.policy == Some("rehash") && (uses(KILLED) || uses(STOPPED));
        let is_promised = !calm
            && ((uses(KILLED) || is_rehashed) && LOST.contains(&text)
                || (uses(STOPPED) || is_rehashed) && text == LATE
                || self.pool.policy.is_some()
                    && (uses(KILLED) || uses(STOPPED))
                    && text == EJECTED);
        assert!(
            is_promised,
            "{}, server {server:?}, calm {calm}: {reply}",
            self.pool.name
        );
        true
    }

    /// Each value in a reply is one that this client has written to one of `keys`; with `exact` all
    /// are there, as written last.
    fn check_values(&self, reply: &str, keys: &[(String, usize)], exact: bool) {
        let mut found = BTreeMap::new();
        for part in reply.split('<').skip(1) {
            let (name, rest) = part.split_once('>').expect("a whole value");
            let (key, round) = name.split_once('=').expect("a key and a round");
            let round: usize = round.parse().expect("a number");
            assert!(
                keys.iter().any(|(own, _)| own == key),
                "{key} is not asked for: {reply}"
            );
            assert!(round <= self.round, "{reply}");
            let value = self.value(key, round);
            assert!(rest.starts_with(&value[name.len() + 2..]), "{key}: {reply}");
            assert_eq!(found.insert(key, round), None, "{key} twice: {reply}");
        }
        if self.pool.kind == ServerKind::Redis && reply.starts_with('*') {
            let order: Vec<usize> = found
                .keys()
                .map(|key| reply.find(&format!("<{key}=")).expect("it was found"))
                .collect();
            assert!(order.is_sorted(), "as asked: {reply}");
        }
        if exact {
            assert_eq!(found.len(), keys.len(), "{reply}");
            assert!(found.values().all(|&round| round == self.round), "{reply}");
        }
    }
}

/// Servers of both kinds behind a proxy with a pool of each kind and policy.
struct Field {
    servers: Vec<Vec<Server>>,
    pools: Vec<Pool>,
    proxy: Proxy,
    _dir: tempfile::TempDir,
}

impl Field {
    fn start() -> Option<Self> {
        let dir = private_dir();
        let start = |kind: ServerKind| -> Option<Vec<Server>> {
            let named = |name| Server::start(kind, dir.path(), &format!("{kind:?}-{name}"), &[]);
            SERVERS.into_iter().map(named).collect()
        };
        let servers: Vec<Vec<Server>> = KINDS.into_iter().map(start).collect::<Option<_>>()?;
        let pools = pools();
        let mut config = ConfigBuilder::new(dir.path());
        for pool in &pools {
            let mut builder = PoolBuilder::new(&pool.name, pool.kind).set("timeout", TIMEOUT_MS);
            if let Some(policy) = pool.policy {
                builder = builder
                    .set("auto_eject_hosts", "true")
                    .set("auto_eject_policy", policy)
                    .set("server_failure_limit", "1")
                    .set("server_retry_timeout", "300");
            }
            for (name, server) in SERVERS.iter().zip(servers_of(&servers, pool.kind)) {
                builder = builder.server_line(&format!("{}:1 {name}", server.socket().display()));
            }
            config = config.pool(builder);
        }
        let proxy = Proxy::start(BINARY, dir.path(), &config, &["--workers=2"]);
        Some(Self {
            servers,
            pools,
            proxy,
            _dir: dir,
        })
    }

    fn each(&mut self, server: usize, mut act: impl FnMut(&mut Server)) {
        for servers in &mut self.servers {
            act(&mut servers[server]);
        }
    }

    fn server_stat(&self, pool: &Pool, server: usize, name: &str) -> i64 {
        self.proxy.stat(&pool.name, &[SERVERS[server], name])
    }

    /// Harms the servers while clients work, and waits until everything is as it was. Returns what
    /// was asked in doing so, by pool.
    fn harm(&mut self, signs: &Signs) -> Vec<Tally> {
        let bystanders_go_on = |rounds: usize| {
            let counts = || signs.done.iter().map(|count| count.load(Ordering::Relaxed));
            let goals: Vec<usize> = counts().map(|count| count + rounds).collect();
            wait_for("who wants nothing of the harmed servers is served", || {
                let per_pool = MIXED + BYSTANDERS;
                let mut all = counts().zip(&goals).enumerate();
                all.all(|(client, (count, &goal))| client % per_pool < MIXED || count >= goal)
                    .then_some(())
            });
        };
        bystanders_go_on(5);
        self.each(STOPPED, |server| server.process().pause());
        self.each(KILLED, |server| server.process().kill());
        for pool in &self.pools {
            wait_for("the loss is counted", || {
                let lost = ["server_err", "server_eof"];
                (lost.map(|name| self.server_stat(pool, KILLED, name)) != [0, 0]).then_some(())
            });
            wait_for("the silence is counted", || {
                (self.server_stat(pool, STOPPED, "server_timedout") > 0).then_some(())
            });
        }
        bystanders_go_on(10);
        self.each(KILLED, Server::restart);
        bystanders_go_on(5);
        self.each(STOPPED, |server| server.process().resume());
        let mut asked = vec![Tally::default(); self.pools.len()];
        for (pool, tally) in self.pools.iter().zip(&mut asked) {
            let mut client = self.proxy.connect(&pool.name);
            for server in 0..SERVERS.len() {
                let direct = &servers_of(&self.servers, pool.kind)[server];
                wait_for("every server has its keys back", || {
                    arrives(&mut client, pool, server, direct, tally)
                });
            }
        }
        signs.calm.store(true, Ordering::Relaxed);
        bystanders_go_on(5);
        asked
    }

    /// The counters of a pool balance with what its clients have seen.
    fn check(&self, pool: &Pool, seen: Tally) {
        let name = &pool.name;
        let [requests, responses, errors] = self.totals(pool);
        let told = format!("{name}: {requests} {responses} {errors} {seen:?}");
        assert!(seen.good > 0 && seen.errors > 0, "{told}");
        match pool.policy {
            None => {
                assert_eq!(responses, seen.good, "{told}");
                assert_eq!(errors, seen.errors, "{told}");
            }
            // A miss is neither a server's response nor an error.
            Some("miss") => assert!(
                responses <= seen.good + 3 * seen.many_good + 3 * seen.many_errors,
                "{told}"
            ),
            Some(_) => {
                let most = seen.good + 3 * (seen.many_good + seen.many_errors);
                assert!(
                    (seen.good + seen.many_good..=most).contains(&responses),
                    "{told}"
                );
            }
        }
        let most = seen.errors + 3 * seen.many_errors;
        assert!(
            (seen.errors + seen.many_errors..=most).contains(&errors),
            "{told}"
        );
        // Each request is answered, or one of the errors, or wanted no answer.
        assert!(responses + seen.quiet.min(1) <= requests, "{told}");
        assert!(requests <= responses + errors + seen.quiet, "{told}");

        let failures = |server| {
            ["server_timedout", "server_eof", "server_err"]
                .map(|counter| self.server_stat(pool, server, counter))
        };
        // A probe may come while the server is still starting, and wait for longer than its period.
        let [late, eof, err] = failures(KILLED);
        let may_be_late = pool.policy.is_some();
        assert!(eof + err > 0, "{told} {eof} {err}");
        assert!(late == 0 || may_be_late, "{told} {late}");
        let [late, eof, err] = failures(STOPPED);
        assert!(
            late > 0 && eof == 0 && err == 0,
            "{told} {late} {eof} {err}"
        );
        assert_eq!(failures(WELL), [0; 3], "{told}");
        for server in 0..SERVERS.len() {
            let gauges = ["in_queue", "in_queue_bytes", "out_queue", "out_queue_bytes"];
            let gauges = gauges.map(|gauge| self.server_stat(pool, server, gauge));
            assert_eq!(gauges, [0; 4], "{told}");
        }
        wait_for("all clients are gone", || {
            (self.proxy.stat(name, &["client_connections"]) == 0).then_some(())
        });
        assert_eq!(self.proxy.stat(name, &["client_err"]), 0, "{told}");
        let ejects = self.proxy.stat(name, &["server_ejects"]);
        assert!(
            if pool.policy.is_some() {
                ejects >= 2
            } else {
                ejects == 0
            },
            "{told} {ejects}"
        );
    }

    /// Requests and responses of all servers, and errors, of a pool.
    fn totals(&self, pool: &Pool) -> [i64; 3] {
        let sum = |name| {
            (0..SERVERS.len())
                .map(|server| self.server_stat(pool, server, name))
                .sum()
        };
        [
            sum("requests"),
            sum("responses"),
            self.proxy.stat(&pool.name, &["forward_error"]),
        ]
    }
}

fn servers_of(servers: &[Vec<Server>], kind: ServerKind) -> &[Server] {
    &servers[usize::from(kind == ServerKind::Memcached)]
}

/// Whether what is written through the proxy to a key of `server` is there.
fn arrives(
    client: &mut Wire,
    pool: &Pool,
    server: usize,
    direct: &Server,
    tally: &mut Tally,
) -> Option<()> {
    let key = &keys_on(server, &format!("{}-probe", pool.name), 1)[0];
    let mut direct = direct.connect();
    let (written, found) = if pool.kind == ServerKind::Redis {
        client.send(&array_of(&["SET", key, "there"]));
        let written = client.read_redis();
        direct.send(&array_of(&["GET", key]));
        (written, direct.read_redis())
    } else {
        client.send(format!("set {key} 0 0 5\r\nthere\r\n").as_bytes());
        let written = client.read_memcache();
        direct.send(format!("get {key}\r\n").as_bytes());
        (written, direct.read_memcache())
    };
    let is_good = written == b"+OK\r\n" || written == b"STORED\r\n";
    tally.good += i64::from(is_good);
    tally.errors += i64::from(!is_good);
    (is_good && found.windows(5).any(|part| part == b"there")).then_some(())
}

// C107 C108 C109 C123 C139 C140 D10 D12 D14 D32
#[test]
fn under_load_harmed_servers_cost_the_promised_errors_and_nothing_else() {
    let Some(mut field) = Field::start() else {
        return;
    };
    let pools = field.pools.clone();
    let per_pool = MIXED + BYSTANDERS;
    let sockets: Vec<PathBuf> = pools
        .iter()
        .map(|pool| field.proxy.socket(&pool.name).to_path_buf())
        .collect();
    let signs = Signs {
        done: (0..pools.len() * per_pool)
            .map(|_| AtomicUsize::new(0))
            .collect(),
        ..Signs::default()
    };
    let work = |number: usize| {
        let (pool, socket) = (&pools[number / per_pool], &sockets[number / per_pool]);
        let mut client = Client::new(pool, number % per_pool, socket);
        while !signs.over.load(Ordering::Relaxed) {
            client.run_round(signs.calm.load(Ordering::Relaxed));
            signs.done[number].fetch_add(1, Ordering::Relaxed);
        }
        client.wire.half_close();
        client.wire.expect_close();
        client.tally
    };
    let mut seen = vec![Tally::default(); pools.len()];
    thread::scope(|scope| {
        let work = &work;
        let clients: Vec<_> = (0..signs.done.len())
            .map(|number| scope.spawn(move || work(number)))
            .collect();
        let asked = catch_unwind(AssertUnwindSafe(|| field.harm(&signs)));
        signs.over.store(true, Ordering::Relaxed);
        for (number, client) in clients.into_iter().enumerate() {
            match client.join() {
                Ok(tally) => seen[number / per_pool] += tally,
                Err(panic) => resume_unwind(panic),
            }
        }
        match asked {
            Ok(asked) => seen
                .iter_mut()
                .zip(asked)
                .for_each(|(seen, asked)| *seen += asked),
            Err(panic) => resume_unwind(panic),
        }
    });
    for (pool, seen) in pools.iter().zip(seen) {
        field.check(pool, seen);
    }
}
