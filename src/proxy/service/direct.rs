//! Requests of a connection that go directly.

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use pingora_core::protocols::Stream;
use pingora_core::server::ShutdownWatch;

use crate::proxy::backend::idle::Idle;
use crate::proxy::downstream::arrival::Arrival;
use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::desk::{Desk, Origin};
use crate::proxy::exchange::http1::{Connection, Whole};
use crate::proxy::exchange::http2::{Gets, StreamRequest};
use crate::proxy::exchange::proxy::Proxy;
use crate::proxy::exchange::run::{Exchange, Sheet};
use crate::proxy::service::connection::Downstream;

impl Downstream {
    /// Serves a request that [`takes`] said can go directly, which came at `since`. What the client sends behind it goes
    /// to `ahead`. False when the connection is to be closed afterwards.
    pub(in crate::proxy) async fn serve_directly(
        &self,
        (stream, ahead): (&mut Stream, &mut BytesMut),
        request: &Whole<'_>,
        (since, origin): (Arrival, Origin),
        desk: &mut Desk,
        shutdown: &ShutdownWatch,
    ) -> bool {
        let (keeps, tunnels, limits) = (!request.is_last(), &self.tunnels, || self.app.limits());
        let (out, limits, half_closed) = (&mut desk.out, &limits, None);
        let client = Connection { stream, ahead, out, shutdown, tunnels, keeps, limits, half_closed };
        let exchange = Exchange::new((&self.app, &self.idle), request, client, &mut desk.sheet);
        exchange.run(Context::new(since.at, since.wall), origin).await.keeps
    }

    /// Serves a request that [`takes_stream`] said can go directly, which came at `since`, and answers it by `respond`.
    /// Its body is there.
    pub(in crate::proxy) async fn serve_stream_directly(
        app: &Proxy,
        idle: &Idle,
        request: &StreamRequest,
        respond: SendResponse<Bytes>,
        (since, origin): (Arrival, Origin),
    ) {
        let mut sheet = Sheet::default();
        let exchange = Exchange::new((app, idle), request, Gets::new(respond), &mut sheet);
        exchange.run(Context::new(since.at, since.wall), origin).await;
    }
}
