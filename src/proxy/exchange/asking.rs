//! A request that waits until it is known what its buckets hold over all nodes.

use tokio::time::timeout;

use crate::limit::PendingAnswers;
use crate::proxy::exchange::context::Context;

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
