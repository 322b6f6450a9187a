//! A connection to a backend, as Pingora's request loop has it for one request.
//!
//! The problem: Pingora reads a backend's answer by rules of its own, which are not those of the direct way. It tells a
//! client of HTTP/1.1 what a backend of HTTP/1.0 said word for word, passes framing lines on where there is nothing to
//! frame, forgives what two readers can understand differently, and keeps a header in a map, out of order.
//!
//! The rule: Pingora never sees what the backend said. A [`BackendSide`] reads the answer as the direct way does, by
//! the same functions, and gives Pingora one of HTTP/1.1 in which nothing is in doubt: one length or chunks, no line
//! that counts for the backend's connection only. What is no answer is a failed read. A body that turns out to be none
//! together with its header is no answer either. Of the request that Pingora writes, the lines are put back where they
//! were.
//!
//! Both ways keep their idle connections in the same place: it is this side that knows whether an exchange is over on
//! both sides, so Pingora's own pool holds none.
//!
//! Long because what goes to a backend and what comes back are one connection, whose halves know each other.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora_core::connectors::L4Connect;
use pingora_core::protocols::l4::socket::SocketAddr as PeerAddress;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora_core::{Error, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use crate::proxy::backend::answer::{Answer, parse};
use crate::proxy::backend::body::{AnswerBody, LAST_CHUNK, Unmeasured};
use crate::proxy::exchange::course::Course;
use crate::proxy::exchange::proxy::Proxy;
use crate::proxy::exchange::run::FIRST_READ;
use crate::proxy::gate::changes::Rewriting;
use crate::proxy::wire::chunked::Chunked;
use crate::proxy::wire::lines::length_of;
use crate::proxy::wire::lines::{Lines, is};
use crate::proxy::wire::order::{behind_first_line, in_order, lines};
use crate::proxy::wire::request_body::Body;
use crate::proxy::wire::rewrite::Rewriter;
use crate::upstream::{BackendStream, ClientEnds, Link, Reached, Site, Timeouts, Wanted};

/// What is read of a long body at once, in bytes.
const LONG_READ: usize = 64 << 10;

/// The lines that are ours in a request, in their order and spelling. Over HTTP/2 Pingora has all names in lower case.
const OURS: [&[u8]; 8] = [
    b"Content-Length",
    b"Transfer-Encoding",
    b"X-Forwarded-For",
    b"X-Real-IP",
    b"X-Forwarded-Proto",
    b"X-Forwarded-Host",
    b"X-Request-Id",
    b"traceparent",
];
/// Those of them that may be the client's, and those that may be a trusted proxy's.
const FROM_CLIENT: [&[u8]; 2] = [b"Content-Length", b"Transfer-Encoding"];
const FROM_TRUSTED: [&[u8]; 4] = [b"Content-Length", b"Transfer-Encoding", b"X-Forwarded-Proto", b"X-Forwarded-Host"];

/// How Pingora gets a connection for one attempt.
pub(in crate::proxy) struct Dial {
    /// Knows where idle connections are, and the time.
    pub(in crate::proxy) proxy: Proxy,
    /// Where the backend is.
    pub(in crate::proxy) site: Arc<Site>,
    /// What connection it must be.
    pub(in crate::proxy) wanted: Wanted,
    /// How long each step may take.
    pub(in crate::proxy) timeouts: Timeouts,
    /// Whether the request is a HEAD.
    pub(in crate::proxy) to_head: bool,
    /// Whether the sender's word about whom it sends for counts.
    pub(in crate::proxy) trusted: bool,
    /// Whether the backend is told of a trace.
    pub(in crate::proxy) traced: bool,
    /// Whether the client is told how its bucket stands.
    pub(in crate::proxy) limited: bool,
    /// How the exchange goes.
    pub(in crate::proxy) course: Arc<Course>,
    /// What is changed of the request and of its answer.
    pub(in crate::proxy) rewriting: Option<Rewriting>,
}

impl std::fmt::Debug for Dial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dial").field("site", &self.site).finish_non_exhaustive()
    }
}

#[async_trait]
impl L4Connect for Dial {
    async fn connect(&self, _: &PeerAddress) -> Result<Stream> {
        let now = self.proxy.clock().now();
        let Reached { link, idled } = self.proxy.transport().reach(&self.site, now, self.wanted.clone()).await?;
        let Link::Alone(stream) = link else {
            return Err(Error::new_str("a stream in place of a connection").into_in());
        };
        idled.into_iter().for_each(|idled| self.course.set_idled(idled));
        let side = BackendSide {
            proxy: self.proxy.clone(),
            site: Arc::clone(&self.site),
            whose: self.wanted.whose.clone(),
            timeouts: self.timeouts,
            answers: Answers::new(self.to_head, self.limited),
            requests: Requests { head: Rewriter::default(), body: None, trusted: self.trusted, traced: self.traced },
            rewriting: self.rewriting.clone(),
            course: Arc::clone(&self.course),
            connection: Some(stream),
        };
        Ok(Stream::from(VirtualSocketStream::new(Box::new(side))))
    }
}

/// One connection while it has its request.
struct BackendSide {
    proxy: Proxy,
    site: Arc<Site>,
    whose: Option<Box<ClientEnds>>,
    timeouts: Timeouts,
    answers: Answers,
    requests: Requests,
    rewriting: Option<Rewriting>,
    course: Arc<Course>,
    /// `None` only while being dropped.
    connection: Option<BackendStream>,
}

/// What comes from the backend.
struct Answers {
    stage: AnswerStage,
    /// What was read and not looked at yet.
    read: BytesMut,
    /// What Pingora is to read.
    ready: Vec<u8>,
    /// How much of that it has read.
    taken: usize,
    lines: Lines,
    to_head: bool,
    limited: bool,
    /// Whether the backend keeps its connection after the answer.
    keeps: bool,
    /// How long it says that it does.
    keep_alive: Option<Duration>,
    /// When the answer began and ended.
    began: Option<Instant>,
    ended: Option<Instant>,
    /// Why what follows is no answer, if it is none.
    no_answer: Option<&'static str>,
}

/// How far the answer has come.
enum AnswerStage {
    Head,
    Body(AnswerBody),
    Over,
}

/// What goes to the backend.
struct Requests {
    /// Its header section, on its way.
    head: Rewriter,
    /// What of its body is still to come from Pingora; `None` while the header section is.
    body: Option<Body>,
    trusted: bool,
    traced: bool,
}

impl Answers {
    fn new(to_head: bool, limited: bool) -> Self {
        let (read, ready, lines) = (BytesMut::new(), Vec::new(), Lines::default());
        Answers {
            stage: AnswerStage::Head,
            read,
            ready,
            taken: 0,
            lines,
            to_head,
            limited,
            keeps: false,
            keep_alive: None,
            began: None,
            ended: None,
            no_answer: None,
        }
    }

    /// Makes of what was read until `now` what Pingora gets; an error says why it is no answer.
    fn digest(&mut self, course: &Course, now: Instant, rewriting: Option<&Rewriting>) -> Result<(), &'static str> {
        // The final header leaves together with what of its body came with it, or not at all.
        let mut head = Vec::new();
        while let AnswerStage::Head = self.stage {
            let answer = parse(&self.read, &mut self.lines, self.to_head)?;
            let Some(answer) = answer else { break };
            if answer.switches() {
                // Who asks for another protocol does not go this way.
                return Err("a 101 that nobody asked for");
            }
            self.begin(&answer, &mut head, course, rewriting);
            self.read.advance(answer.end);
            if answer.is_interim() {
                self.ready.append(&mut head);
            } else {
                (self.keeps, self.keep_alive, self.began) = (answer.keeps, answer.keep_alive, Some(now));
                self.stage = AnswerStage::Body(answer.body);
            }
        }
        if let AnswerStage::Body(body) = &mut self.stage {
            body.take(&mut self.read, &mut head, Unmeasured::InChunks).map_err(|_| "a malformed body")?;
            if body.is_done() {
                (self.stage, self.ended) = (AnswerStage::Over, Some(now));
            }
        }
        self.ready.append(&mut head);
        Ok(())
    }

    fn begin(&self, answer: &Answer, head: &mut Vec<u8>, course: &Course, rewriting: Option<&Rewriting>) {
        let (from, lines, how) = (head.len(), self.lines.of(&self.read), (self.limited, false));
        match answer.changed(lines, &self.read, rewriting) {
            None => answer.begin(head, &self.read, lines, how),
            Some(changed) => changed.answer.begin(head, &changed.bytes, changed.lines(), how),
        }
        head.extend_from_slice(b"\r\n");
        course
            .add_answer(behind_first_line(&head[from..]).to_vec(), rewriting.and_then(|it| it.costs(|| lines.iter())));
    }

    /// Gives Pingora what is there; whether anything was.
    fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let left = &self.ready[self.taken..];
        let part = left.len().min(buf.remaining());
        buf.put_slice(&left[..part]);
        self.taken += part;
        if self.taken == self.ready.len() {
            self.ready.clear();
            self.taken = 0;
        }
        part > 0
    }

    /// Takes note of the end of the connection; whether it is the end of the answer.
    fn end(&mut self) -> bool {
        let over = matches!(&self.stage, AnswerStage::Body(AnswerBody::UntilEnd(_)));
        if over {
            self.ready.extend_from_slice(LAST_CHUNK);
            self.stage = AnswerStage::Over;
        }
        over
    }
}

impl Requests {
    /// Takes what Pingora writes of the header section; how much of `bytes` that is.
    fn head(&mut self, bytes: &[u8], course: &Course, rewriting: Option<&Rewriting>) -> Option<usize> {
        if self.body.is_some() {
            return None;
        }
        let kept = if self.trusted { &FROM_TRUSTED[..] } else { &FROM_CLIENT[..] };
        // What the client says of a trace is its own where nobody else says anything of one.
        let ours = &OURS[..OURS.len() - usize::from(!self.traced)];
        let (part, _) = self.head.take(bytes, |head| {
            self.body = Some(body(head));
            let mut head = in_order(head, &course.take_request(), ours, kept);
            if let Some(rewriting) = rewriting {
                rewriting.request(&mut head);
            }
            head
        });
        Some(part)
    }

    /// Whether all of the request has left.
    fn is_over(&self) -> bool {
        self.head.unsent() == 0 && self.body.as_ref().is_some_and(Body::is_done)
    }
}

/// The body that a request which Pingora wrote announces.
fn body(head: &[u8]) -> Body {
    let mut body = Body::Length(0);
    for (name, value) in lines(behind_first_line(head)) {
        if is(name, b"transfer-encoding") {
            return Body::Chunked(Chunked::new());
        }
        if is(name, b"content-length") {
            // What is none was refused long before; and here it is only asked whether the body is over.
            body = Body::Length(length_of(value).unwrap_or(u64::MAX));
        }
    }
    body
}

impl BackendSide {
    fn connection(&mut self) -> Pin<&mut BackendStream> {
        Pin::new(self.connection.as_mut().expect("it is taken only by drop"))
    }

    /// Sends the header section, as far as it is there.
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let connection = self.connection.as_mut().expect("it is taken only by drop");
        self.requests.head.poll_send(cx, Pin::new(connection))
    }

    /// Reads on; 0 at the end of the connection.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let room = if let AnswerStage::Body(_) = self.answers.stage { LONG_READ } else { FIRST_READ };
        let read = &mut self.answers.read;
        if read.capacity() == read.len() {
            read.reserve(room);
        }
        let connection = self.connection.as_mut().expect("it is taken only by drop");
        // It keeps nothing from one poll to the next.
        pin!(connection.read_buf(read)).poll(cx)
    }
}

impl AsyncRead for BackendSide {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let side = self.get_mut();
        loop {
            if side.answers.give(buf) {
                return Poll::Ready(Ok(()));
            }
            if let Some(why) = side.answers.no_answer {
                side.course.set_no_answer(why);
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            match side.answers.stage {
                // Nothing more comes of this exchange, so Pingora has no use for the connection.
                AnswerStage::Over => return Poll::Ready(Ok(())),
                AnswerStage::Head | AnswerStage::Body(_) => {}
            }
            if ready!(side.poll_more(cx))? == 0 {
                if side.answers.end() {
                    continue;
                }
                return Poll::Ready(Ok(()));
            }
            side.course.set_heard();
            let now = side.proxy.clock().now();
            // What came before it is passed on first.
            side.answers.no_answer = side.answers.digest(&side.course, now, side.rewriting.as_ref()).err();
        }
    }
}

impl AsyncWrite for BackendSide {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let side = self.get_mut();
        if let Some(part) = side.requests.head(bytes, &side.course, side.rewriting.as_ref()) {
            return Poll::Ready(Ok(part));
        }
        ready!(side.poll_unsent(cx))?;
        let sent = ready!(side.connection().poll_write(cx, bytes))?;
        if let Some(body) = &mut side.requests.body
            && body.follow(&bytes[..sent]).is_err()
        {
            // What Pingora writes is one. If it were none, the connection would not be used again.
            *body = Body::Length(u64::MAX);
        }
        Poll::Ready(Ok(sent))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let side = self.get_mut();
        ready!(side.poll_unsent(cx))?;
        side.connection().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let side = self.get_mut();
        side.answers.keeps = false;
        side.connection().poll_shutdown(cx)
    }
}

impl VirtualSocket for BackendSide {
    fn set_socket_option(&self, _: VirtualSockOpt) -> io::Result<()> {
        // What is needed was set when it was connected.
        Ok(())
    }
}

impl std::fmt::Debug for BackendSide {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackendSide").field("site", &self.site).finish_non_exhaustive()
    }
}

impl Drop for BackendSide {
    fn drop(&mut self) {
        // What is left was not asked for, and who knows what follows it.
        let answered =
            matches!(self.answers.stage, AnswerStage::Over) && self.answers.keeps && self.answers.read.is_empty();
        if let Some(connection) = self.connection.take()
            && answered
            && self.requests.is_over()
            && let Some(times) = self.answers.began.zip(self.answers.ended)
        {
            let (site, said, longest) = ((&self.site, self.whose.take()), self.answers.keep_alive, self.timeouts.idle);
            self.proxy.transport().keep(site, connection, times, said, longest);
        }
    }
}
