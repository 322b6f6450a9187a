//! A request that waits for room at a backend.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use pingora_core::{Error, ErrorType, Result};

use crate::proxy::backend::sink::NobodyYet;
use crate::proxy::exchange::client::{ReceivedRequest, Recipient};
use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::rest::Rest;
use crate::proxy::exchange::run::Exchange;
use crate::upstream::{Lease, Waiter};

impl<R: ReceivedRequest, C: Recipient> Exchange<'_, R, C> {
    /// Waits for a backend, as long as the pool says and the client stays, if the request may. Fails with why there is
    /// none, which the context knows. A client whose body is being sent on is not listened to meanwhile: what it sends
    /// has nowhere to go.
    pub(super) async fn wait_for_backend(&mut self, ctx: &mut Context) -> Result<()> {
        let (why, waiter) = ctx.queue_up();
        if let (Some(mut waiter), Some(pool)) = (waiter, ctx.pool().cloned()) {
            let turn = self.turn(&mut waiter, pool.settings().queue.timeout).await?;
            drop(waiter);
            if turn.is_some_and(|lease| ctx.take_up(lease)) {
                return Ok(());
            }
            pool.waited_in_vain();
        }
        ctx.rejection = Some(why);
        Err(Error::explain(ErrorType::HTTPStatus(503), "no backend has room"))
    }

    async fn turn(&mut self, waiter: &mut Waiter, limit: Duration) -> Result<Option<Lease>> {
        let is_sent_on = self.client.rest().relay().is_some();
        let (client, mut turn) = (&mut self.client, pin!(waiter.turn()));
        let turn = poll_fn(|cx| match turn.as_mut().poll(cx) {
            Poll::Pending if !is_sent_on => client.poll_meanwhile(cx, &mut NobodyYet).map(Err),
            turn => turn.map(Ok),
        });
        self.scratch.alarm.within(limit, turn).await.unwrap_or(Ok(None))
    }
}
