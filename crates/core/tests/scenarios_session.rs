//! Stories of clients that ask for something special: a transaction, a database, no responses. What they
//! ask for and do not get must never be executed as something else.

#![allow(dead_code, reason = "the support module serves several test files")]

mod support;

use support::{bulk, cmd, key_of, redis, with_timeout};
use twemproxy_core::config::{CrossServerKeys, PoolConfig};
use twemproxy_core::engine::Closed;
use twemproxy_core::ids::ClientId;
use twemproxy_testkit::hand::{Hand, OnConnect};

const NO_TRANSACTIONS: &str = "-ERR transactions are not supported by this proxy\r\n";
const ABORTED: &str = "-EXECABORT Transaction discarded because of previous errors.\r\n";
const ASTRAY: &str = "-ERR this proxy does not serve the database that was selected\r\n";

/// Sends requests typed one a line; returns what the client gets.
fn ask(hand: &mut Hand, client: ClientId, lines: &[&str]) -> String {
    let requests: String = lines.iter().map(|line| cmd(line)).collect();
    hand.send(client, requests.as_bytes());
    hand.got(client)
}

/// Sends as [`ask`], each request in a read of its own, so that the client rests in between.
fn ask_slowly(hand: &mut Hand, client: ClientId, lines: &[&str]) -> String {
    lines
        .iter()
        .map(|line| ask(hand, client, &[line]))
        .collect()
}

// D45
#[test]
fn nothing_of_a_transaction_is_executed() {
    let story = [
        "MULTI",
        "INCRBY a 1",
        "MGET a b",
        "PING",
        "SELECT 0",
        "EVAL x 0",
        "SET a 1",
        "GET a",
        "EXEC",
    ];
    let expected = format!("+OK\r\n{}{ABORTED}", NO_TRANSACTIONS.repeat(7));
    for ask in [ask, ask_slowly] {
        let mut hand = Hand::new(redis(3));
        let client = hand.client();
        assert_eq!(ask(&mut hand, client, &story), expected);
        for server in 0..3 {
            assert!(hand.conns_of(server).is_empty(), "no server hears of it");
        }
        // It is over.
        assert_eq!(
            ask(&mut hand, client, &["PING", "EXEC"]),
            "+PONG\r\n-ERR EXEC without MULTI\r\n"
        );
        hand.send(client, cmd("GET a").as_bytes());
        assert_eq!(
            (0..3)
                .map(|server| hand.conns_of(server).len())
                .sum::<usize>(),
            1
        );
    }
}

// D45
#[test]
fn a_transaction_cut_anywhere_is_answered_the_same() {
    let story: String = ["SET k 1", "MULTI", "SET k 2", "GET k", "EXEC", "GET k"]
        .map(cmd)
        .concat();
    let expected = format!(
        "+OK\r\n+OK\r\n{NO_TRANSACTIONS}{NO_TRANSACTIONS}{ABORTED}{}",
        bulk("1")
    );
    for cut in 0..story.len() {
        let mut hand = Hand::new(redis(1));
        let client = hand.client();
        hand.send(client, &story.as_bytes()[..cut]);
        hand.send(client, &story.as_bytes()[cut..]);
        let conn = hand.conn(0);
        assert_eq!(hand.got(conn), cmd("SET k 1") + &cmd("GET k"), "{cut}");
        hand.say(conn, ("+OK\r\n".to_owned() + &bulk("1")).as_bytes());
        assert_eq!(hand.got(client), expected, "{cut}");
    }
}

// D45
#[test]
fn a_transaction_ends_as_redis_ends_it() {
    for (lines, expected) in [
        (&["MULTI", "EXEC"][..], "+OK\r\n*0\r\n".to_owned()),
        (&["MULTI", "GET a", "DISCARD", "DISCARD"], format!("+OK\r\n{NO_TRANSACTIONS}+OK\r\n-ERR DISCARD without MULTI\r\n")),
        (&["MULTI", "MULTI", "EXEC"], "+OK\r\n-ERR MULTI calls can not be nested\r\n*0\r\n".to_owned()),
        (&["MULTI", "GET a", "RESET", "EXEC"], format!("+OK\r\n{NO_TRANSACTIONS}+RESET\r\n-ERR EXEC without MULTI\r\n")),
        (
            &["MULTI", "EXEC x", "EXEC"],
            "+OK\r\n-EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' \
             command\r\n-ERR EXEC without MULTI\r\n"
                .to_owned(),
        ),
        (
            &["MULTI", "DISCARD x", "EXEC"],
            format!("+OK\r\n-ERR wrong number of arguments for 'discard' command\r\n{ABORTED}"),
        ),
        (
            &["MULTI x", "EXEC"],
            "-ERR wrong number of arguments for 'multi' command\r\n-ERR EXEC without MULTI\r\n".to_owned(),
        ),
        (
            &["MULTI", "FOO", "EXEC"],
            format!("+OK\r\n-ERR unknown command 'FOO', with args beginning with: \r\n{ABORTED}"),
        ),
        (
            &["MULTI", "PUBLISH a b", "WATCH a", "XREAD BLOCK 0 STREAMS a 0", "CLIENT LIST", "EXEC"],
            format!("+OK\r\n{}{ABORTED}", NO_TRANSACTIONS.repeat(4)),
        ),
    ] {
        for ask in [ask, ask_slowly] {
            let mut hand = Hand::new(redis(1));
            let client = hand.client();
            assert_eq!(ask(&mut hand, client, lines), expected, "{lines:?}");
            assert!(hand.conns_of(0).is_empty(), "{lines:?}");
        }
    }
    let mut hand = Hand::new(redis(1));
    let client = hand.client();
    assert_eq!(
        ask(&mut hand, client, &["MULTI", "QUIT", "GET a"]),
        "+OK\r\n+OK\r\n"
    );
    assert!(hand.is_closed(client));
    // The next client that gets its record is in no transaction.
    let next = hand.client();
    assert_eq!(
        ask(&mut hand, next, &["EXEC"]),
        "-ERR EXEC without MULTI\r\n"
    );
}

// D45
#[test]
fn an_inline_transaction_and_one_with_a_refused_request_are_lost_too() {
    let mut config = redis(1);
    config.request_size_limit = 1000;
    let mut hand = Hand::new(config);
    let client = hand.client();
    let large = format!(
        "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$2000\r\n{}\r\n",
        "x".repeat(2000)
    );
    hand.send(
        client,
        format!("MULTI\r\nSET a 1\r\nEXEC\r\nMULTI\r\n{large}EXEC\r\n").as_bytes(),
    );
    assert_eq!(
        hand.got(client),
        format!(
            "+OK\r\n{NO_TRANSACTIONS}{ABORTED}+OK\r\n-ERR request is larger than request_size_limit\r\n{ABORTED}"
        )
    );
    assert!(hand.conns_of(0).is_empty());
}

fn with_db(db: u32) -> PoolConfig {
    let mut config = redis(1);
    config.redis_db = db;
    config
}

// D46
#[test]
fn commands_behind_a_refused_select_fail_until_one_succeeds() {
    const OUT_OF_RANGE: &str = "-ERR DB index is out of range\r\n";
    for ask in [ask, ask_slowly] {
        let mut hand = Hand::new(redis(2));
        let client = hand.client();
        let lines = [
            "SELECT 1",
            "GET a",
            "MSET a 1 b 2",
            "EVAL x 0",
            "RENAME a b",
            "PING",
            "SELECT 16",
            "GET a",
        ];
        let expected = format!(
            "{OUT_OF_RANGE}{}+PONG\r\n{OUT_OF_RANGE}{ASTRAY}",
            ASTRAY.repeat(4)
        );
        assert_eq!(ask(&mut hand, client, &lines), expected);
        assert!((0..2).all(|server| hand.conns_of(server).is_empty()));
        assert_eq!(ask(&mut hand, client, &["SELECT 0", "GET a"]), "+OK\r\n");
        assert_eq!(
            (0..2)
                .map(|server| hand.conns_of(server).len())
                .sum::<usize>(),
            1
        );
    }
    // A redis refuses these too, and stays where it was.
    for refused in [
        "SELECT 16",
        "SELECT -1",
        "SELECT x",
        "SELECT 99999999999",
        "SELECT",
        "SELECT 1 2",
    ] {
        let mut hand = Hand::new(redis(1));
        let client = hand.client();
        assert!(ask(&mut hand, client, &[refused, "GET a"]).starts_with("-ERR"));
        assert_eq!(hand.got(hand.conn(0)), cmd("GET a"), "{refused}");
    }
    for (lines, served) in [
        (&["SELECT 5", "SELECT 3"][..], true),
        (&["SELECT 5", "SELECT 0"], true),
        (&["SELECT 3"], true),
        (&["SELECT 5", "RESET"], true),
        (&["SELECT 5", "TIME"], true),
        (&["SELECT 5", "SELECT 16"], false),
        (&["SELECT 3", "SELECT 15"], false),
    ] {
        let mut hand = Hand::new(with_db(3));
        let client = hand.client();
        ask(&mut hand, client, lines);
        ask(&mut hand, client, &["GET a"]);
        assert_eq!(!hand.conns_of(0).is_empty(), served, "{lines:?}");
    }
}

// D51
#[test]
fn scripts_behind_a_refused_debugger_are_not_executed() {
    const REFUSED: &str =
        "-ERR 'script' is not supported by this proxy: it administers a single server\r\n";
    const NO_DEBUGGER: &str = "-ERR debugging of scripts is not supported by this proxy\r\n";
    for (lines, served) in [
        (&["SCRIPT DEBUG YES"][..], false),
        (&["script debug sync"], false),
        (&["SCRIPT DEBUG YES", "SCRIPT DEBUG x"], false),
        (&["SCRIPT DEBUG YES", "SCRIPT DEBUG NO"], true),
        (&["SCRIPT DEBUG YES", "RESET"], true),
        (&["SCRIPT DEBUG"], true),
        (&["SCRIPT FLUSH SYNC"], true),
        (&["MULTI", "SCRIPT DEBUG YES", "DISCARD"], true),
    ] {
        for ask in [ask, ask_slowly] {
            let mut hand = Hand::new(redis(1));
            let client = hand.client();
            ask(&mut hand, client, lines);
            let got = ask(
                &mut hand,
                client,
                &["EVAL x 1 a", "EVALSHA x 1 a", "EVAL x 0"],
            );
            let expected = if served { "" } else { &NO_DEBUGGER.repeat(3) };
            assert_eq!(got, expected, "{lines:?}");
            assert_eq!(!hand.conns_of(0).is_empty(), served, "{lines:?}");
            // All else is served as ever.
            ask(&mut hand, client, &["GET a"]);
            assert!(hand.got(hand.conn(0)).ends_with(&cmd("GET a")));
        }
    }
    let mut hand = Hand::new(redis(1));
    let client = hand.client();
    assert_eq!(ask(&mut hand, client, &["SCRIPT DEBUG YES"]), REFUSED);
}

// D47
#[test]
fn client_reply_is_served_as_redis_does() {
    for (lines, expected) in [
        (
            &["CLIENT REPLY OFF", "PING", "FOO", "CLIENT REPLY ON", "PING"][..],
            "+OK\r\n+PONG\r\n",
        ),
        (&["CLIENT REPLY SKIP", "PING a", "PING b"], "$1\r\nb\r\n"),
        (&["CLIENT REPLY SKIP", "FOO", "PING b"], "$1\r\nb\r\n"),
        (
            &["CLIENT REPLY SKIP", "CLIENT REPLY SKIP", "PING a", "PING b"],
            "$1\r\nb\r\n",
        ),
        (
            &["CLIENT REPLY SKIP", "CLIENT REPLY ON", "PING a"],
            "+OK\r\n$1\r\na\r\n",
        ),
        (
            &[
                "CLIENT REPLY OFF",
                "CLIENT REPLY SKIP",
                "CLIENT REPLY ON",
                "PING",
            ],
            "+OK\r\n+PONG\r\n",
        ),
        (
            &[
                "CLIENT REPLY SKIP",
                "CLIENT REPLY OFF",
                "PING",
                "CLIENT REPLY ON",
            ],
            "+OK\r\n",
        ),
        (
            &["CLIENT REPLY OFF", "RESET", "PING a"],
            "+RESET\r\n$1\r\na\r\n",
        ),
        (&["CLIENT REPLY SKIP", "RESET", "PING a"], "$1\r\na\r\n"),
        (
            &["CLIENT REPLY", "CLIENT REPLY x"],
            "-ERR wrong number of arguments for 'client|reply' command\r\n-ERR syntax error\r\n",
        ),
        (
            &[
                "CLIENT REPLY OFF",
                "MULTI",
                "GET a",
                "EXEC",
                "SELECT 1",
                "GET a",
                "CLIENT REPLY ON",
            ],
            "+OK\r\n",
        ),
    ] {
        for ask in [ask, ask_slowly] {
            let mut hand = Hand::new(redis(1));
            let client = hand.client();
            assert_eq!(ask(&mut hand, client, lines), expected, "{lines:?}");
            assert!(hand.conns_of(0).is_empty(), "{lines:?}");
        }
    }
    // An empty request uses the skip up.
    for empty in ["\r\n", "*0\r\n", "*-1\r\n"] {
        let mut hand = Hand::new(redis(1));
        let client = hand.client();
        hand.send(
            client,
            (cmd("CLIENT REPLY SKIP") + empty + &cmd("PING")).as_bytes(),
        );
        assert_eq!(hand.got(client), "+PONG\r\n");
    }
}

// D47
#[test]
fn responses_that_are_not_wanted_are_dropped_and_all_others_keep_their_turn() {
    let (mut s0, mut s1) = (0, 0);
    let config = redis(2);
    let (a, b) = (key_of(&config, 0, 0), key_of(&config, 1, 0));
    let mut hand = Hand::new(config);
    let client = hand.client();
    let lines = [
        format!("GET {a}"),
        "CLIENT REPLY OFF".to_owned(),
        format!("SET {a} 1"),
        format!("SET {b} 1"),
        format!("MGET {a} {b}"),
        format!("MGET {a} {a}"),
        "CLIENT REPLY ON".to_owned(),
        format!("GET {b}"),
        "CLIENT REPLY SKIP".to_owned(),
        format!("GET {a}"),
        format!("GET {a}"),
    ];
    let requests: String = lines.iter().map(|line| cmd(line)).collect();
    hand.send(client, requests.as_bytes());
    let answers = [
        (0, bulk("first")),
        (0, "+OK\r\n".to_owned()),
        (0, "*1\r\n".to_owned() + &bulk("secret")),
        (0, "*2\r\n".to_owned() + &bulk("secret") + &bulk("secret")),
        (1, "+OK\r\n".to_owned()),
        (1, "*1\r\n".to_owned() + &bulk("secret")),
    ];
    for (server, answer) in answers {
        hand.say(hand.conn(server), answer.as_bytes());
        *(if server == 0 { &mut s0 } else { &mut s1 }) += 1;
    }
    assert_eq!((s0, s1), (4, 2));
    // `+OK` of ON comes when all before it are done, and no sooner.
    assert_eq!(hand.got(client), bulk("first") + "+OK\r\n");
    hand.say(hand.conn(0), (bulk("secret") + &bulk("last")).as_bytes());
    assert_eq!(hand.got(client), "");
    hand.say(hand.conn(1), bulk("b").as_bytes());
    assert_eq!(hand.got(client), bulk("b") + &bulk("last"));
    assert_eq!(hand.engine.held(), 0);
}

// D47
#[test]
fn unwanted_responses_are_dropped_however_they_come() {
    let whole = bulk("first") + "+OK\r\n" + &bulk(&"x".repeat(300)) + "-ERR no\r\n" + &bulk("last");
    for cut in 0..whole.len() {
        let mut hand = Hand::new(redis(1));
        let client = hand.client();
        let lines = [
            "GET a",
            "CLIENT REPLY OFF",
            "SET a 1",
            "GET b",
            "INCR c",
            "CLIENT REPLY ON",
            "GET d",
        ];
        ask(&mut hand, client, &lines);
        let conn = hand.conn(0);
        hand.say(conn, &whole.as_bytes()[..cut]);
        hand.say(conn, &whole.as_bytes()[cut..]);
        assert_eq!(
            hand.got(client),
            bulk("first") + "+OK\r\n" + &bulk("last"),
            "{cut}"
        );
        assert_eq!(hand.engine.held(), 0);
    }
}

// D47
#[test]
fn what_fails_without_a_response_wanted_fails_in_silence() {
    let mut config = with_timeout(redis(2), 100);
    config.server_retry_timeout = twemproxy_core::time::Span::from_millis(1_000_000);
    let (a, b) = (key_of(&config, 0, 0), key_of(&config, 1, 0));
    let mut hand = Hand::new(config);
    hand.on_connect.insert(
        twemproxy_core::ids::ServerId::initial(1),
        OnConnect::Fail(Closed::Refused),
    );
    let client = hand.client();
    let lines = [
        "CLIENT REPLY OFF".to_owned(),
        format!("GET {b}"),
        format!("MGET {a} {b}"),
        format!("GET {a}"),
        "SMOVE a k0 k1 x".to_owned(),
        "CLIENT REPLY ON".to_owned(),
    ];
    let requests: String = lines.iter().map(|line| cmd(line)).collect();
    hand.send(client, requests.as_bytes());
    assert_eq!(hand.got(client), "");
    hand.wait_ms(150);
    assert_eq!(hand.got(client), "+OK\r\n");
    hand.breaks(hand.conn(0), Closed::Reset);
    assert_eq!(hand.got(client), "");
    assert_eq!(hand.engine.held(), 0);
}

// D47
#[test]
fn a_client_that_wants_nothing_and_quits_is_closed_when_all_is_done() {
    for last in ["QUIT", "GET x"] {
        let mut hand = Hand::new(redis(1));
        let client = hand.client();
        ask(&mut hand, client, &["CLIENT REPLY OFF", "SET a 1", last]);
        if last != "QUIT" {
            hand.half_closes(client);
        }
        assert!(!hand.is_closed(client));
        let conn = hand.conn(0);
        hand.say(conn, b"+OK\r\n");
        if last != "QUIT" {
            assert!(!hand.is_closed(client));
            hand.say(conn, b"$-1\r\n");
        }
        assert!(hand.is_closed(client));
        assert_eq!(hand.got(client), "");
    }
    // With nothing under way.
    let mut hand = Hand::new(redis(1));
    let client = hand.client();
    ask(&mut hand, client, &["CLIENT REPLY OFF", "QUIT"]);
    assert!(hand.is_closed(client));
}

// D48
#[test]
fn a_refused_scan_ends_the_connection_after_its_error() {
    let refused =
        "-ERR 'scan' is not supported by this proxy: it covers all keys of a single server\r\n";
    let mut hand = Hand::new(redis(1));
    let client = hand.client();
    ask(&mut hand, client, &["GET a", "SCAN 0", "GET b"]);
    assert!(!hand.is_closed(client));
    assert_eq!(hand.got(hand.conn(0)), cmd("GET a"));
    hand.say(hand.conn(0), bulk("a").as_bytes());
    assert_eq!(hand.got(client), bulk("a") + refused);
    assert!(hand.is_closed(client));
    // An error of ours for the others of the family, too.
    let mut config = redis(1);
    config.redis_auth = Some(b"secret".as_slice().into());
    let mut hand = Hand::new(config);
    let client = hand.client();
    assert_eq!(
        ask(&mut hand, client, &["HSCAN a 0"]),
        "-NOAUTH Authentication required.\r\n"
    );
    assert!(hand.is_closed(client));
    for line in ["SSCAN", "HSCAN a 0", "ZSCAN a 0"] {
        let mut hand = Hand::new(redis(1));
        hand.on_connect.insert(
            twemproxy_core::ids::ServerId::initial(0),
            OnConnect::Fail(Closed::Refused),
        );
        let client = hand.client();
        assert!(ask(&mut hand, client, &["PING", line]).starts_with("+PONG\r\n-ERR "));
        assert!(hand.is_closed(client), "{line}");
    }
    // Half of the response had come.
    for line in ["HSCAN a 0", "ZSCAN a 0"] {
        let mut hand = Hand::new(with_timeout(redis(1), 100));
        let client = hand.client();
        ask(&mut hand, client, &["GET a", line]);
        let conn = hand.conn(0);
        hand.say(conn, bulk("a").as_bytes());
        hand.limit_writes(client, 0);
        hand.say(conn, b"*2\r\n$1\r\n0\r\n*2\r\n");
        hand.breaks(conn, Closed::Reset);
        hand.unlimit_writes(client);
        let got = hand.got(client);
        assert!(got.starts_with(&bulk("a")), "{got}");
        assert!(hand.is_closed(client), "{line}");
    }
    // A server's own error is no error of ours.
    let mut hand = Hand::new(redis(1));
    let client = hand.client();
    ask(&mut hand, client, &["HSCAN a 0"]);
    hand.say(hand.conn(0), b"-WRONGTYPE x\r\n");
    assert_eq!(hand.got(client), "-WRONGTYPE x\r\n");
    assert!(!hand.is_closed(client));
}

/// Two servers, and tags.
fn tagged() -> PoolConfig {
    let mut config = redis(2);
    config.hash_tag = Some(*b"{}");
    config
}

/// A tag of `server`.
fn tag_of(config: &PoolConfig, server: u32) -> String {
    key_of(config, server, 0)
}

// D49
#[test]
fn patterns_of_sort_must_stay_on_the_server_of_its_key() {
    let config = tagged();
    let (here, there) = (tag_of(&config, 0), tag_of(&config, 1));
    let refused =
        "' is not supported by this proxy: its patterns may name keys of several servers\r\n";
    for command in ["SORT", "SORT_RO"] {
        for (options, served) in [
            (String::new(), Ok(())),
            ("LIMIT 0 1 ALPHA".to_owned(), Ok(())),
            ("BY nosort".to_owned(), Ok(())),
            ("GET #".to_owned(), Ok(())),
            ("BY nosort GET # GET fixed".to_owned(), Ok(())),
            (
                format!("BY {{{here}}}w_* GET {{{here}}}v_*->f GET #"),
                Ok(()),
            ),
            ("BY w_*".to_owned(), Err(refused)),
            ("GET v_*->f".to_owned(), Err(refused)),
            ("GET # get *".to_owned(), Err(refused)),
            (format!("BY w_*{{{here}}}"), Err(refused)),
            (format!("BY {{{here}*}}"), Err(refused)),
            (format!("BY w_*->{{{here}}}"), Err(refused)),
            (format!("BY {{{there}}}w_*"), Err("-CROSSSLOT ")),
        ] {
            let mut hand = Hand::new(tagged());
            let client = hand.client();
            let line = format!("{command} {{{here}}}list {options}");
            let got = ask(&mut hand, client, &[line.trim_end()]);
            match served {
                Ok(()) => {
                    assert_eq!(got, "", "{line}");
                    assert_eq!(hand.got(hand.conn(0)), cmd(line.trim_end()));
                }
                Err(words) => {
                    assert!(got.contains(words), "{line}: {got}");
                    assert!(hand.conns_of(0).is_empty(), "{line}");
                }
            }
            assert!(hand.conns_of(1).is_empty(), "{line}");
        }
    }
    // compat: as 0.5, and where there is one server.
    let mut first = tagged();
    first.cross_server_keys = CrossServerKeys::First;
    for config in [first, redis(1)] {
        for line in ["SORT k0 BY w_* GET v_*", "SORT_RO k0 BY w_*"] {
            let mut hand = Hand::new(config.clone());
            let client = hand.client();
            assert_eq!(ask(&mut hand, client, &[line]), "");
            let conns = (0..2)
                .flat_map(|server| hand.conns_of(server))
                .collect::<Vec<_>>();
            assert_eq!(hand.got(conns[0]), cmd(line));
        }
    }
}
