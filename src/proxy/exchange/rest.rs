//! What of a request's body is still to come when its exchange begins, over each protocol.

use std::task::{Context, Poll};

use bytes::BytesMut;
use pingora_core::protocols::Stream;
use pingora_core::{Error, Result};

use crate::proxy::backend::sink::RequestSink;
use crate::proxy::downstream::coming::{Coming, ComingOver};
use crate::proxy::downstream::http2::upload::Upload;
use crate::proxy::downstream::parcel::BodySource;
use crate::proxy::exchange::relay::Relay;

/// The largest announced body that is read and thrown away to keep a connection usable.
pub(in crate::proxy) const DISCARD: u64 = 1 << 20;

/// What of a request's body is still to come when its exchange begins: nothing, or what a relay sends on. Which of them
/// is known when this is compiled, so that a request that is there as a whole pays for nothing.
pub(in crate::proxy) trait Rest: Send {
    /// What sends it on, if anything is to come.
    fn relay(&mut self) -> Option<&mut Relay>;
}

impl Rest for () {
    fn relay(&mut self) -> Option<&mut Relay> {
        None
    }
}

/// A body that is being sent on, and where it comes from.
pub(in crate::proxy) struct Sending<S> {
    pub(in crate::proxy) relay: Relay,
    pub(in crate::proxy) source: S,
}

impl<S: Send> Rest for Box<Sending<S>> {
    fn relay(&mut self) -> Option<&mut Relay> {
        Some(&mut self.relay)
    }
}

/// What of a request's body is to come over a client's connection.
pub(in crate::proxy) trait RestOverHttp1: Rest {
    /// Sends on what comes.
    fn poll(
        &mut self,
        _cx: &mut Context<'_>,
        _from: (&mut Stream, &mut BytesMut),
        _to: &mut impl RequestSink,
    ) -> Poll<Box<Error>> {
        Poll::Pending
    }

    /// Reads what comes for nothing.
    fn poll_discard(&mut self, _cx: &mut Context<'_>, _from: (&mut Stream, &mut BytesMut)) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Whether it is little enough to read it for the sake of the connection.
    fn is_worth_reading(&self) -> bool {
        true
    }

    /// Takes note that it was waited for in vain.
    fn set_exhausted(&mut self) {}
}

impl RestOverHttp1 for () {}

/// A body that comes over HTTP/1.
pub(in crate::proxy) struct Announced {
    pub(in crate::proxy) coming: Coming,
    /// Its length, if that was announced.
    pub(in crate::proxy) length: Option<u64>,
    /// Whether the client may never send it, as it waits for a word.
    pub(in crate::proxy) waits: bool,
    /// Whether it was waited for in vain, so that nobody waits again.
    pub(in crate::proxy) exhausted: bool,
}

impl RestOverHttp1 for Box<Sending<Announced>> {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        (stream, ahead): (&mut Stream, &mut BytesMut),
        to: &mut impl RequestSink,
    ) -> Poll<Box<Error>> {
        let Sending { relay, source } = &mut **self;
        relay.poll(cx, &mut ComingOver { coming: &mut source.coming, stream, ahead }, to)
    }

    fn poll_discard(
        &mut self,
        cx: &mut Context<'_>,
        (stream, ahead): (&mut Stream, &mut BytesMut),
    ) -> Poll<Result<()>> {
        let Sending { relay, source } = &mut **self;
        relay.poll_discard(cx, &mut ComingOver { coming: &mut source.coming, stream, ahead })
    }

    fn is_worth_reading(&self) -> bool {
        let Sending { relay, source: Announced { coming, length, waits, .. } } = &**self;
        !coming.is_malformed() && (relay.is_read() || !waits && length.is_some_and(|length| length <= DISCARD))
    }

    fn set_exhausted(&mut self) {
        self.source.exhausted = true;
    }
}

/// What of a request's body is to come over a stream.
pub(in crate::proxy) trait RestOverHttp2: Rest {
    /// Sends on what comes.
    fn poll(&mut self, _cx: &mut Context<'_>, _to: &mut impl RequestSink) -> Poll<Box<Error>> {
        Poll::Pending
    }

    /// Takes note of what comes while it is not sent on.
    fn gather(&mut self, _cx: &mut Context<'_>) {}
}

impl RestOverHttp2 for () {}

impl RestOverHttp2 for Box<Sending<Upload>> {
    fn poll(&mut self, cx: &mut Context<'_>, to: &mut impl RequestSink) -> Poll<Box<Error>> {
        let Sending { relay, source } = &mut **self;
        relay.poll(cx, source, to)
    }

    fn gather(&mut self, cx: &mut Context<'_>) {
        self.source.gather(cx);
    }
}
