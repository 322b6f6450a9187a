//! Requests of a connection that go directly.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use http::header::EXPECT;
use pingora_core::protocols::Stream;
use pingora_core::server::ShutdownWatch;

use crate::proxy::downstream::activity::Tunnels;
use crate::proxy::downstream::coming::Coming;
use crate::proxy::downstream::head::Head;
use crate::proxy::downstream::http2::sections::UntakenSections;
use crate::proxy::downstream::http2::upload::Upload;
use crate::proxy::downstream::parcel::Parcel;
use crate::proxy::exchange::client::ReceivedRequest;
use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::http1::{Http1Recipient, Http1Request};
use crate::proxy::exchange::http2::Http2Recipient;
use crate::proxy::exchange::http2::received::Http2Request;
use crate::proxy::exchange::interim::InterimAnswers;
use crate::proxy::exchange::proxy::Proxy;
use crate::proxy::exchange::relay::Relay;
use crate::proxy::exchange::rest::{Announced, Sending};
use crate::proxy::exchange::run::Exchange;
use crate::proxy::exchange::scratch::{BackendScratch, Scratch};
use crate::proxy::exchange::waits::BodyBounds;
use crate::proxy::gate::grpc::is_grpc;
use crate::proxy::service::downstream::{After, Downstream};
use crate::proxy::wire::lines::Fields;

impl Downstream {
    /// Serves a request without Pingora's loop, or answers one that was not let in. What the client sends behind it
    /// goes to `ahead`.
    pub(in crate::proxy) async fn serve_directly(
        &self,
        (stream, ahead): (&mut Stream, &mut BytesMut),
        request: &Http1Request<'_>,
        (ctx, secure): (&mut Context, bool),
        scratch: &mut Scratch,
        shutdown: &ShutdownWatch,
    ) -> After {
        let (keeps, tunnels, limits) = (!request.is_last(), &self.tunnels, || self.app.limits());
        let (out, limits, half_closed, interim) = (&mut scratch.out, &limits, None, InterimAnswers::default());
        let (bare, rest) = (request.is_bare(), ());
        let client =
            Http1Recipient { stream, ahead, out, shutdown, tunnels, keeps, bare, limits, interim, half_closed, rest };
        let exchange = Exchange::new(&self.app, request, client, &mut scratch.backend);
        let Http1Recipient { keeps, ahead, .. } = exchange.run(ctx, secure).await;
        match keeps {
            true => After::Next,
            false if ahead.is_empty() => After::Close,
            false => After::ReadAndClose,
        }
    }

    /// The same for a request whose body is still coming: `first` has come of it.
    pub(in crate::proxy) async fn serve_streaming(
        &self,
        (stream, ahead): (&mut Stream, &mut BytesMut),
        (request, head, first): (&Http1Request<'_>, &Head, BytesMut),
        (ctx, secure): (&mut Context, bool),
        scratch: &mut Scratch,
        shutdown: &ShutdownWatch,
    ) -> After {
        let (keeps, tunnels, limits) = (!request.is_last(), &self.tunnels, || self.app.limits());
        let mut parcel = Parcel::new();
        let coming = Coming::new(head.body.clone(), first, self.waited(), &mut parcel);
        let length = request.length();
        let is_read = coming.is_done();
        let bounds = bounds(&self.app, &request.fields());
        let waits = bounds.expects;
        let come = (parcel, is_read.then(|| coming.trailers()));
        let relay = Relay::new(come, length.is_none(), bounds, Arc::clone(&self.app.inner.clock));
        let rest = Box::new(Sending { relay, source: Announced { coming, length, waits, exhausted: false } });
        let (out, limits, half_closed, interim) = (&mut scratch.out, &limits, None, InterimAnswers::default());
        let bare = request.is_bare();
        let client =
            Http1Recipient { stream, ahead, out, shutdown, tunnels, keeps, bare, limits, interim, half_closed, rest };
        let exchange = Exchange::new(&self.app, request, client, &mut scratch.backend);
        let Http1Recipient { keeps, ahead, rest, .. } = exchange.run(ctx, secure).await;
        match keeps {
            true => After::Next,
            false if rest.source.exhausted => After::Close,
            false if rest.relay.is_read() && ahead.is_empty() => After::Close,
            false => After::ReadAndClose,
        }
    }

    /// Serves a request of a stream without Pingora's loop, or answers one that was not let in, by `respond`. Its body
    /// is there.
    pub(in crate::proxy) async fn serve_stream_directly(
        app: &Proxy,
        request: &Http2Request,
        (respond, sections): (SendResponse<Bytes>, &UntakenSections),
        (ctx, secure): (&mut Context, bool),
    ) {
        let mut scratch = BackendScratch::default();
        let exchange =
            Exchange::new(app, request, Http2Recipient::new(respond, (), (&app.inner.untaken, sections)), &mut scratch);
        exchange.run(ctx, secure).await;
    }

    /// The same for a request whose body is still coming.
    pub(in crate::proxy) async fn serve_streaming_stream(
        app: &Proxy,
        (request, body): (&Http2Request, Upload),
        (respond, sections): (SendResponse<Bytes>, &UntakenSections),
        (ctx, secure): (&mut Context, bool),
    ) {
        let bounds = bounds(app, &request.fields());
        let in_chunks = request.length().is_none();
        let relay = Relay::new((Parcel::new(), None), in_chunks, bounds, Arc::clone(&app.inner.clock));
        let rest = Box::new(Sending { relay, source: body });
        let mut scratch = BackendScratch::default();
        let exchange = Exchange::new(
            app,
            request,
            Http2Recipient::new(respond, rest, (&app.inner.untaken, sections)),
            &mut scratch,
        );
        let client = exchange.run(ctx, secure).await;
        let body = client.into_rest().source;
        if !body.is_over() {
            body.discard().await;
        }
    }
}

impl Downstream {
    /// Serves a request of a stream that asks for a WebSocket, with what comes by it when it has one.
    pub(in crate::proxy) async fn serve_tunnel_stream(
        (app, tunnels): (&Proxy, &Tunnels),
        (request, upload): (&Http2Request, Upload),
        (respond, sections): (SendResponse<Bytes>, &UntakenSections),
        (ctx, secure): (&mut Context, bool),
    ) {
        let mut scratch = BackendScratch::default();
        let client = Http2Recipient::new(respond, (), (&app.inner.untaken, sections)).with_tunnel(upload, tunnels);
        let client = Exchange::new(app, request, client, &mut scratch).run(ctx, secure).await;
        if let Some(upload) = client.untunnelled() {
            upload.discard().await;
        }
    }
}

/// What bounds a body that comes behind these `fields`; that of gRPC is as long and as silent as it likes.
fn bounds(app: &Proxy, fields: &impl Fields) -> BodyBounds {
    let (limits, counts) = (app.limits(), !is_grpc(fields));
    BodyBounds {
        expects: fields.all_of(&EXPECT).next().is_some(),
        underscores: app.rules().identity.underscores,
        silence: counts.then_some(limits.body_timeout),
        rate: limits.min_body_rate.filter(|_| counts),
        length: counts.then_some(u64::MAX),
        write: Duration::MAX,
    }
}
