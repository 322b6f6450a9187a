//! Requests of a connection that go directly.

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use pingora_core::protocols::Stream;
use pingora_core::server::ShutdownWatch;

use crate::proxy::downstream::arrival::Arrival;
use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::http1::{Http1Recipient, Http1Request};
use crate::proxy::exchange::http2::{Http2Recipient, Http2Request};
use crate::proxy::exchange::proxy::Proxy;
use crate::proxy::exchange::run::Exchange;
use crate::proxy::exchange::scratch::{BackendScratch, Origin, Scratch};
use crate::proxy::service::downstream::Downstream;

impl Downstream {
    /// Serves a request that [`takes`] said can go directly, which came at `since`. What the client sends behind it goes
    /// to `ahead`. False when the connection is to be closed afterwards.
    pub(in crate::proxy) async fn serve_directly(
        &self,
        (stream, ahead): (&mut Stream, &mut BytesMut),
        request: &Http1Request<'_>,
        (since, origin): (Arrival, Origin),
        scratch: &mut Scratch,
        shutdown: &ShutdownWatch,
    ) -> bool {
        let (keeps, tunnels, limits) = (!request.is_last(), &self.tunnels, || self.app.limits());
        let (out, limits, half_closed) = (&mut scratch.out, &limits, None);
        let client = Http1Recipient { stream, ahead, out, shutdown, tunnels, keeps, limits, half_closed };
        let exchange = Exchange::new(&self.app, request, client, &mut scratch.backend);
        exchange.run(Context::new(since.at, since.wall), origin).await.keeps
    }

    /// Serves a request that [`takes_stream`] said can go directly, which came at `since`, and answers it by `respond`.
    /// Its body is there.
    pub(in crate::proxy) async fn serve_stream_directly(
        app: &Proxy,
        request: &Http2Request,
        respond: SendResponse<Bytes>,
        (since, origin): (Arrival, Origin),
    ) {
        let mut scratch = BackendScratch::default();
        let exchange = Exchange::new(app, request, Http2Recipient::new(respond), &mut scratch);
        exchange.run(Context::new(since.at, since.wall), origin).await;
    }
}
