//! Requests that the proxy answers itself, and what it says to servers on its own account.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::proto::Request;

/// What the proxy remembers of a redis client.
#[derive(Clone, Debug, Default)]
pub struct Session {
    /// The client gave the right password.
    pub authenticated: bool,
    /// `CLIENT SETNAME`.
    pub name: Option<Box<[u8]>>,
    /// `CLIENT ID`: unique in the process, counted from 1.
    pub id: u64,
}

/// What the answers depend on besides the client.
#[derive(Clone, Copy, Debug)]
pub struct LocalConfig<'a> {
    /// `redis_auth:`
    pub password: Option<&'a [u8]>,
    /// `redis_db:`
    pub db: u32,
}

/// What happens after the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum After {
    /// The next request.
    Continue,
    /// The answer leaves, then the client is closed (QUIT).
    Close,
}

/// Whether `request` may pass now; if not, the reply (`-NOAUTH ...`) was appended to `out`.
#[must_use]
pub fn admit(
    request: &Request,
    session: &Session,
    config: &LocalConfig<'_>,
    out: &mut Vec<u8>,
) -> bool {
    let _ = (request, session, config, out);
    true
}

/// Appends the answer to a request with [`crate::proto::Route::Local`].
pub fn respond(
    frame: &[u8],
    request: &Request,
    session: &mut Session,
    config: &LocalConfig<'_>,
    out: &mut Vec<u8>,
) -> After {
    let _ = (frame, request, session, config, out);
    After::Continue
}

/// Appends `AUTH password`, for a new server connection.
pub fn write_auth(password: &[u8], out: &mut Vec<u8>) {
    let _ = (password, out);
}

/// Appends `SELECT db`, for a new server connection.
pub fn write_select(db: u32, out: &mut Vec<u8>) {
    let _ = (db, out);
}

/// Whether the server's answer to our AUTH lets us go on: `+OK`, or one of the answers that say no
/// password is set there.
#[must_use]
pub fn auth_accepted(response: &[u8]) -> bool {
    let _ = response;
    true
}
