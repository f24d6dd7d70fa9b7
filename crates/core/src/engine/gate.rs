//! Requests of clients whose session says something special: they have not authenticated, or are in a
//! transaction, in no database, or want no responses. What that means is the protocol's to say
//! ([`crate::proto::redis::local`]); it is carried out here.
//!
//! A request without a response takes its place in the order queue as any other, so that what comes behind it
//! is answered when it is done.

use core::mem;

use super::Engine;
use super::client::Phase;
use super::client_end::ClientEnd;
use super::forward::{Frame, Stalled};
use super::fragments::Work;
use crate::ids::ClientId;
use crate::proto::redis::closes_on_error;
use crate::proto::redis::local::{self, LocalConfig};
use crate::proto::{Protocol, Request, Route};

impl Engine {
    /// Serves one complete request of a gated client.
    #[cold]
    pub(super) fn route_gated<'a>(
        &mut self,
        id: ClientId,
        frame: Frame<'a>,
        request: &Request,
    ) -> Result<(), Stalled<'a>> {
        if !self.admit(id, request) {
            self.served(id);
            return Ok(());
        }
        let before = self.clients.roster.found(id).order.in_flight();
        self.route_admitted(id, frame, request)?;
        if request.route == Route::Local {
            return Ok(());
        }
        let client = self.clients.roster.found_mut(id);
        if client.session.is_muted() && client.order.in_flight() > before {
            client.order.mute_last();
        }
        self.served(id);
        Ok(())
    }

    /// Whether a gated client may send this; if not, it was told.
    pub(super) fn admit(&mut self, id: ClientId, request: &Request) -> bool {
        let client = self.clients.roster.found_mut(id);
        let pool = &self.pools[client.pool.index()];
        if pool.config.protocol == Protocol::Memcache {
            return true;
        }
        let config = LocalConfig {
            password: pool.config.redis_auth.as_deref(),
            db: pool.config.redis_db,
        };
        let mut reply = mem::take(&mut self.shared.reply);
        let admitted = local::admit(request, &mut client.session, &config, &mut reply);
        if !admitted {
            self.answer_now(id, &reply);
            self.close_misreader(id, request);
        }
        reply.clear();
        self.shared.reply = reply;
        admitted
    }

    /// Sends a request that is not to be split, and sees to it that an error of ours in place of its response
    /// ends the connection of a client that may not be able to read it.
    pub(super) fn forward_apart<'a>(
        &mut self,
        id: ClientId,
        frame: Frame<'a>,
        request: &Request,
        work: &mut Work,
    ) -> Result<(), Stalled<'a>> {
        let before = self.clients.roster.found(id).order.in_flight();
        self.forward_together(id, frame, request, work)?;
        if !closes_on_error(request.command) {
            return Ok(());
        }
        let client = self.clients.roster.found_mut(id);
        if !client.order.make_last_brittle(before) {
            self.close_misreader(id, request);
        }
        Ok(())
    }

    /// After an error of ours that some clients cannot read, the client is closed.
    pub(super) fn close_misreader(&mut self, id: ClientId, request: &Request) {
        let Some(client) = self.clients.roster.get_mut(id) else {
            return;
        };
        let protocol = self.pools[client.pool.index()].config.protocol;
        if protocol == Protocol::Redis
            && closes_on_error(request.command)
            && !client.session.is_muted()
        {
            client.phase = Phase::Closing {
                end: ClientEnd::Quit,
            };
        }
    }

    /// The client's session goes on to its next request.
    pub(super) fn served(&mut self, id: ClientId) {
        if let Some(client) = self.clients.roster.get_mut(id) {
            client.session.served();
            client.look_at_session();
        }
    }
}
