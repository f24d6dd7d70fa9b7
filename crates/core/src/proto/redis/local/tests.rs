//! Expectations were read off a redis-server 7.0.15, except where a comment says otherwise.

use alloc::vec::Vec;

use super::super::own::auth_accepted;
use super::super::request::RequestParser;
use super::super::words::write_array_header;
use super::*;
use crate::proto::{Parse, RequestLimits, Route};

const OPEN: LocalConfig<'_> = LocalConfig {
    password: None,
    db: 0,
};
const GUARDED: LocalConfig<'_> = LocalConfig {
    password: Some(b"secret"),
    db: 3,
};

fn request(words: &[&[u8]]) -> (Vec<u8>, Request) {
    let mut frame = Vec::new();
    write_array_header(words.len(), &mut frame);
    for word in words {
        write_bulk(word, &mut frame);
    }
    let limits = RequestLimits {
        frame_len_max: u32::MAX,
        unauthenticated: false,
        allow_flush: false,
    };
    match RequestParser::default().parse(&frame, &limits) {
        Parse::Complete(request) => (frame, request),
        other => panic!("{words:?}: {other:?}"),
    }
}

/// The answer to a request typed as words.
fn ask_words(words: &[&[u8]], session: &mut Session, config: &LocalConfig<'_>) -> Vec<u8> {
    let (frame, request) = request(words);
    let mut out = Vec::new();
    if admit(&request, session, config, &mut out) {
        assert_eq!(request.route, Route::Local, "{words:?}");
        let _ = respond(&frame, &request, session, config, &mut out);
    }
    out
}

fn ask(line: &str, session: &mut Session, config: &LocalConfig<'_>) -> Vec<u8> {
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    ask_words(&words, session, config)
}

fn assert_answers(config: &LocalConfig<'_>, expected: &[(&str, &str)]) {
    let mut session = Session::default();
    for (line, answer) in expected {
        let out = ask(line, &mut session, config);
        assert_eq!(
            core::str::from_utf8(&out).unwrap(),
            alloc::format!("{answer}\r\n"),
            "{line}"
        );
    }
}

#[test]
fn small_talk_is_answered_as_redis_does() {
    assert_answers(
        &OPEN,
        &[
            ("PING", "+PONG"),
            ("ping hello", "$5\r\nhello"),
            ("PING ", "$0\r\n"),
            (
                "PING a b",
                "-ERR wrong number of arguments for 'ping' command",
            ),
            ("ECHO a", "$1\r\na"),
            ("ECHO", "-ERR wrong number of arguments for 'echo' command"),
            (
                "echo a b",
                "-ERR wrong number of arguments for 'echo' command",
            ),
            ("QUIT", "+OK"),
            ("quit a", "+OK"),
            ("RESET", "+RESET"),
            (
                "RESET x",
                "-ERR wrong number of arguments for 'reset' command",
            ),
        ],
    );
}

#[test]
fn only_quit_closes() {
    let mut session = Session::default();
    let mut out = Vec::new();
    for (line, after) in [("QUIT", After::Close), ("PING", After::Continue)] {
        let (frame, request) = request(&[line.as_bytes()]);
        assert_eq!(
            respond(&frame, &request, &mut session, &OPEN, &mut out),
            after
        );
    }
}

#[test]
fn the_database_may_be_0_or_the_pools() {
    let config = LocalConfig {
        password: None,
        db: 3,
    };
    assert_answers(
        &config,
        &[
            ("SELECT 0", "+OK"),
            ("SELECT 3", "+OK"),
            ("SELECT 1", "-ERR DB index is out of range"),
            ("SELECT -1", "-ERR DB index is out of range"),
            ("SELECT x", "-ERR value is not an integer or out of range"),
            ("SELECT 00", "-ERR value is not an integer or out of range"),
            (
                "SELECT 2147483648",
                "-ERR value is out of range, value must between -2147483648 and 2147483647",
            ),
            (
                "SELECT",
                "-ERR wrong number of arguments for 'select' command",
            ),
        ],
    );
}

#[test]
fn a_pool_without_password_answers_auth() {
    assert_answers(
        &OPEN,
        &[
            // Twemproxy's words.
            ("AUTH x", "-ERR Client sent AUTH, but no password is set"),
            ("AUTH default x", "+OK"),
            (
                "AUTH a b",
                "-WRONGPASS invalid username-password pair or user is disabled.",
            ),
            ("AUTH a b c", "-ERR syntax error"),
            ("AUTH", "-ERR wrong number of arguments for 'auth' command"),
        ],
    );
}

#[test]
fn a_guarded_pool_wants_its_password_first() {
    const WRONG: &str = "-WRONGPASS invalid username-password pair or user is disabled.";
    const FIRST: &str = "-NOAUTH Authentication required.";
    assert_answers(
        &GUARDED,
        &[
            ("PING", FIRST),
            ("GET a", FIRST),
            ("MGET a b", FIRST),
            ("CLIENT ID", FIRST),
            ("AUTH wrong", WRONG),
            ("AUTH secret1", WRONG),
            ("AUTH secre", WRONG),
            ("AUTH ", WRONG),
            ("AUTH default wrong", WRONG),
            ("AUTH other secret", WRONG),
            ("AUTH Default secret", WRONG),
            ("AUTH", "-ERR wrong number of arguments for 'auth' command"),
            ("PING", FIRST),
            ("AUTH secret", "+OK"),
            ("PING", "+PONG"),
            ("AUTH wrong", WRONG),
            ("PING", "+PONG"),
            ("RESET", "+RESET"),
            ("PING", FIRST),
            ("AUTH default secret", "+OK"),
            ("PING", "+PONG"),
            ("RESET", "+RESET"),
            ("HELLO 2 AUTH default wrong", WRONG),
            ("QUIT", "+OK"),
        ],
    );
}

#[test]
fn hello_describes_a_redis_that_speaks_resp2() {
    let greeting = "*14\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.0.0\r\n\
        $5\r\nproto\r\n:2\r\n$2\r\nid\r\n:7\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n\
        $4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n";
    let mut session = Session {
        id: 7,
        ..Session::default()
    };
    for line in ["HELLO", "HELLO 2", "hello 2 auth default x setname me"] {
        assert_eq!(
            ask(line, &mut session, &OPEN),
            greeting.as_bytes(),
            "{line}"
        );
    }
    assert_eq!(ask("CLIENT GETNAME", &mut session, &OPEN), b"$2\r\nme\r\n");
    assert_eq!(
        ask("HELLO 2 AUTH default secret", &mut session, &GUARDED),
        greeting.as_bytes()
    );
    assert!(session.authenticated);
}

#[test]
fn hello_errors_are_those_of_redis() {
    assert_answers(
        &OPEN,
        &[
            // A redis 7 would speak RESP3.
            ("HELLO 3", "-NOPROTO unsupported protocol version"),
            ("HELLO 1", "-NOPROTO unsupported protocol version"),
            ("HELLO 4", "-NOPROTO unsupported protocol version"),
            (
                "HELLO 02",
                "-ERR Protocol version is not an integer or out of range",
            ),
            (
                "HELLO SETNAME n",
                "-ERR Protocol version is not an integer or out of range",
            ),
            ("HELLO 2 AUTH", "-ERR Syntax error in HELLO option 'AUTH'"),
            (
                "HELLO 2 auth default",
                "-ERR Syntax error in HELLO option 'auth'",
            ),
            (
                "HELLO 2 SETNAME",
                "-ERR Syntax error in HELLO option 'SETNAME'",
            ),
            ("HELLO 2 x y", "-ERR Syntax error in HELLO option 'x'"),
            ("HELLO 2 a\nb", "-ERR Syntax error in HELLO option 'a b'"),
        ],
    );
    let mut session = Session::default();
    assert_eq!(
        ask_words(&[b"HELLO", b"2", b"SETNAME", b"a b"], &mut session, &OPEN),
        BAD_NAME
    );
    let refused: &[u8] = b"-NOAUTH HELLO must be called with the client already authenticated, \
        otherwise the HELLO AUTH <user> <pass> option can be used to authenticate the client and \
        select the RESP protocol version at the same time\r\n";
    for line in ["HELLO", "HELLO 2", "HELLO 2 SETNAME n"] {
        assert_eq!(ask(line, &mut session, &GUARDED), refused);
    }
    assert_eq!(session.name, None);
}

#[test]
fn client_names_are_kept() {
    assert_answers(
        &OPEN,
        &[
            ("CLIENT GETNAME", "$-1"),
            ("CLIENT SETNAME a", "+OK"),
            ("client getname", "$1\r\na"),
            ("CLIENT SETNAME a\nb", BAD_NAME_TEXT),
            ("CLIENT GETNAME", "$1\r\na"),
            ("CLIENT SETNAME ", "+OK"),
            ("CLIENT GETNAME", "$-1"),
            (
                "CLIENT SETNAME",
                "-ERR wrong number of arguments for 'client|setname' command",
            ),
            (
                "CLIENT GETNAME a",
                "-ERR wrong number of arguments for 'client|getname' command",
            ),
            (
                "client id 1",
                "-ERR wrong number of arguments for 'client|id' command",
            ),
            ("CLIENT SETNAME a", "+OK"),
            ("RESET", "+RESET"),
            ("CLIENT GETNAME", "$-1"),
            ("CLIENT ID", ":0"),
            // Redis 7.2's words; 7.0 does not know it.
            ("CLIENT SETINFO lib-name x", "+OK"),
            ("CLIENT SETINFO LIB-VER 1", "+OK"),
            ("CLIENT SETINFO what x", "-ERR Unrecognized option 'what'"),
        ],
    );
}

const BAD_NAME_TEXT: &str =
    "-ERR Client names cannot contain spaces, newlines or special characters.";

#[test]
fn servers_are_greeted_in_resp() {
    let mut out = Vec::new();
    write_auth(b"pass\r\nword", &mut out);
    write_select(12, &mut out);
    assert_eq!(
        out,
        b"*2\r\n$4\r\nAUTH\r\n$10\r\npass\r\nword\r\n*2\r\n$6\r\nSELECT\r\n$2\r\n12\r\n"
    );
}

#[test]
fn a_server_without_password_accepts_ours() {
    for accepted in [
        &b"+OK\r\n"[..],
        b"-ERR Client sent AUTH, but no password is set\r\n",
        b"-ERR AUTH <password> called without any password configured for the default user. Are \
          you sure your configuration is correct?\r\n",
    ] {
        assert!(auth_accepted(accepted));
    }
    for refused in [
        &b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"[..],
        b"-ERR invalid password\r\n",
        b"-LOADING x\r\n",
        b"",
    ] {
        assert!(!auth_accepted(refused));
    }
}
