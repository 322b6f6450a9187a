//! A request that waits until it is known what its buckets hold over all nodes, or what one of them was asked.

use tokio::time::timeout;

use crate::limit::PendingAnswers;
use crate::proxy::exchange::client::{ReceivedRequest, WaitsFor};
use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::failure::cut;
use crate::proxy::exchange::outcome::RequestOutcome;
use crate::proxy::exchange::proxy::Proxy;
use crate::proxy::exchange::scratch::Origin;

/// A request that is not decided on yet. If it is dropped while it waits, that is counted and logged.
struct UndecidedRequest<'u, R: ReceivedRequest> {
    proxy: &'u Proxy,
    request: &'u R,
    ctx: &'u mut Context,
    waits: bool,
}

impl<R: ReceivedRequest> Drop for UndecidedRequest<'_, R> {
    fn drop(&mut self) {
        if self.waits {
            let error = cut(self.ctx);
            let error = Some(&*error);
            let (version, bytes_in) = (self.request.version(), self.request.body().len() as u64);
            let outcome = RequestOutcome { version, status: 0, bytes_in, bytes_out: 0, grpc_status: None, error };
            self.proxy.ended((self.request.target(), &self.request.fields()), self.ctx, outcome);
        }
    }
}

/// Waits for what is to be known about `request`, which came from there. It has its line in the log also where
/// the server does not wait for it.
pub(in crate::proxy) async fn decide(
    first: WaitsFor,
    (request, origin): (&impl ReceivedRequest, Origin<'_>),
    proxy: &Proxy,
    ctx: &mut Context,
) {
    let mut undecided = UndecidedRequest { proxy, request, ctx, waits: true };
    let asking = match first {
        WaitsFor::Limits(asking) => Some(asking),
        WaitsFor::Challenge => match proxy.inner.challenges.answer_elsewhere(request.target().path).await {
            Some(answer) => {
                undecided.ctx.answer_challenge(&answer);
                None
            }
            None => request.let_in(proxy, origin, undecided.ctx),
        },
    };
    if let Some(asking) = asking {
        wait(asking, undecided.ctx, |ctx| request.let_in(proxy, origin, ctx)).await;
    }
    undecided.waits = false;
}

/// Waits, and has the request decided again, until it is; it waits no longer than the limiter says, in all, and is then
/// judged by what this node knows.
pub(in crate::proxy) async fn wait(
    first: Box<PendingAnswers>,
    ctx: &mut Context,
    mut decide: impl FnMut(&mut Context) -> Option<Box<PendingAnswers>>,
) {
    let limit = first.limit();
    let mut asked = ctx.admission.asked.take().unwrap_or_default();
    let mut asking = Some(first);
    let waited = timeout(limit, async {
        while let Some(mut questions) = asking.take() {
            let all = questions.answered(&mut asked).await;
            asked.last = !all;
            drop(questions);
            ctx.admission.asked = Some(std::mem::take(&mut asked));
            asking = decide(ctx);
            asked = ctx.admission.asked.take().unwrap_or_default();
        }
    });
    if waited.await.is_err() {
        asked.last = true;
        ctx.admission.asked = Some(asked);
        // Nobody is asked any more.
        drop(decide(ctx));
    }
}
