//! The way of one stream of HTTP/2, once it is decided whether its request is let in.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use h2::server::SendResponse;
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::Digest;
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::ShutdownWatch;
use pingora_http::RequestHeader;
use pingora_proxy::HttpProxy;
use tokio::sync::oneshot;

use crate::proxy::downstream::activity::{Busy, Tunnels};
use crate::proxy::downstream::address::ends;
use crate::proxy::downstream::http2::sections::UntakenSections;
use crate::proxy::downstream::http2::upload::Upload;
use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::http2::received::Http2Request;
use crate::proxy::exchange::proxy::Proxy;
use crate::proxy::exchange::takes::Purpose;
use crate::proxy::pingora::admitted::Admitted;
use crate::proxy::pingora::http2_session::Http2Session;
use crate::proxy::service::downstream::Downstream;

/// What all streams of a connection have.
pub(super) struct StreamWay {
    pub(super) app: Proxy,
    /// What the client does not take of header sections.
    pub(super) sections: Arc<UntakenSections>,
    pub(super) tunnels: Arc<Tunnels>,
    pub(super) proxy: Arc<HttpProxy<Proxy>>,
    pub(super) shutdown: Arc<ShutdownWatch>,
    pub(super) digest: Arc<Digest>,
    pub(super) secure: bool,
}

impl StreamWay {
    /// Serves the request, or answers it where it is not let in. Boxed, since spawning moves it several times.
    pub(super) fn serve(
        self: Arc<Self>,
        (parts, asks): (Box<Parts>, Purpose),
        (mut body, respond): (Upload, SendResponse<Bytes>),
        (mut ctx, busy): (Context, Busy),
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let secure = self.secure;
        ctx.meet(|| ends(self.digest.socket_digest.as_deref()?));
        let (refused, by_loop) = (ctx.rejection.is_some(), asks.goes_by_loop(ctx.direct));
        if asks == Purpose::Upgrade && !refused {
            return Box::pin(async move {
                let request = Http2Request::new(parts, asks, None);
                let (from, ctx) = ((&request, body), (&mut ctx, secure));
                Downstream::serve_tunnel_stream((&self.app, &self.tunnels), from, (respond, &self.sections), ctx).await;
                drop(busy);
            });
        }
        if body.is_over() && (refused || !by_loop) {
            return Box::pin(async move {
                let request = Http2Request::new(parts, asks, None);
                let answers = (respond, &*self.sections);
                Downstream::serve_stream_directly(&self.app, &request, answers, (&mut ctx, secure)).await;
                drop(busy);
            });
        }
        Box::pin(async move {
            let _busy = busy;
            if refused || !by_loop {
                let waits = !parts.headers.contains_key(CONTENT_LENGTH);
                let there = match !refused && asks.sends_at_once() {
                    true => body.take_what_is_there(waits).await,
                    false => None,
                };
                let Some(data) = there else {
                    let request = Http2Request::part(parts, asks);
                    let (body, ctx) = ((&request, body), (&mut ctx, secure));
                    return Downstream::serve_streaming_stream(&self.app, body, (respond, &self.sections), ctx).await;
                };
                drop(body);
                let request = Http2Request::new(parts, asks, Some(data));
                // Its length is known only now, where it was not announced.
                ctx.rejection = request.too_large(ctx.admission.max_body);
                let answers = (respond, &*self.sections);
                return Downstream::serve_stream_directly(&self.app, &request, answers, (&mut ctx, secure)).await;
            }
            let (leave, left) = oneshot::channel();
            let mut head = RequestHeader::from(*parts);
            head.extensions_mut().insert(Admitted::new(ctx));
            let (min_rate, sections) = (self.app.limits().min_body_rate, Arc::clone(&self.sections));
            let digest = Arc::clone(&self.digest);
            let session = Http2Session::new(head, (body, min_rate), (respond, sections), digest, leave);
            self.proxy.process_new_http(ServerSession::new_custom(Box::new(session)), &self.shutdown).await;
            if let Ok(body) = left.await {
                body.discard().await;
            }
        })
    }
}
