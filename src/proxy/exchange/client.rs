//! Who sends a request and gets its answer, in whatever protocol.

use std::task::{Context, Poll};

use bytes::BytesMut;
use h2::Reason;
use http::{HeaderMap, Version};
use pingora_core::{Error, Result};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::limit::PendingAnswers;
use crate::proxy::backend::answer::Answer;
use crate::proxy::backend::body::AnswerBody;
use crate::proxy::backend::sink::RequestSink;
use crate::proxy::backend::stream::RequestFields;
use crate::proxy::downstream::activity::Tunnels;
use crate::proxy::exchange::context::Context as ExchangeContext;
use crate::proxy::exchange::proxy::Proxy;
use crate::proxy::exchange::rest::Rest;
use crate::proxy::exchange::scratch::Origin;
use crate::proxy::gate::admit::{Asked, RequestTarget};
use crate::proxy::gate::headers::Sender;
use crate::proxy::gate::rate_headers::Standings;
use crate::proxy::gate::rejection::Rejection;
use crate::proxy::gate::request_id::RequestId;
use crate::proxy::wire::lines::{Fields, LinesOf};
use crate::tls::CHALLENGE_PATH;
use crate::upstream::Protocol;

/// What a request waits for before it is decided on.
pub(in crate::proxy) enum WaitsFor {
    /// What another node may have been asked by a certificate authority.
    Challenge,
    /// What its buckets hold over all nodes.
    Limits(Box<PendingAnswers>),
}

/// A request, of whose body at least what its client does not [send on](Recipient::rest) is there.
pub(in crate::proxy) trait ReceivedRequest {
    /// Its header.
    fn fields(&self) -> impl Fields;

    /// What it asks for.
    fn target(&self) -> RequestTarget<'_>;

    /// In which version of HTTP it came.
    fn version(&self) -> Version;

    /// Its target as it was asked for, with its query.
    fn asked(&self) -> &[u8];

    /// Its body, as far as it is there.
    fn body(&self) -> &[u8];

    /// The length of all of it, where that is known.
    fn length(&self) -> Option<u64> {
        Some(self.body().len() as u64)
    }

    /// Has it decided whether it is let in, before its way is chosen; see [`Proxy::admit`]. On a listener that sends
    /// everybody to HTTPS it is not, but for what proves to a certificate authority whose name it
    /// is (RFC 8555 section 8.3), which has to work without a certificate. What an authority asks of tollgate itself
    /// is answered on every listener; what it asks of another node, too.
    fn admit(&self, proxy: &Proxy, origin: Origin<'_>, ctx: &mut ExchangeContext) -> Option<WaitsFor> {
        let (path, challenges) = (self.target().path, &proxy.inner.challenges);
        if let Some(answer) = challenges.answer(path) {
            ctx.answer_challenge(&answer);
            return None;
        }
        if challenges.may_be_elsewhere(path) {
            return Some(WaitsFor::Challenge);
        }
        self.let_in(proxy, origin, ctx).map(WaitsFor::Limits)
    }

    /// The same for what no authority asks.
    fn let_in(&self, proxy: &Proxy, origin: Origin<'_>, ctx: &mut ExchangeContext) -> Option<Box<PendingAnswers>> {
        let (fields, target, length) = (self.fields(), self.target(), self.length());
        match origin.redirect.filter(|_| !target.path.starts_with(CHALLENGE_PATH)) {
            Some(port) => {
                proxy.redirect(&fields, (target.host, self.asked()), port, ctx);
                None
            }
            None => proxy.admit(Asked { fields: &fields, target, length, certificate: origin.certificate }, ctx),
        }
    }

    /// Whether it offers to go on in this protocol.
    fn offers(&self, _protocol: &[u8]) -> bool {
        false
    }

    /// Whether an answer of success tells its client that the protocol has changed (RFC 8441 section 5).
    fn tunnels_by_success(&self) -> bool {
        false
    }

    /// Appends the header section that its backend gets, which speaks such a protocol.
    fn write(&self, out: &mut Vec<u8>, to: Protocol, sender: Sender, id: &RequestId);

    /// What a backend of HTTP/2 gets in its place; none when HTTP/2 cannot carry it.
    fn in_fields(&self, sender: Sender, id: &RequestId) -> Option<RequestFields>;
}

/// What a tunnel has of a client: its connection, or a stream of it.
pub(in crate::proxy) trait TunnelStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> TunnelStream for S {}

/// A client's connection, as a tunnel has it.
pub(in crate::proxy) struct TunnelEnds<'c> {
    /// The connection.
    pub(in crate::proxy) stream: &'c mut dyn TunnelStream,
    /// What came over it behind the request.
    pub(in crate::proxy) ahead: &'c mut BytesMut,
    /// Where it counts.
    pub(in crate::proxy) tunnels: &'c Tunnels,
}

/// Who gets the answer. Everything that fails here is the client's doing, unless it says otherwise.
pub(in crate::proxy) trait Recipient: Send {
    /// What of the request's body is to come.
    type Rest: Rest;

    /// What of the request's body is to come.
    fn rest(&mut self) -> &mut Self::Rest;

    /// Takes note of what comes of the request's body while it has no backend.
    fn gather(&mut self, _cx: &mut Context<'_>) {}

    /// The most that may be read of an answer before the client has taken what came before.
    fn reads_ahead(&self) -> usize {
        usize::MAX
    }

    /// Does what is to be done while an answer is waited for: sends on what comes of the body to the backend, and waits
    /// until the client goes. It may be called again after anything else was.
    fn poll_meanwhile(&mut self, cx: &mut Context<'_>, to: &mut impl RequestSink) -> Poll<Box<Error>>;

    /// Whether it takes the header of an answer in fields, too.
    const TAKES_FIELDS: bool = false;

    /// Takes the header of an answer that has come in `fields`, as [`head`](Self::head) does, when it takes such.
    ///
    /// # Errors
    /// When the client is gone.
    fn head_in_fields(&mut self, _answer: &Answer, _fields: HeaderMap, _standing: Option<Standings<'_>>) -> Result<()> {
        Err(Error::new_str("a client that takes no fields"))
    }

    /// Takes the header of an answer, which is in `bytes`. An interim one is sent, a final one with the body's first
    /// part.
    fn head(
        &mut self,
        answer: &Answer,
        bytes: &[u8],
        lines: LinesOf<'_>,
        standing: Option<Standings<'_>>,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Sends what `buffer` has of the body, and the end of the body after its last part, with the trailers behind it;
    /// how many bytes of the body
    /// that were. Fails with an error of the backend's when its body is malformed; nothing of `buffer` is sent then.
    /// What comes of the request's body meanwhile goes `to` the backend.
    fn pass(
        &mut self,
        body: &mut AnswerBody,
        buffer: &mut BytesMut,
        to: &mut impl RequestSink,
    ) -> impl Future<Output = Result<usize>> + Send;

    /// Sends on what still comes of a body whose answer is whole, for as long as it comes.
    fn finish(&mut self, to: &mut impl RequestSink) -> impl Future<Output = Result<()>> + Send;

    /// Its connection, when it has one of its own that can become a tunnel.
    fn ends(&mut self) -> Option<TunnelEnds<'_>> {
        None
    }

    /// Sends an answer of our own, when none has begun; how many bytes of a body it has.
    fn reject(
        &mut self,
        rejection: Rejection,
        ctx: &ExchangeContext,
        with_body: bool,
    ) -> impl Future<Output = Result<usize>> + Send;

    /// Lets the client know that the answer, if it has begun, goes no further; and why, where there is room for it.
    fn break_off(&mut self, reason: Reason);

    /// Whether it can be told by [`break_off`](Self::break_off) alone, before an answer has begun.
    fn knows_resets(&self) -> bool {
        false
    }

    /// Why it gave its request up, if it said so.
    fn gave_up(&self) -> Option<Reason> {
        None
    }
}
