//! The end of a request, counted and logged whatever ends it.
//!
//! A server that stops drops the requests that it does not wait for, and nothing of theirs runs any more. So their end
//! is told where they are dropped, which costs those that come to an end of their own nothing.

use pingora_core::Result;

use super::Exchange;
use crate::proxy::exchange::client::{ReceivedRequest, Recipient};
use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::failure::cut;
use crate::proxy::exchange::outcome::RequestOutcome;
use crate::proxy::exchange::rest::Rest;

/// A request whose end is still to be counted and logged, which is done when this is dropped.
struct Unended<'u, 'e, R: ReceivedRequest, C: Recipient> {
    exchange: &'u mut Exchange<'e, R, C>,
    ctx: &'u mut Context,
    /// None while it goes on.
    came_to: Option<Result<()>>,
}

impl<R: ReceivedRequest, C: Recipient> Drop for Unended<'_, '_, R, C> {
    fn drop(&mut self) {
        let came_to = self.came_to.take().unwrap_or_else(|| Err(cut(self.ctx)));
        self.exchange.end(self.ctx, &came_to);
    }
}

impl<R: ReceivedRequest, C: Recipient> Exchange<'_, R, C> {
    /// Serves the request, or answers it as its context says, counts it and logs it.
    pub(super) async fn run_to_its_end(&mut self, ctx: &mut Context, secure: bool) {
        let mut unended = Unended { exchange: self, ctx, came_to: None };
        unended.came_to = Some(match unended.ctx.rejection {
            None => unended.exchange.serve(unended.ctx, secure).await,
            Some(rejection) => unended.exchange.reject(rejection, unended.ctx).await,
        });
    }

    /// Counts it and logs it, which has come to that.
    fn end(&mut self, ctx: &Context, came_to: &Result<()>) {
        let outcome = RequestOutcome {
            version: self.request.version(),
            status: self.progress.status,
            bytes_in: self.request.body().len() as u64 + self.received() + self.progress.bytes_in,
            bytes_out: self.progress.bytes_out,
            grpc_status: self.progress.grpc_status,
            error: came_to.as_ref().err().map(|error| &**error),
        };
        self.proxy.ended((self.request.target(), &self.request.fields()), ctx, outcome);
    }

    /// Bytes of its body that came after it had begun.
    fn received(&mut self) -> u64 {
        self.client.rest().relay().map_or(0, |relay| relay.received())
    }
}
