//! A request that goes by Pingora's loop, with what its line in the log needs when the loop is dropped midway.
//!
//! The loop logs what it has seen to its end. A server that stops drops the loops that it does not wait for, and with
//! them their sessions, in which the request's header is. So a copy of that is here, and how far the answer has come.

use std::ops::{Deref, DerefMut};

use pingora_http::RequestHeader;

use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::failure::cut;
use crate::proxy::exchange::outcome::RequestOutcome;
use crate::proxy::exchange::proxy::Proxy;
use crate::proxy::gate::admit::RequestTarget;

/// What the hooks of one request share.
pub struct LoopRequest {
    ctx: Context,
    /// From its first hook until it is logged.
    unlogged: Option<Box<UnloggedRequest>>,
}

/// What the loop has not logged yet.
struct UnloggedRequest {
    proxy: Proxy,
    head: RequestHeader,
    /// The status of the answer, 0 while there is none.
    status: u16,
    bytes_in: u64,
    bytes_out: u64,
}

impl LoopRequest {
    pub(in crate::proxy) fn new(ctx: Context) -> Self {
        LoopRequest { ctx, unlogged: None }
    }

    /// It has begun: from now on it is logged, whatever becomes of it.
    pub(in crate::proxy) fn begin(&mut self, proxy: &Proxy, head: &RequestHeader) {
        let (proxy, head) = (proxy.clone(), head.clone());
        self.unlogged = Some(Box::new(UnloggedRequest { proxy, head, status: 0, bytes_in: 0, bytes_out: 0 }));
    }

    /// So many bytes of its body have come.
    pub(in crate::proxy) fn received(&mut self, bytes: u64) {
        self.unlogged.iter_mut().for_each(|request| request.bytes_in = bytes);
    }

    /// Its answer begins.
    pub(in crate::proxy) fn answers(&mut self, status: u16) {
        self.unlogged.iter_mut().for_each(|request| request.status = status);
    }

    /// So many more bytes of its answer are sent.
    pub(in crate::proxy) fn sends(&mut self, bytes: u64) {
        self.unlogged.iter_mut().for_each(|request| request.bytes_out += bytes);
    }

    /// It has come to its end, and is being logged.
    pub(in crate::proxy) fn end(&mut self) {
        self.unlogged = None;
    }
}

impl Deref for LoopRequest {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.ctx
    }
}

impl DerefMut for LoopRequest {
    fn deref_mut(&mut self) -> &mut Context {
        &mut self.ctx
    }
}

impl Drop for LoopRequest {
    fn drop(&mut self) {
        let Some(request) = self.unlogged.take() else { return };
        let UnloggedRequest { proxy, head, status, bytes_in, bytes_out } = *request;
        let error = cut(&mut self.ctx);
        let error = Some(&*error);
        let outcome = RequestOutcome { version: head.version, status, bytes_in, bytes_out, grpc_status: None, error };
        proxy.ended((RequestTarget::of(&head), &head.headers), &self.ctx, outcome);
    }
}
