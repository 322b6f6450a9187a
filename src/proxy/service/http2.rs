//! A client's connection in HTTP/2: its streams, its bounds, its end.
//!
//! The problem: one connection carries many requests at once, so whatever a client can make the server keep or do, it
//! can do a hundred times at no cost to itself.
//!
//! The rules. At most [`MAX_STREAMS`] requests run at once; a client that resets them to open more waits until the old
//! ones have ended here, too, and one that goes on gets GOAWAY. What is received and not yet passed on is bounded for
//! each stream, for the connection and for all of them (`windows`), what is sent and not yet taken for each stream. A
//! connection without a stream is kept as long as one of HTTP/1: `limits.header_timeout` at first, then
//! `limits.keepalive_timeout`, whatever PING or SETTINGS it sends; it is not idle while the client takes the last of
//! its answers. A body that stalls, in either direction, ends its own stream after the time that HTTP/1 has for it.
//! Everything else (floods of CONTINUATION, PING, SETTINGS, RST_STREAM, empty DATA) the h2 crate bounds, and what small
//! frames of DATA cost that lie there by [`SMALL_FRAMES`]: a client that streams small messages is read in [`Sips`],
//! and what its backend does not take yet is put together, so that it does not get there.
//!
//! At a stop the client is told by GOAWAY, in two steps (RFC 9113 section 6.8): first that no new streams should come,
//! and after a PING has come back, which of them were taken. What came before that is served; nothing is lost on the
//! way. An answer may still lie in this process when its request is done, so the connection stays until the client has
//! taken it.
//!
//! Pingora's own loop for this is private to it, keeps idle connections for ever, and lets its requests run in sessions
//! with other gaps: see `session`.
//!
//! Long because the bounds of one connection depend on each other, and are read as one.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::request::Parts;
use http::{Method, Request, Version};
use pingora_core::protocols::{Digest, Stream};
use pingora_core::server::ShutdownWatch;
use pingora_timeout::timeout;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::proxy::downstream::activity::Busy;
use crate::proxy::downstream::arrival::stopped;
use crate::proxy::downstream::closing::close_and_read;
use crate::proxy::downstream::head::{MAX_HEAD, RequestLine, protocol_name};
use crate::proxy::downstream::http2::request;
use crate::proxy::downstream::http2::sections::UntakenSections;
use crate::proxy::downstream::http2::unseen::{Unseen, UnseenRequest};
use crate::proxy::downstream::http2::upload::Upload;
use crate::proxy::downstream::http2::windows::Windows;
use crate::proxy::downstream::seats::Seat;
use crate::proxy::exchange::asking;
use crate::proxy::exchange::client::ReceivedRequest;
use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::http2::received::{Http2Request, announced, purpose_of};
use crate::proxy::exchange::proxy::CLIENT_TIMEOUT;
use crate::proxy::exchange::scratch::Origin;
use crate::proxy::exchange::takes::Purpose;
use crate::proxy::gate::grpc::AnswerForm;
use crate::proxy::gate::rejection::Rejection;
use crate::proxy::gate::rejection::{LINGER, ToldOfRequest, bytes_of};
use crate::proxy::gate::request_id::RequestId;
use crate::proxy::pingora::loan::{HalfClose, Lender, Loan};
use crate::proxy::service::downstream::{Downstream, EarlyEnd};
use crate::proxy::service::stream_way::StreamWay;
use crate::proxy::wire::request_body::Body;
use crate::upstream::Sips;

/// The most requests of one connection at once; nginx's `http2_max_concurrent_streams`.
const MAX_STREAMS: u32 = 128;
/// What of an answer is taken from its backend before the client has taken it, in bytes.
const SEND_BUFFER: usize = 32 << 10;
/// What small frames may cost that nobody has taken, in bytes.
const SMALL_FRAMES: usize = 3 << 20;
/// Streams that break the protocol, in all, after which the connection has; what the h2 crate would do by itself.
const MAX_BROKEN_STREAMS: usize = 1024;
/// Requests that are refused as malformed, one after the other, after which the connection is. A proxy may bring those
/// of many clients over one connection, and one of them must not cut off the others.
const MAX_MALFORMED: u32 = 32;
/// How long a client without a request has to answer the PING that follows GOAWAY.
const FAREWELL: Duration = Duration::from_millis(500);
/// How long a client whose connection is given up has to take the GOAWAY that says so.
const GIVING_UP: Duration = Duration::from_millis(100);
/// How often it is looked whether a client takes the last of its answers.
const LOOK: Duration = Duration::from_secs(1);

/// What HTTP/2 lets a client do, which may send so many bytes ahead on each stream, and on all of them together.
fn options(stream: u32, connection: u32) -> Builder {
    let mut options = Builder::new();
    options
        .max_concurrent_streams(MAX_STREAMS)
        .initial_window_size(stream)
        .initial_connection_window_size(connection)
        .max_header_list_size(u32::try_from(MAX_HEAD).expect("64 KiB"))
        .max_send_buffer_size(SEND_BUFFER)
        .enable_connect_protocol()
        .data_frame_budget(SMALL_FRAMES)
        .max_local_error_reset_streams(Some(MAX_BROKEN_STREAMS));
    options
}

/// A stream as it comes: the request, and the means to answer it.
type OpenedStream = (Request<RecvStream>, SendResponse<Bytes>);

impl Downstream {
    /// Serves a connection on which HTTP/2 was agreed, to its end. It is `opening` until its first request is there.
    pub(in crate::proxy) async fn serve_http2(
        &self,
        (stream, origin): (Stream, Origin<'_>),
        opening: Busy,
        seat: &Seat,
        shutdown: Arc<ShutdownWatch>,
    ) {
        let limit = self.app.limits().header_timeout;
        let digest = Arc::new(Digest {
            ssl_digest: stream.get_ssl_digest(),
            timing_digest: stream.get_timing_digest(),
            proxy_digest: stream.get_proxy_digest(),
            socket_digest: stream.get_socket_digest(),
        });
        // On loan, so that it can be closed well after h2 has dropped it.
        let stream = (stream, HalfClose::Gone);
        let (loan, lender) = Loan::new(stream, Body::Length(0), BytesMut::new(), self.waited(), Arc::clone(&shutdown));
        loan.set_upgraded();
        let mut stopping = ShutdownWatch::clone(&shutdown);
        let too_late = async {
            stopped(&mut stopping).await;
            sleep(self.patience.get()).await;
        };
        let windows = Windows::new(Arc::clone(&self.budget));
        let window = windows.of_stream();
        let opened = tokio::select! {
            biased;
            opened = timeout(limit, options(window, windows.set()).handshake(Sips::of(loan))) => opened,
            () = too_late => return,
            () = seat.told() => return,
        };
        if let Ok(Ok(connection)) = opened {
            let way = Arc::new(StreamWay {
                app: self.app.clone(),
                sections: Arc::default(),
                tunnels: Arc::clone(&self.tunnels),
                proxy: Arc::clone(&self.proxy),
                shutdown,
                digest,
                secure: origin.secure,
            });
            let (windows, taken) = ((windows, window), &lender);
            let serving = Serving { downstream: self, connection, windows, lender: taken, seat, origin, way };
            let linger = serving.run(opening).await;
            if let Some(returned) = lender.take_back() {
                close_and_read(returned.stream, linger).await;
            }
        }
    }
}

impl Downstream {
    /// What is known of a request that came from there, and comes to nothing now.
    fn early_end<'e>(&self, origin: Origin<'_>, why: &'e str) -> EarlyEnd<'e> {
        EarlyEnd::from(origin.peer, origin.tls_version, why, self.app.arrival())
    }

    /// Records a request that h2 has dealt with, unless it is one of a stream not beyond the `newest`: then it is the
    /// end of a body that was malformed, and the request has its own line.
    #[cold]
    fn record_unseen(&self, unseen: UnseenRequest, newest: u32, origin: Origin<'_>) {
        if unseen.stream.is_none_or(|stream| stream > newest) {
            let line = RequestLine { protocol: protocol_name(Version::HTTP_2), ..RequestLine::UNKNOWN };
            let sent = unseen.is_answered.then(|| (unseen.why.status(), 0));
            self.record_early(EarlyEnd { line, sent, ..self.early_end(origin, &unseen.why.reason()) });
        }
    }
}

/// A request that is to be served.
struct ToServe {
    parts: Box<Parts>,
    body: Upload,
    respond: SendResponse<Bytes>,
    /// What it asks for.
    asks: Purpose,
}

/// A connection that is being served.
struct Serving<'a> {
    downstream: &'a Downstream,
    connection: Connection<Sips<Loan>, Bytes>,
    /// What the client may send ahead, and what it was last told for each stream.
    windows: (Arc<Windows>, u32),
    lender: &'a Lender,
    seat: &'a Seat,
    origin: Origin<'a>,
    way: Arc<StreamWay>,
}

impl Serving<'_> {
    /// Serves its streams until it ends; for how long to read on while it is closed.
    ///
    /// Long because all that can happen to a connection is one choice, of which each branch borrows it.
    async fn run(mut self, opening: Busy) -> Duration {
        let app = &self.downstream.app;
        let (mut opening, mut stopping) = (Some(opening), ShutdownWatch::clone(&self.way.shutdown));
        let (mut streams, windows) = (JoinSet::new(), Arc::clone(&self.windows.0));
        let (mut leaving, mut malformed, mut last) = (false, 0, None);
        let mut patience = Box::pin(sleep(app.limits().header_timeout));
        let mut untaken = Untaken::default();
        let (downstream, origin, mut newest, mut heard) = (self.downstream, self.origin, 0, Vec::new());
        let agreed = loop {
            let (idle, full) = (streams.is_empty(), streams.len() >= MAX_STREAMS as usize);
            let hears = (&mut heard, |unseen| downstream.record_unseen(unseen, newest, origin));
            tokio::select! {
                biased;
                () = stopped(&mut stopping), if last.is_none() => {
                    self.connection.graceful_shutdown();
                    let silent = idle && !self.connection.has_streams() && self.lender.is_flushed();
                    (opening, leaving, last) = (None, true, Some(silent));
                    patience.set(sleep(if silent { FAREWELL } else { LINGER }));
                }
                Some(_) = streams.join_next() => {
                    if streams.is_empty() {
                        self.seat.silent(app.clock().now());
                        patience.set(sleep(if leaving { LINGER } else { app.limits().keepalive_timeout }));
                    }
                }
                opened = next(&mut self.connection, full, (&downstream.unseen, &self.way.sections, self.lender), hears) => {
                    let Some(Ok((request, respond))) = opened else { break true };
                    newest = newest.max(respond.stream_id().into());
                    (opening, untaken) = (None, Untaken::default());
                    self.seat.busy();
                    last = last.map(|_| false);
                    let busy = self.downstream.activity.begin();
                    match self.check(request, respond) {
                        Ok(request) => {
                            malformed = 0;
                            self.serve(request, busy, &mut streams);
                        }
                        Err(body) => {
                            malformed += 1;
                            if malformed >= MAX_MALFORMED {
                                self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                            }
                            streams.spawn(async move {
                                body.discard().await;
                                drop(busy);
                            });
                        }
                    }
                }
                () = windows.changed() => self.set_windows(),
                () = self.seat.told(), if idle => {
                    if self.connection.has_streams() || !self.lender.is_flushed() {
                        // It is not silent while the client takes the last of its answers.
                        self.seat.busy();
                        self.seat.silent(app.clock().now());
                        continue;
                    }
                    self.connection.abrupt_shutdown(Reason::NO_ERROR);
                    let _ = timeout(GIVING_UP, poll_fn(|cx| self.connection.poll_closed(cx))).await;
                    return Duration::ZERO;
                }
                () = patience.as_mut(), if idle => {
                    let streams = self.connection.has_streams();
                    if !untaken.over && (streams || !self.lender.is_flushed()) {
                        // All is answered, and the client has not taken all of it yet.
                        if !untaken.goes_on(self.lender.written(), streams) {
                            break false;
                        }
                        patience.set(sleep(LOOK));
                        continue;
                    }
                    if untaken.ends() {
                        patience.set(sleep(if leaving { FAREWELL } else { app.limits().keepalive_timeout }));
                        continue;
                    }
                    if leaving {
                        break false;
                    }
                    self.connection.graceful_shutdown();
                    leaving = true;
                    patience.set(sleep(FAREWELL));
                }
            }
        };
        drop(opening);
        heard.into_iter().for_each(|unseen| downstream.record_unseen(unseen, newest, origin));
        // Those that are left find that their connection is gone, and say so in the log.
        streams.detach_all();
        match (last, agreed) {
            // The server stops, and nothing is on its way but the client's own goodbye, if it has any manners.
            (Some(true), true) => FAREWELL,
            (Some(true), false) => Duration::ZERO,
            _ => LINGER,
        }
    }

    /// Checks a request, and finds out what it asks for.
    ///
    /// # Errors
    /// The rest of the body of one that was refused.
    fn check(&self, request: Request<RecvStream>, respond: SendResponse<Bytes>) -> Result<ToServe, Box<Upload>> {
        let (mut parts, body) = request.into_parts();
        let body = Upload::new(body, &self.windows.0, announced(&parts.headers), self.downstream.waited());
        match request::rewrite(&mut parts) {
            Ok(()) => {
                let asks = purpose_of(&parts);
                Ok(ToServe { parts: Box::new(parts), body, respond, asks })
            }
            Err(rejection) => {
                let request_id = RequestId::random();
                let site = self.downstream.app.site_answer(rejection);
                let answer = (rejection, rejection.form_for(&parts.headers, site.as_deref()));
                let told = ToldOfRequest { site: site.as_deref(), ..ToldOfRequest::default() };
                let sent = refuse(respond, answer, (&request_id, told), &parts.method);
                let (method, target) = (parts.method.as_str(), parts.uri.path().as_bytes());
                let line = RequestLine { method, target, protocol: protocol_name(parts.version) };
                let (sent, why) = (sent.map(|bytes| (rejection.status(), bytes)), rejection.reason());
                let end = self.downstream.early_end(self.origin, &why);
                self.downstream.record_early(EarlyEnd { line, form: answer.1, request_id, sent, ..end });
                Err(Box::new(body))
            }
        }
    }
}

impl Serving<'_> {
    /// Serves a request among `streams`, or answers one that is not let in.
    fn serve(&self, request: ToServe, busy: Busy, streams: &mut JoinSet<()>) {
        let ToServe { parts, body, respond, asks } = request;
        let (way, origin) = (Arc::clone(&self.way), self.origin);
        let mut ctx = Context::of(way.app.arrival(), origin);
        let part = Http2Request::part(parts, asks);
        let Some(asking) = part.admit(&way.app, origin, &mut ctx) else {
            streams.spawn(way.serve((part.into_parts(), asks), (body, respond), (ctx, busy)));
            return;
        };
        // The connection goes on meanwhile.
        let certificate = origin.certificate.cloned();
        let Origin { peer, secure, tls_version, redirect, .. } = origin;
        streams.spawn(Box::pin(async move {
            let origin = Origin { peer, secure, tls_version, redirect, certificate: certificate.as_ref() };
            asking::decide(asking, (&part, origin), &way.app, &mut ctx).await;
            way.serve((part.into_parts(), asks), (body, respond), (ctx, busy)).await;
        }));
    }

    /// Tells the client what it may send ahead from now on.
    fn set_windows(&mut self) {
        let (windows, told) = &mut self.windows;
        self.connection.set_target_window_size(windows.set());
        let window = windows.of_stream();
        // When it has not answered the last settings yet, it is told later, with the next change.
        if window != *told && self.connection.set_initial_window_size(window).is_ok() {
            *told = window;
        }
    }
}

/// What is answered and still lies here, because the client takes it slowly.
#[derive(Debug, Default)]
struct Untaken {
    /// Bytes of the connection that were taken when it was last looked.
    written: u64,
    /// For how long no more of them were.
    silence: Duration,
    /// Whether it has been taken.
    over: bool,
}

impl Untaken {
    /// Whether to wait for the client on, given that by now, a [`LOOK`] later, it has taken `written` bytes. What is no
    /// part of an answer, of which there are `streams`, is waited for only so long: a client can ask for more of it.
    fn goes_on(&mut self, written: u64, streams: bool) -> bool {
        let silence = if streams && written > self.written { Duration::ZERO } else { self.silence + LOOK };
        (self.written, self.silence) = (written, silence);
        silence <= CLIENT_TIMEOUT
    }

    /// Notes that nothing lies here any more; whether anything did, when last looked.
    fn ends(&mut self) -> bool {
        !std::mem::replace(&mut self.over, true) && self.written > 0
    }
}

/// The next stream of the connection, which moves on meanwhile; while it is `full`, only the latter. `None` at its end.
/// Tells of the requests that h2 has dealt with itself.
async fn next(
    connection: &mut Connection<Sips<Loan>, Bytes>,
    full: bool,
    (unseen, sections, lender): (&Unseen, &UntakenSections, &Lender),
    (heard, tell): (&mut Vec<UnseenRequest>, impl Fn(UnseenRequest)),
) -> Option<Result<OpenedStream, h2::Error>> {
    let mut poll = |cx: &mut task::Context<'_>| match full {
        true => connection.poll_closed(cx).map(|closed| closed.err().map(Err)),
        false => connection.poll_accept(cx),
    };
    let moved = poll_fn(|cx| {
        let waiting = sections.waiting();
        let moved = unseen.heard(|| poll(cx), heard);
        if !heard.is_empty() && !full && !matches!(moved, Poll::Ready(Some(Ok(_)))) {
            // All that was opened has been handed out, so that what was not is known.
            heard.drain(..).for_each(&tell);
        }
        if waiting > 0 && moved.is_pending() && lender.is_flushed() {
            // All that h2 had of them has left.
            sections.taken(waiting);
        }
        moved
    });
    moved.await
}

/// Answers what is not a request, and returns how many bytes of a body that took; none when it could not be sent.
fn refuse(
    mut respond: SendResponse<Bytes>,
    (rejection, form): (Rejection, AnswerForm),
    (id, told): (&RequestId, ToldOfRequest<'_>),
    method: &Method,
) -> Option<usize> {
    let bodiless = *method == Method::HEAD || form == AnswerForm::Grpc;
    let body = rejection.body_of(form, id, told);
    let answer = rejection.header(form, &body, id, told);
    let body = if bodiless { Bytes::new() } else { bytes_of(body) };
    let length = body.len();
    // When the client has reset the stream meanwhile, nobody waits for the answer.
    let sent = respond
        .send_response(answer, bodiless)
        .and_then(|mut writer| if bodiless { Ok(()) } else { writer.send_data(body, true) });
    sent.is_ok().then_some(length)
}

#[cfg(test)]
mod tests;
