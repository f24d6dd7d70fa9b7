//! What one seed decides before its world starts: the configuration, the network, the faults.

use twemproxy_core::config::{Config, CrossServerKeys, EjectPolicy, PoolConfig, ServerConfig};
use twemproxy_core::proto::Protocol;
use twemproxy_core::time::Span;
use twemproxy_core::topology::{Distribution, HashKind};

use super::dice::Dice;

/// A connection that holds fewer bytes makes everything slow: requests must be few and small.
const TINY: usize = 100;

/// How bytes travel. Chances are per mille.
#[derive(Clone, Debug)]
pub(super) struct Net {
    /// Longest way of a byte, in microseconds.
    pub(super) delay: u64,
    /// Chance that a read or write is cut short.
    pub(super) cut: usize,
    /// Bytes a connection holds in each direction.
    pub(super) capacity: usize,
    /// Chance that the shell handles one more event before it performs actions.
    pub(super) batch: usize,
    /// Chance that the shell comes late.
    pub(super) lag: usize,
}

/// What goes wrong. Chances are per mille of the opportunities.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    /// A connection attempt fails.
    pub(super) refuse: usize,
    /// A connection attempt hangs.
    pub(super) hang: usize,
    /// A server connection is reset at a request.
    pub(super) reset: usize,
    /// A server closes in order at a request.
    pub(super) eof: usize,
    /// A server connection stands still for a while, in one direction.
    pub(super) stall: usize,
    /// A response comes late, possibly after the time-out.
    pub(super) slow: usize,
    /// A server says what is no response.
    pub(super) garbage: usize,
    /// A server answers before it has the whole request.
    pub(super) early: usize,
    /// A server answers once too often.
    pub(super) extra: usize,
    /// A server goes silent on a connection.
    pub(super) mute: usize,
    /// A server answers that it is in trouble.
    pub(super) sick: usize,
    /// A server breaks off in the middle of a response.
    pub(super) half: usize,
    /// A server refuses AUTH or SELECT.
    pub(super) refuse_auth: usize,
    /// A server has too many connections and says so.
    pub(super) full: usize,
    /// A server dies at a request and takes no connection for a while.
    pub(super) outage: usize,
}

/// How clients behave. Chances are per mille of the requests.
#[derive(Clone, Debug)]
pub(super) struct Manners {
    pub(super) clients: usize,
    /// Requests all clients send together.
    pub(super) requests: u32,
    /// Most requests a client has in flight.
    pub(super) depth: usize,
    /// Longest pause between requests, in microseconds.
    pub(super) think: u64,
    /// Most bytes a value is padded with.
    pub(super) value: usize,
    /// Most keys of a request.
    pub(super) keys: usize,
    /// Chance to be gone without a word.
    pub(super) vanish: usize,
    /// Chance to half-close.
    pub(super) half_close: usize,
    /// Chance to quit in order.
    pub(super) quit: usize,
    /// Chance to send what is no request.
    pub(super) rubbish: usize,
    /// Longest pause between reads of a slow reader, in microseconds.
    pub(super) read_pause: u64,
    /// Most bytes of one read.
    pub(super) read_len: usize,
    /// Chance that a memcached write asks for no reply.
    pub(super) noreply: usize,
    /// Chance that a memcached client never asks for any reply.
    pub(super) silent: usize,
    /// Chance that a memcached client asks for a value with its version, or writes by version.
    pub(super) versions: usize,
    /// Chance to flush every server, with a delay that never passes.
    pub(super) flush: usize,
    /// Chance to really flush every server.
    pub(super) wipe: usize,
    /// Chance to give a wrong password, or one that nobody asked for.
    pub(super) wrong_auth: usize,
    /// Chance that a client asks before it gives its password.
    pub(super) stranger: usize,
    /// Most requests ask for a large value, more than a client is given at once.
    pub(super) gorge: bool,
}

/// Everything drawn before the first event.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) config: Config,
    pub(super) net: Net,
    pub(super) faults: Faults,
    pub(super) manners: Manners,
    /// Workers, each with an engine of its own. One engine owns its servers' health itself.
    pub(super) engines: usize,
    /// The servers want no password, whatever the proxy believes.
    pub(super) open_servers: bool,
    /// No fault ever happens: no error is acceptable.
    pub(super) calm: bool,
    /// Some limit is so low that a client may be closed for it.
    pub(super) tight: bool,
    /// The end is a drain instead of clients that close.
    pub(super) drain: bool,
}

impl Plan {
    pub(super) fn draw(dice: &mut Dice) -> Self {
        let calm = dice.chance(300);
        let big = dice.chance(40);
        let net = draw_net(dice, big);
        let mut manners = draw_manners(dice, big, net.capacity);
        let tight = net.capacity >= TINY && dice.chance(120);
        let pool_count = 1 + dice.upto(2) / 2 + usize::from(dice.chance(200));
        let pools: Vec<_> = (0..pool_count)
            .map(|index| draw_pool(dice, index, calm, net.delay))
            .collect();
        let mut config = Config {
            pools,
            ..Config::default()
        };
        if tight {
            tighten(dice, &mut config, &mut manners);
        }
        let all_expire = config.pools.iter().all(|pool| pool.timeout.is_some());
        let faults = if calm {
            Faults::default()
        } else {
            draw_faults(dice, all_expire)
        };
        Self {
            config,
            net,
            faults,
            manners,
            engines: if dice.chance(250) {
                2 + dice.upto(1)
            } else {
                1
            },
            open_servers: dice.chance(200),
            calm,
            tight,
            drain: dice.chance(300),
        }
    }
}

fn draw_net(dice: &mut Dice, big: bool) -> Net {
    Net {
        delay: dice.pick(&[0, 50, 1_000, 5_000]),
        cut: if big { 20 } else { dice.knob(400) },
        capacity: if big {
            1 << 18
        } else {
            dice.pick(&[20, 700, 700, 5_000, 5_000, 70_000, 70_000, 1 << 20])
        },
        batch: dice.knob(900),
        lag: dice.knob(100),
    }
}

fn draw_manners(dice: &mut Dice, big: bool, capacity: usize) -> Manners {
    let tiny = capacity < TINY;
    // Thousands of requests through a narrow pipe take longer than any time-out.
    let flood = !big && dice.chance(10) && !tiny;
    let gorge = !big && !flood && dice.chance(100);
    Manners {
        clients: 1 + dice.upto(11),
        requests: if big {
            150
        } else if flood {
            9_000
        } else if gorge || tiny {
            300
        } else {
            dice.pick(&[40, 150, 400, 1_000])
        },
        depth: if flood {
            6_000
        } else if gorge {
            100
        } else {
            dice.pick(&[1, 4, 20, 100])
        },
        think: if flood {
            0
        } else {
            dice.pick(&[0, 100, 5_000, 100_000])
        },
        value: if big {
            400_000
        } else if tiny {
            30
        } else {
            dice.pick(&[0, 10, 200, 3_000, 12_000])
        },
        // A hundred requests of twelve keys in a narrow pipe, too.
        keys: dice.pick(&[1, 4, 12]).min(if tiny { 4 } else { 12 }),
        vanish: dice.knob(20),
        // Who is not read because it has too much to come may still say that it says no more.
        half_close: dice.knob(20).max(if gorge { 60 } else { 0 }),
        quit: dice.knob(20),
        rubbish: dice.knob(30),
        read_pause: dice
            .pick(&[0, 0, 200, 20_000])
            .max(if gorge { 2_000 } else { 0 }),
        read_len: dice.pick(&[3_000, 100_000, 1 << 20]),
        noreply: dice.pick(&[0, 150, 150, 900]),
        silent: dice.knob(300),
        versions: dice.knob(300),
        flush: dice.knob(50),
        wipe: if dice.chance(100) { 10 } else { 0 },
        wrong_auth: dice.knob(40),
        stranger: dice.knob(600),
        gorge: gorge && !tiny,
    }
}

fn draw_pool(dice: &mut Dice, index: usize, calm: bool, delay: u64) -> PoolConfig {
    let protocol = dice.pick(&[Protocol::Redis, Protocol::Redis, Protocol::Memcache]);
    let mut pool = PoolConfig::new(&format!("pool{index}"), protocol);
    pool.hash = dice.pick(HashKind::ALL).1;
    pool.distribution = dice.pick(&[
        Distribution::Ketama,
        Distribution::Ketama,
        Distribution::Modula,
        Distribution::Random,
    ]);
    pool.hash_tag = dice.chance(200).then_some(*b"{}");
    pool.timeout = if calm {
        // Longer than anything can take, yet short enough that a stale deadline comes to bite.
        dice.pick(&[None, Some(Span(1_000_000 + 200 * delay))])
    } else {
        dice.pick(&[
            None,
            Some(Span::from_millis(20)),
            Some(Span::from_millis(100)),
            Some(Span::from_millis(400)),
        ])
    };
    if protocol == Protocol::Redis {
        pool.redis_auth = dice.chance(150).then(|| b"pw".as_slice().into());
        pool.redis_db = if dice.chance(150) { 3 } else { 0 };
    }
    pool.allow_flush = dice.chance(500);
    if dice.chance(150) {
        let limit = dice.pick(&[20, 200, 2_000]);
        pool.client_idle_timeout = Some(Span::from_millis(limit));
    }
    pool.preconnect = dice.chance(200);
    pool.auto_eject_hosts = dice.chance(500);
    pool.auto_eject_policy = dice.pick(&[
        EjectPolicy::Rehash,
        EjectPolicy::Rehash,
        EjectPolicy::Fail,
        EjectPolicy::Miss,
    ]);
    pool.server_connections = dice.pick(&[1, 1, 2, 4]);
    pool.server_retry_timeout = Span::from_millis(dice.pick(&[10, 200, 1_000]));
    pool.server_failure_limit = dice.pick(&[1, 2, 5]);
    pool.cross_server_keys = CrossServerKeys::Error;
    pool.servers = (0..=dice.upto(4))
        .map(|server| ServerConfig {
            name: format!("s{server}").into(),
            weight: dice.pick(&[1, 1, 2]),
        })
        .collect();
    pool
}

fn draw_faults(dice: &mut Dice, all_expire: bool) -> Faults {
    let mut knob = |max: usize| dice.knob(max);
    Faults {
        refuse: knob(400),
        hang: knob(200),
        reset: knob(20),
        eof: knob(20),
        stall: knob(20),
        slow: knob(60),
        garbage: knob(10),
        early: knob(100),
        extra: knob(10),
        // Only a time-out can help against silence.
        mute: if all_expire { knob(10) } else { 0 },
        sick: knob(20),
        half: knob(15),
        refuse_auth: knob(200),
        full: knob(150),
        outage: knob(5),
    }
}

/// Lowers some limits, so that they are met.
fn tighten(dice: &mut Dice, config: &mut Config, manners: &mut Manners) {
    manners.read_pause = 20_000;
    match dice.upto(2) {
        0 => {
            for pool in &mut config.pools {
                pool.client_output_limit = 300_000;
            }
            manners.value = 12_000;
            manners.depth = 100;
        }
        1 => {
            config.memory_limit = dice.pick(&[40_000, 150_000, 400_000]);
            manners.value = 3_000;
            manners.depth = dice.pick(&[4, 20, 100]);
            manners.gorge |= dice.chance(500);
        }
        _ => {
            for pool in &mut config.pools {
                // What memcached clients are told depends on where in a request the limit is met.
                if pool.protocol == Protocol::Redis {
                    pool.request_size_limit = 2_000;
                }
                pool.client_connections = 3;
            }
            manners.value = 3_000;
        }
    }
}
