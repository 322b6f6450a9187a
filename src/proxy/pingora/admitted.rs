//! A request that was let in before Pingora's loop got it, on its way to the loop's first hook.
//!
//! Pingora makes the context of a request without a look at it ([`new_ctx`](pingora_proxy::ProxyHttp::new_ctx)), so the
//! one that was filled before travels with the session: in the [`Loan`] under one of HTTP/1, in the header's extensions
//! of one of HTTP/2.

use std::sync::Arc;

use pingora_proxy::Session;

use crate::proxy::exchange::context::Context;
use crate::proxy::pingora::loan::Loan;

/// A context in the extensions of a header, whose values can be cloned. Whoever takes it out has the only one.
#[derive(Clone)]
pub(in crate::proxy) struct Admitted(Arc<Context>);

impl Admitted {
    /// The request with this context was let in.
    pub(in crate::proxy) fn new(ctx: Context) -> Self {
        Admitted(Arc::new(ctx))
    }
}

/// The context that `session` carries, if its request was let in before. Asked once.
pub(in crate::proxy) fn of(session: &mut Session) -> Option<Context> {
    if let Some(loan) = Loan::of(session) {
        return loan.take_context().map(|ctx| *ctx);
    }
    let Admitted(ctx) = session.req_header_mut().extensions_mut().remove()?;
    Arc::into_inner(ctx)
}
