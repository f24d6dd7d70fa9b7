//! The proxy's memory of a redis client, and what follows from it for each of its requests.
//!
//! A session that says nothing special is *plain*: its requests are served as they are. The engine looks at
//! each request of any other client here first ([`admit`]), and tells when it is done with it
//! ([`Session::served`]).
//!
//! Invariant: what a client asked for and did not get (a transaction, a database) makes the requests that rely on
//! it fail, too; none of them is executed as something else.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::commands::{self, Keys, Local, Serve};
use super::words::{Command, read_head};
use super::{Invalid, own};
use crate::proto::{Request, Route};

/// The proxy's memory of a redis client.
#[derive(Clone, Debug, Default)]
pub struct Session {
    /// The client gave the right password.
    pub authenticated: bool,
    pub(super) transaction: Transaction,
    /// The last SELECT named a database that redis has and this pool has not.
    pub(super) is_astray: bool,
    /// `SCRIPT DEBUG` was asked for, in which redis undoes what scripts change.
    pub(super) debugs_scripts: bool,
    pub(super) replies: Replies,
    /// `CLIENT SETNAME`.
    pub name: Option<Box<ClientName>>,
    /// `CLIENT ID`: unique in the process, counted from 1.
    pub id: u64,
}

/// A client's name. Behind one word, because few clients have one and all have the word.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientName(pub Box<[u8]>);

/// Settings of the pool that the answers depend on.
#[derive(Clone, Copy, Debug)]
pub struct LocalConfig<'a> {
    /// `redis_auth:`
    pub password: Option<&'a [u8]>,
    /// `redis_db:`
    pub db: u32,
}

/// Where a client is between MULTI and EXEC. Nothing is kept of the commands: none of them is executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Transaction {
    /// Nowhere.
    #[default]
    No,
    /// No command came yet: EXEC has nothing to execute.
    Empty,
    /// A command was answered with an error.
    Spoiled,
}

/// `CLIENT REPLY`
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Replies {
    #[default]
    On,
    /// The request at hand asked that the next one get none, and gets none itself.
    SkipNext,
    /// The request at hand gets none.
    Skip,
    Off,
}

impl Session {
    /// The session of a client that just connected.
    #[must_use]
    pub fn new(id: u64) -> Self {
        Self {
            id,
            ..Self::default()
        }
    }

    /// Bytes that it takes beside itself.
    #[must_use]
    pub fn held(&self) -> usize {
        self.name.as_ref().map_or(0, |name| name.0.len())
    }

    /// Whether its requests are served as they are, authentication apart.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.transaction == Transaction::No
            && !self.is_astray
            && !self.debugs_scripts
            && self.replies == Replies::On
    }

    /// Whether the request at hand gets no response.
    #[inline]
    #[must_use]
    pub fn is_muted(&self) -> bool {
        self.replies != Replies::On
    }

    /// Whether the client is between MULTI and EXEC.
    #[must_use]
    pub fn is_in_transaction(&self) -> bool {
        self.transaction != Transaction::No
    }

    /// A command was answered with an error: the transaction it was for, if any, is lost.
    pub fn spoil(&mut self) {
        if self.is_in_transaction() {
            self.transaction = Transaction::Spoiled;
        }
    }

    /// A request was refused, `frame` its bytes: what relies on it fails, too.
    pub fn refused(&mut self, invalid: Invalid, frame: &[u8]) {
        if self.is_in_transaction() {
            self.spoil();
        } else if let Invalid::Refused { command } = invalid
            && commands::row(command).name == "script"
        {
            let head = read_head(frame);
            let command = Command::new(frame, &head);
            let is_mode = |mode: &[u8]| {
                command.words == 3
                    && command.text(1).eq_ignore_ascii_case(b"DEBUG")
                    && command.text(2).eq_ignore_ascii_case(mode)
            };
            if is_mode(b"YES") || is_mode(b"SYNC") {
                self.debugs_scripts = true;
            } else if is_mode(b"NO") {
                self.debugs_scripts = false;
            }
        }
    }

    /// A request is done with: forwarded, answered, refused, or empty.
    pub fn served(&mut self) {
        self.replies = match self.replies {
            Replies::SkipNext => Replies::Skip,
            Replies::Skip => Replies::On,
            other => other,
        };
    }

    /// `RESET`: as if it had just connected. The reply that was asked to be skipped still is.
    pub(super) fn reset(&mut self) {
        let is_skipped = self.replies == Replies::Skip;
        *self = Self::new(self.id);
        if is_skipped {
            self.replies = Replies::Skip;
        }
    }
}

/// Whether `request` may pass now; if not, the reply was appended to `out`.
#[inline]
#[must_use]
pub fn admit(
    request: &Request,
    session: &mut Session,
    config: &LocalConfig<'_>,
    out: &mut Vec<u8>,
) -> bool {
    let serve = commands::row(request.command).serve;
    if config.password.is_some() && !session.authenticated {
        let needs_none = matches!(
            serve,
            Serve::Local(Local::Auth | Local::Hello | Local::Quit | Local::Reset)
        );
        if !needs_none {
            out.extend_from_slice(b"-NOAUTH Authentication required.\r\n");
        }
        return needs_none;
    }
    if session.is_in_transaction() {
        let is_for_it = matches!(
            serve,
            Serve::Local(Local::Multi | Local::Exec | Local::Discard | Local::Quit | Local::Reset)
        );
        if !is_for_it {
            session.spoil();
            out.extend_from_slice(own::NO_TRANSACTIONS);
        }
        return is_for_it;
    }
    if session.debugs_scripts && commands::row(request.command).name.starts_with("eval") {
        out.extend_from_slice(own::NO_DEBUGGER);
        return false;
    }
    let is_of_no_database =
        request.route == Route::Local || matches!(serve, Serve::Forward(Keys::None));
    if session.is_astray && !is_of_no_database {
        out.extend_from_slice(own::NO_DATABASE);
        return false;
    }
    true
}
