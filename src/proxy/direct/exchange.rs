//! One request from its admission to the last byte of its answer.

use std::net::SocketAddr;

use bytes::Buf;
use pingora_core::protocols::http::date::get_cached_date;
use pingora_core::server::ShutdownWatch;
use pingora_core::{Error, ErrorSource, ErrorType, Result};

use super::answer::{self, Added, Answer};
use super::backend::{Backend, Watched, connect};
use super::{Desk, Idle, Origin, Whole, request};
use crate::proxy::failure::rejection_for;
use crate::proxy::headers::{Sender, X_REQUEST_ID};
use crate::proxy::lines::Fields;
use crate::proxy::loan::is_stopping;
use crate::proxy::{Asked, CLIENT_TIMEOUT, Context, Proxy, Rejection, RequestId, counts, refused};
use crate::upstream::Timeouts;

/// What is read of an answer at first, in bytes.
const FIRST_READ: usize = 8 << 10;
/// What is read at once of a long answer.
const LONG_READ: usize = 64 << 10;
/// The same while nobody knows how long it is; it is copied, so it should stay in the cache.
const UNKNOWN_READ: usize = 16 << 10;
/// The most of a body that is copied to leave together with its header.
const COPIED: usize = 16 << 10;

/// One request on its way.
pub(super) struct Exchange<'e> {
    pub(super) proxy: &'e Proxy,
    pub(super) idle: &'e Idle,
    pub(super) watched: Watched<'e>,
    pub(super) desk: &'e mut Desk,
    pub(super) request: &'e Whole<'e>,
    pub(super) progress: Progress,
    /// True when the server stops.
    pub(super) shutdown: &'e ShutdownWatch,
    /// Whether the client's connection stays.
    pub(super) keeps: bool,
}

/// How far the answer has come.
#[derive(Default)]
pub(super) struct Progress {
    /// The status of the final answer, once some of it was sent; 0 before.
    pub(super) status: u16,
    /// Bytes of its body that the client was sent.
    pub(super) bytes_out: u64,
    /// Whether a backend has said anything.
    heard: bool,
}

/// An attempt came to nothing.
struct Failure {
    error: Box<Error>,
    /// Whether there is to be another one.
    again: bool,
}

impl From<Box<Error>> for Failure {
    fn from(error: Box<Error>) -> Self {
        Failure { error, again: false }
    }
}

impl Exchange<'_> {
    /// Serves it.
    ///
    /// # Errors
    /// What went wrong, for the log; the client has its answer, if it can have one.
    pub(super) async fn run(&mut self, ctx: &mut Context, origin: Origin) -> Result<()> {
        match self.admit(ctx) {
            Ok(()) => self.serve(ctx, origin).await,
            Err(rejection) => self.reject(rejection, ctx).await,
        }
    }

    /// Whether it is let in.
    fn admit(&self, ctx: &mut Context) -> Result<(), Rejection> {
        let (lines, target) = (self.request.lines(), self.request.target());
        let length = Some(self.request.body().len() as u64);
        let outcome = self.proxy.admit(Asked { fields: &lines, target, length }, ctx);
        counts::decided(self.proxy.tally(), ctx);
        if ctx.behind_proxy()
            && let Some(given) = lines.all_of(&X_REQUEST_ID).next().and_then(RequestId::given)
        {
            ctx.request_id = given;
        }
        if let Err(rejection) = outcome
            && let Some(refused) = refused::of(target, ctx, rejection)
        {
            self.proxy.inner.decisions.record(refused);
        }
        outcome
    }

    /// Answers it with `rejection`. Nothing is wrong with the connection: the request was there as a whole.
    async fn reject(&mut self, rejection: Rejection, ctx: &mut Context) -> Result<()> {
        ctx.rejection = Some(rejection);
        self.keeps &= !is_stopping(self.shutdown);
        self.desk.answer.clear();
        let (standing, with_body) = (ctx.told_standing(), self.request.method() != b"HEAD");
        let body = rejection.append(&mut self.desk.answer, &ctx.request_id, standing, self.keeps, with_body);
        self.progress.status = rejection.status().as_u16();
        self.send().await?;
        self.progress.bytes_out = body as u64;
        Ok(())
    }

    /// Has a backend answer it, or answers it where none does.
    async fn serve(&mut self, ctx: &mut Context, origin: Origin) -> Result<()> {
        let sender = Sender { peer: origin.peer, trusted: ctx.behind_proxy(), secure: origin.secure };
        self.desk.request.clear();
        request::write(&mut self.desk.request, self.request, sender, &ctx.request_id);
        let error = loop {
            match self.attempt(ctx).await {
                Ok(()) => return Ok(()),
                Err(Failure { error, again: false }) => break error,
                Err(Failure { again: true, .. }) => {}
            }
        };
        match ctx.rejection.or_else(|| rejection_for(&error)) {
            // When this fails the client is gone, which the access log says.
            Some(rejection) if self.progress.status == 0 => drop(self.reject(rejection, ctx).await),
            // The client gets no answer, or not all of it, which only the end of the connection can tell it.
            _ => self.keeps = false,
        }
        Err(error)
    }

    /// Gives it to one backend.
    async fn attempt(&mut self, ctx: &mut Context) -> Result<(), Failure> {
        let Some((timeouts, retry_after)) = ctx.pool().map(|pool| (pool.settings().timeouts, pool.retry_after()))
        else {
            return Err(Error::new_str("a request that was not let in has no pool").into());
        };
        let Some(address) = ctx.lease().map(|lease| lease.backend().address()) else {
            ctx.rejection = Some(Rejection::NoHealthyBackend(retry_after));
            return Err(Error::explain(ErrorType::HTTPStatus(503), "no healthy backend is left").into());
        };
        counts::attempted(ctx);
        // One that died on a kept connection gets a new one.
        let kept = if ctx.resent.is_none() { self.idle.take(address, self.proxy.clock().now()) } else { None };
        let reused = kept.is_some();
        let connection = match kept {
            Some(connection) => connection,
            None => match connect(address, timeouts.connect).await {
                Ok(connection) => connection,
                Err(error) => return Err(Failure { again: self.proxy.not_connected(ctx, &error), error }),
            },
        };
        if let (false, Some(lease)) = (reused, &ctx.lease) {
            lease.backend().connected();
        }
        let outcome = self.exchange(Backend::new(connection, FIRST_READ), address, &timeouts, ctx).await;
        outcome.map_err(|error| {
            let repeatable = reused && !self.progress.heard && request::is_idempotent(self.request.method());
            Failure { again: self.proxy.broke_off(ctx, &error, repeatable), error }
        })
    }

    /// Sends it to `backend` and passes the answer on.
    async fn exchange(
        &mut self,
        mut backend: Backend,
        address: SocketAddr,
        timeouts: &Timeouts,
        ctx: &Context,
    ) -> Result<()> {
        let sent = backend.send(&self.desk.request, self.request.body(), timeouts.write).await;
        if sent.as_ref().is_err_and(|error| *error.etype() == ErrorType::WriteTimedout) {
            return sent;
        }
        // A backend that closes before it has read everything may have answered all the same.
        let mut answer = match (self.answer(&mut backend, timeouts, ctx).await, sent) {
            (Err(error), Err(first)) if *error.esource() == ErrorSource::Upstream => return Err(first),
            (answer, sent) => {
                let mut answer = answer?;
                answer.keeps &= sent.is_ok();
                answer
            }
        };
        self.pass_on(&mut backend, &mut answer, timeouts).await?;
        // What is left was not asked for, and who knows what follows it.
        if answer.keeps && backend.is_sent() && backend.buffer.is_empty() && !timeouts.idle.is_zero() {
            self.idle.put(address, backend.connection, self.proxy.clock().now() + timeouts.idle);
        }
        Ok(())
    }

    /// Reads the header of the final answer and lays the client's on the desk. Interim answers are passed on.
    async fn answer(&mut self, backend: &mut Backend, timeouts: &Timeouts, ctx: &Context) -> Result<Answer> {
        let to_head = self.request.method() == b"HEAD";
        let no_answer = |why: &'static str| Error::explain(ErrorType::InvalidHTTPHeader, why).into_up();
        self.desk.answer.clear();
        loop {
            if backend.buffer.capacity() == backend.buffer.len() {
                backend.buffer.reserve(FIRST_READ);
            }
            let read = backend.read(&mut self.watched, timeouts.read).await?;
            if read == 0 {
                return Err(Error::explain(ErrorType::ConnectionClosed, "reading an answer").into_up());
            }
            self.progress.heard = true;
            // What comes byte by byte is parsed once for each line, not once for each byte.
            let seen = backend.buffer.len() - read;
            if seen > 0 && seen < answer::MAX_ANSWER_HEAD && !backend.buffer[seen..].contains(&b'\n') {
                continue;
            }
            let Desk { answer: out, lines, .. } = &mut *self.desk;
            while let Some(answer) = answer::parse(&backend.buffer, lines, to_head).map_err(no_answer)? {
                if answer.status == 101 {
                    return Err(no_answer("a 101 that nobody asked for"));
                }
                let date = get_cached_date();
                self.keeps &= !is_stopping(self.shutdown);
                let added = Added { standing: ctx.told_standing(), date: date.as_bytes(), keeps: self.keeps };
                answer.write(out, &backend.buffer, lines.of(&backend.buffer), added);
                backend.buffer.advance(answer.end);
                if !answer.is_interim() {
                    return Ok(answer);
                }
            }
            if !self.desk.answer.is_empty() {
                self.send().await?;
            }
        }
    }

    /// Passes the body on, and before it what is on the desk.
    async fn pass_on(&mut self, backend: &mut Backend, answer: &mut Answer, timeouts: &Timeouts) -> Result<()> {
        loop {
            let ready = answer.body.left().unwrap_or_default().min(backend.buffer.len());
            let bytes = if ready > COPIED {
                self.progress.status = answer.status;
                self.send().await?;
                self.watched.send(&backend.buffer[..ready], CLIENT_TIMEOUT).await?;
                answer.body.skip(&mut backend.buffer, ready);
                ready
            } else {
                let malformed = |_| Error::explain(ErrorType::InvalidHTTPHeader, "a malformed body").into_up();
                answer.body.take(&mut backend.buffer, &mut self.desk.answer).map_err(malformed)?
            };
            self.progress.status = answer.status;
            self.send().await?;
            self.progress.bytes_out += bytes as u64;
            if answer.body.is_done() {
                return Ok(());
            }
            backend.buffer.reserve(answer.body.left().map_or(UNKNOWN_READ, |left| left.min(LONG_READ)));
            if backend.read(&mut self.watched, timeouts.read).await? == 0 {
                if answer.body.ends_here(&mut self.desk.answer) {
                    return self.send().await;
                }
                return Err(Error::explain(ErrorType::ConnectionClosed, "reading an answer").into_up());
            }
        }
    }

    /// Sends the client what is on the desk.
    async fn send(&mut self) -> Result<()> {
        let sent = self.watched.send(&self.desk.answer, CLIENT_TIMEOUT).await;
        self.desk.answer.clear();
        let flushed = match sent {
            Ok(()) => self.watched.flush(CLIENT_TIMEOUT).await,
            Err(error) => Err(error),
        };
        self.keeps &= flushed.is_ok();
        flushed
    }
}
