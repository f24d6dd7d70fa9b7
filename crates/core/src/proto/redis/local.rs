//! Requests that the proxy answers itself, and what it says to servers on its own account.
//!
//! The words are redis' own (7.0.15), compared byte for byte, except where a comment says `compat:`.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::mem;

use super::commands::{self, Local, Serve};
use super::invalid::push_text;
pub use super::session::{ClientName, LocalConfig, Session, admit};
use super::session::{Replies, Transaction};
use super::words::{Command, Words, read_head, write_array_header};
use super::{Invalid, write_bulk};
use crate::limits::CLIENT_NAME_LEN_MAX;
use crate::proto::{Request, scan};

/// What happens after the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum After {
    /// The next request.
    Continue,
    /// The answer leaves, then the client is closed (QUIT).
    Close,
}

/// The redis that HELLO claims to be: the one whose commands and words are known here.
const REDIS_VERSION: &[u8] = b"7.0.0";

/// Databases of a redis that nobody has configured otherwise.
const REDIS_DATABASES: i64 = 16;

const OK: &[u8] = b"+OK\r\n";
const SYNTAX_ERROR: &[u8] = b"-ERR syntax error\r\n";
const WRONG_PASSWORD: &[u8] = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n";
const LONG_NAME: &[u8] = b"-ERR Client names cannot be longer than 1024 bytes.\r\n";
const BAD_NAME: &[u8] =
    b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n";

/// Appends the answer to a request with [`crate::proto::Route::Local`].
pub fn respond(
    frame: &[u8],
    request: &Request,
    session: &mut Session,
    config: &LocalConfig<'_>,
    out: &mut Vec<u8>,
) -> After {
    let head = read_head(frame);
    let command = Command::new(frame, &head);
    let (local, arity) = local_of(&command, request.command);
    match (local, command.words) {
        (Local::Ping, 1) => out.extend_from_slice(b"+PONG\r\n"),
        (Local::Ping | Local::Echo, 2) => write_bulk(command.text(1), out),
        (Local::Quit, _) => {
            out.extend_from_slice(OK);
            return After::Close;
        }
        (Local::Select, 2) => select(command.text(1), session, config, out),
        (Local::Hello, _) => hello(&command, session, config, out),
        (Local::Auth, 2) => auth(command.text(1), session, config, out),
        (Local::Auth, 3) => {
            let accepted = authenticate(command.text(1), command.text(2), session, config);
            out.extend_from_slice(if accepted { OK } else { WRONG_PASSWORD });
        }
        (Local::Auth, 4..) => out.extend_from_slice(SYNTAX_ERROR),
        (Local::Reset, 1) => {
            session.reset();
            out.extend_from_slice(b"+RESET\r\n");
        }
        (Local::Multi, 1) => multi(session, out),
        (Local::Exec, _) => exec(command.words, session, out),
        (Local::Discard, 1) => discard(session, out),
        (Local::ClientReply, 3) => client_reply(command.text(2), session, out),
        (Local::ClientSetname, 3) => {
            let name = command.text(2);
            if !name_is_refused(name, out) {
                set_name(name, session);
                out.extend_from_slice(OK);
            }
        }
        (Local::ClientSetinfo, 4) => set_info(command.text(2), out),
        (Local::ClientGetname, 2) => match &session.name {
            Some(name) => write_bulk(&name.0, out),
            None => out.extend_from_slice(b"$-1\r\n"),
        },
        (Local::ClientId, 2) => write_integer(session.id, out),
        _ => {
            session.spoil();
            arity.write(frame, out);
        }
    }
    After::Continue
}

/// What to answer, and what to say when the number of words is wrong.
fn local_of(command: &Command<'_>, place: u16) -> (Local, Invalid) {
    let row = commands::row(place);
    match row.serve {
        Serve::Local(local) => (local, Invalid::Arity { command: place }),
        Serve::Container(subcommands) => {
            let index = commands::find_subcommand(row.name, subcommands, command.text(1))
                .expect("the parser found the second word");
            let Serve::Local(local) = subcommands[index].serve else {
                panic!("{} is not answered here", subcommands[index].name);
            };
            let arity = Invalid::SubcommandArity {
                command: place,
                subcommand: u8::try_from(index).expect("a test counts second words"),
            };
            (local, arity)
        }
        _ => panic!("{} is not answered here", row.name),
    }
}

/// All data lie in the pool's one database, so that is the one a client may choose; 0 is what it
/// calls it that does not know better. Commands behind a SELECT that redis would have accepted rely on
/// it, so they are not executed in another database.
fn select(db: &[u8], session: &mut Session, config: &LocalConfig<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(match scan::canonical_i64(db) {
        Some(n) if n == 0 || n == i64::from(config.db) => {
            session.is_astray = false;
            OK
        }
        None => b"-ERR value is not an integer or out of range\r\n",
        Some(n) if i32::try_from(n).is_err() => {
            b"-ERR value is out of range, value must between -2147483648 and 2147483647\r\n"
        }
        Some(n) => {
            if (0..REDIS_DATABASES).contains(&n) {
                session.is_astray = true;
            }
            b"-ERR DB index is out of range\r\n"
        }
    });
}

fn multi(session: &mut Session, out: &mut Vec<u8>) {
    out.extend_from_slice(if session.is_in_transaction() {
        b"-ERR MULTI calls can not be nested\r\n"
    } else {
        session.transaction = Transaction::Empty;
        OK
    });
}

fn exec(words: u32, session: &mut Session, out: &mut Vec<u8>) {
    let transaction = mem::take(&mut session.transaction);
    out.extend_from_slice(match transaction {
        _ if words > 1 => {
            b"-EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' \
              command\r\n"
        }
        Transaction::No => b"-ERR EXEC without MULTI\r\n",
        Transaction::Empty => b"*0\r\n",
        Transaction::Spoiled => b"-EXECABORT Transaction discarded because of previous errors.\r\n",
    });
}

fn discard(session: &mut Session, out: &mut Vec<u8>) {
    let transaction = mem::take(&mut session.transaction);
    out.extend_from_slice(if transaction == Transaction::No {
        b"-ERR DISCARD without MULTI\r\n"
    } else {
        OK
    });
}

fn client_reply(mode: &[u8], session: &mut Session, out: &mut Vec<u8>) {
    if mode.eq_ignore_ascii_case(b"ON") {
        session.replies = Replies::On;
        out.extend_from_slice(OK);
    } else if mode.eq_ignore_ascii_case(b"OFF") {
        session.replies = Replies::Off;
    } else if !mode.eq_ignore_ascii_case(b"SKIP") {
        out.extend_from_slice(SYNTAX_ERROR);
    } else if session.replies != Replies::Off {
        session.replies = Replies::SkipNext;
    }
}

fn auth(password: &[u8], session: &mut Session, config: &LocalConfig<'_>, out: &mut Vec<u8>) {
    // compat: twemproxy's words (and those of redis before 6).
    out.extend_from_slice(if config.password.is_none() {
        b"-ERR Client sent AUTH, but no password is set\r\n"
    } else if authenticate(b"default", password, session, config) {
        OK
    } else {
        WRONG_PASSWORD
    });
}

/// Checks a password. A wrong one leaves an earlier authentication as it is. Without `redis_auth`
/// any password of the default user will do, as in a redis without a password.
fn authenticate(
    user: &[u8],
    password: &[u8],
    session: &mut Session,
    config: &LocalConfig<'_>,
) -> bool {
    let accepted = user == b"default"
        && config
            .password
            .is_none_or(|expected| is_same_secret(password, expected));
    session.authenticated |= accepted;
    accepted
}

/// Compares in a time that depends on the length of `given` alone.
fn is_same_secret(given: &[u8], expected: &[u8]) -> bool {
    let mut difference = u8::from(given.len() != expected.len());
    let mut expected = expected.iter().cycle();
    for byte in given {
        difference |= byte ^ expected.next().unwrap_or(&0);
    }
    core::hint::black_box(difference) == 0
}

/// compat: RESP3 is not spoken; `HELLO 3` gets the words of a redis that cannot, and client libraries
/// then go on with RESP2.
fn hello(
    command: &Command<'_>,
    session: &mut Session,
    config: &LocalConfig<'_>,
    out: &mut Vec<u8>,
) {
    if command.words > 1 {
        match scan::canonical_i64(command.text(1)) {
            Some(2) => {}
            Some(_) => {
                out.extend_from_slice(b"-NOPROTO unsupported protocol version\r\n");
                return;
            }
            None => {
                out.extend_from_slice(
                    b"-ERR Protocol version is not an integer or out of range\r\n",
                );
                return;
            }
        }
    }
    let Some(options) = HelloOptions::read(command.iter(), out) else {
        return;
    };
    if let Some((user, password)) = options.credentials
        && !authenticate(user, password, session, config)
    {
        out.extend_from_slice(WRONG_PASSWORD);
        return;
    }
    if config.password.is_some() && !session.authenticated {
        out.extend_from_slice(
            b"-NOAUTH HELLO must be called with the client already authenticated, otherwise the \
              HELLO AUTH <user> <pass> option can be used to authenticate the client and select \
              the RESP protocol version at the same time\r\n",
        );
        return;
    }
    if let Some(name) = options.name {
        set_name(name, session);
    }
    write_hello(session.id, out);
}

struct HelloOptions<'a> {
    credentials: Option<(&'a [u8], &'a [u8])>,
    name: Option<&'a [u8]>,
}

impl<'a> HelloOptions<'a> {
    /// Reads what follows the version; `None` when an error was appended to `out`.
    fn read(words: Words<'a>, out: &mut Vec<u8>) -> Option<Self> {
        let mut options = Self {
            credentials: None,
            name: None,
        };
        let mut texts = words.texts().skip(2);
        while let Some(option) = texts.next() {
            if option.eq_ignore_ascii_case(b"AUTH") {
                if let (Some(user), Some(password)) = (texts.next(), texts.next()) {
                    options.credentials = Some((user, password));
                    continue;
                }
            } else if option.eq_ignore_ascii_case(b"SETNAME")
                && let Some(name) = texts.next()
            {
                if name_is_refused(name, out) {
                    return None;
                }
                options.name = Some(name);
                continue;
            }
            out.extend_from_slice(b"-ERR Syntax error in HELLO option '");
            push_text(option, option.len(), out);
            out.extend_from_slice(b"'\r\n");
            return None;
        }
        Some(options)
    }
}

fn write_hello(id: u64, out: &mut Vec<u8>) {
    write_array_header(14, out);
    for (name, value) in [(&b"server"[..], &b"redis"[..]), (b"version", REDIS_VERSION)] {
        write_bulk(name, out);
        write_bulk(value, out);
    }
    for (name, value) in [(&b"proto"[..], 2), (b"id", id)] {
        write_bulk(name, out);
        write_integer(value, out);
    }
    for (name, value) in [(&b"mode"[..], &b"standalone"[..]), (b"role", b"master")] {
        write_bulk(name, out);
        write_bulk(value, out);
    }
    write_bulk(b"modules", out);
    write_array_header(0, out);
}

/// The client is now called `name`; an empty name takes the name away.
fn set_name(name: &[u8], session: &mut Session) {
    session.name = (!name.is_empty()).then(|| Box::new(ClientName(name.into())));
}

/// Whether a client cannot be called that; if so, says why.
fn name_is_refused(name: &[u8], out: &mut Vec<u8>) -> bool {
    let reason = if !is_name(name) {
        BAD_NAME
    } else if name.len() > CLIENT_NAME_LEN_MAX {
        LONG_NAME
    } else {
        return false;
    };
    out.extend_from_slice(reason);
    true
}

fn is_name(name: &[u8]) -> bool {
    name.iter().all(|byte| matches!(byte, b'!'..=b'~'))
}

/// What a client library calls itself is of no use here; the words are those of redis 7.2.
fn set_info(option: &[u8], out: &mut Vec<u8>) {
    if option.eq_ignore_ascii_case(b"LIB-NAME") || option.eq_ignore_ascii_case(b"LIB-VER") {
        out.extend_from_slice(OK);
    } else {
        out.extend_from_slice(b"-ERR Unrecognized option '");
        push_text(option, option.len(), out);
        out.extend_from_slice(b"'\r\n");
    }
}

fn write_integer(n: u64, out: &mut Vec<u8>) {
    out.push(b':');
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends `AUTH password`, for a new server connection.
pub fn write_auth(password: &[u8], out: &mut Vec<u8>) {
    write_array_header(2, out);
    write_bulk(b"AUTH", out);
    write_bulk(password, out);
}

/// Appends `SELECT db`, for a new server connection.
pub fn write_select(db: u32, out: &mut Vec<u8>) {
    write_array_header(2, out);
    write_bulk(b"SELECT", out);
    write_bulk(itoa::Buffer::new().format(db).as_bytes(), out);
}

#[cfg(test)]
mod tests;
