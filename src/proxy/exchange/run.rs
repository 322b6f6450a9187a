//! One request from its admission to its log line, whatever its client speaks.

mod heard;
mod queue;
mod unended;

use std::future::poll_fn;
use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use h2::Reason;
use pingora_core::{Error, ErrorSource, ErrorType, Result};

use crate::proxy::backend::answer::Answer;
use crate::proxy::backend::body::AnswerBody;
use crate::proxy::backend::connection::{BackendConnection, BackendLink};
use crate::proxy::backend::stream::{is_unprocessed, reset_by};
use crate::proxy::exchange::client::{ReceivedRequest, Recipient};
use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::counts;
use crate::proxy::exchange::failure::{is_timeout, rejection_for};
use crate::proxy::exchange::outcome::{Break, fails_by_its_body};
use crate::proxy::exchange::progress::{AfterExchange, AnswerProgress, AttemptFailure};
use crate::proxy::exchange::proxy::Proxy;
use crate::proxy::exchange::relay::Relay;
use crate::proxy::exchange::rest::Rest;
use crate::proxy::exchange::scratch::BackendScratch;
use crate::proxy::exchange::tunnel;
use crate::proxy::exchange::tunnel::TunnelEnd;
use crate::proxy::exchange::{grpc, request};
use crate::proxy::gate::changes::Rewriting;
use crate::proxy::gate::grpc::is_grpc;
use crate::proxy::gate::headers::Sender;
use crate::proxy::gate::rejection::Rejection;
use crate::upstream::{Protocol, Reached, Timeouts, Wanted};

/// What is read of an answer at first, in bytes.
pub(in crate::proxy) const FIRST_READ: usize = 8 << 10;
/// What is read at once of a long answer.
const LONG_READ: usize = 64 << 10;
/// The same while nobody knows how long it is; it is copied, so it should stay in the cache.
const UNKNOWN_READ: usize = 16 << 10;

/// Longer than anybody waits for anything.
const FOREVER: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// One request on its way.
pub(in crate::proxy) struct Exchange<'e, R, C> {
    proxy: &'e Proxy,
    request: &'e R,
    client: C,
    scratch: &'e mut BackendScratch,
    progress: AnswerProgress,
    /// What is changed of the request and of its answer; most often nothing.
    rewriting: Option<Box<Rewriting>>,
    /// Who sends it, where its backend gets it in fields; else it is in the scratch, in bytes.
    in_fields: Option<Sender>,
}

impl<'e, R: ReceivedRequest, C: Recipient> Exchange<'e, R, C> {
    /// An exchange that has not begun.
    pub(in crate::proxy) fn new(proxy: &'e Proxy, request: &'e R, client: C, scratch: &'e mut BackendScratch) -> Self {
        let (progress, rewriting, in_fields) = (AnswerProgress::default(), None, None);
        Exchange { proxy, request, client, scratch, progress, rewriting, in_fields }
    }

    /// Serves the request, or answers it as its context says, counts it and logs it. Whatever goes wrong, the client
    /// has its answer, if it can have one. Returns its client.
    pub(in crate::proxy) async fn run(mut self, ctx: &mut Context, secure: bool) -> C {
        if let Some(trace) = &mut ctx.trace {
            trace.secure = Some(secure);
        }
        self.run_to_its_end(ctx, secure).await;
        self.client
    }

    /// Answers it with `rejection`.
    async fn reject(&mut self, rejection: Rejection, ctx: &mut Context) -> Result<()> {
        self.proxy.choose_words(rejection, &self.request.fields(), ctx);
        self.progress.status = rejection.status().as_u16();
        let with_body = self.request.target().method != "HEAD";
        self.progress.bytes_out = self.client.reject(rejection, ctx, with_body).await? as u64;
        Ok(())
    }

    /// Has a backend answer it, or answers it where none does.
    async fn serve(&mut self, ctx: &mut Context, secure: bool) -> Result<()> {
        self.scratch.request.clear();
        let (protocol, sender) = (ctx.protocol(), ctx.sender(secure));
        self.rewriting = ctx.rewriting(secure).map(Box::new);
        self.in_fields = (protocol == Protocol::Http2 && self.rewriting.is_none()).then_some(sender);
        if self.in_fields.is_none() {
            self.request.write(&mut self.scratch.request, protocol, sender, &ctx.request_id);
        }
        if let Some(rewriting) = &self.rewriting {
            rewriting.request(&mut self.scratch.request);
        }
        let error = loop {
            match self.attempt(ctx).await {
                Ok(()) => return Ok(()),
                Err(AttemptFailure { error, again: false }) => break error,
                Err(AttemptFailure { again: true, .. }) => {}
            }
        };
        let reset = reset_by(&error).filter(|_| *error.esource() == ErrorSource::Upstream);
        let passes = reset.is_some() && self.client.knows_resets() && is_grpc(&self.request.fields());
        match ctx.rejection.or_else(|| rejection_for(&error)) {
            // When this fails the client is gone, which the access log says.
            Some(rejection) if self.progress.status == 0 && !passes => drop(self.reject(rejection, ctx).await),
            // The client gets no answer, or not all of it, which only the end of its connection or stream can tell it.
            _ => self.client.break_off(reset.unwrap_or(Reason::INTERNAL_ERROR)),
        }
        Err(error)
    }

    /// Gives it to one backend.
    ///
    /// Long because it is one exchange from its connection to its answer, step by step.
    async fn attempt(&mut self, ctx: &mut Context) -> Result<(), AttemptFailure> {
        let Some(timeouts) = ctx.timeouts() else {
            return Err(Error::new_str("a request that was not let in has no pool").into());
        };
        if let Some(relay) = self.client.rest().relay()
            && let Err(error) = relay.bound(ctx.admission.max_body, timeouts.write)
        {
            ctx.rejection = relay.rejection();
            return Err(error.into());
        }
        (self.progress.unsent, self.progress.heard) = (false, false);
        if ctx.lease(self.proxy.clock()).is_none() {
            // Boxed, since the memory of any connection is that of the largest state it can be in.
            Box::pin(self.wait_for_backend(ctx)).await?;
            ctx.lease(self.proxy.clock());
        }
        let Some(lease) = &ctx.lease else {
            return Err(Error::new_str("a backend that came free is gone").into());
        };
        counts::attempted(ctx);
        if let Some(rewriting) = &mut self.rewriting {
            rewriting.tell(ctx.new_token());
        }
        let idempotent = request::is_idempotent(self.request.target().method);
        let site = lease.backend().site();
        let wanted = Wanted {
            fresh: ctx.fresh,
            sent_again: ctx.outlives_connections(idempotent),
            limit: timeouts.connect,
            idle: timeouts.idle,
            whose: ctx.whose(site),
        };
        let reached = {
            let mut reaching = pin!(self.proxy.transport().reach(site, self.proxy.clock().now(), wanted));
            poll_fn(|cx| {
                self.client.gather(cx);
                reaching.as_mut().poll(cx)
            })
            .await
        };
        let link = match reached {
            Ok(Reached { link, idled }) => {
                if idled.is_none() {
                    lease.backend().connected();
                }
                ctx.idled = idled;
                link
            }
            Err(error) => {
                ctx.idled = None;
                return Err(AttemptFailure { again: self.proxy.not_connected(ctx, &error), error });
            }
        };
        let outcome = self.exchange(BackendConnection::new(link, FIRST_READ), &timeouts, ctx).await;
        if outcome.is_ok() && std::mem::take(&mut self.progress.again) {
            let error = Error::explain(ErrorType::HTTPStatus(502), "another backend is asked").into_up();
            return Err(AttemptFailure { error, again: true });
        }
        outcome.map_err(|error| {
            let relay = self.client.rest().relay();
            let is_kept = relay.as_ref().is_none_or(|relay| relay.is_kept());
            if let Some(relay) = relay
                && fails_by_its_body(relay, &error, ctx)
            {
                return error.into();
            }
            let repeatable =
                !self.progress.heard && is_kept && (idempotent || self.progress.unsent || is_unprocessed(&error));
            let broken = Break { repeatable, midway: self.progress.status != 0 };
            AttemptFailure { again: self.proxy.broke_off(ctx, &error, broken), error }
        })
    }

    /// Has `backend` answer it, and lets it know when it need not any more.
    async fn exchange(&mut self, mut backend: BackendConnection, timeouts: &Timeouts, ctx: &mut Context) -> Result<()> {
        let kept = self.exchange_over(&mut backend, timeouts, ctx).await;
        if let (Err(error), true) = (&kept, backend.is_streamed()) {
            let by_client = *error.esource() == ErrorSource::Downstream;
            // Where nobody says why, because it is of no use to anybody.
            let why = self.client.gave_up().or_else(|| reset_by(error)).filter(|_| by_client);
            backend.give_up(why.unwrap_or(Reason::CANCEL), is_timeout(error) && !by_client);
        }
        let kept = kept?;
        counts::passed_on(ctx, if matches!(kept, AfterExchange::Tunnel) { 101 } else { self.progress.status });
        match kept {
            AfterExchange::Tunnel => self.tunnel(backend, timeouts, ctx).await,
            AfterExchange::Keep(times, said) => {
                if let (BackendLink::Alone(connection), Some(lease)) = (backend.connection, &ctx.lease) {
                    let site = lease.backend().site();
                    let (whose, longest) = (ctx.whose(site), timeouts.idle);
                    self.proxy.transport().keep((site, whose), connection, times, said, longest);
                }
                Ok(())
            }
            AfterExchange::Over => Ok(()),
        }
    }

    /// Sends it to `backend` and passes the answer on.
    async fn exchange_over(
        &mut self,
        backend: &mut BackendConnection,
        timeouts: &Timeouts,
        ctx: &mut Context,
    ) -> Result<AfterExchange> {
        let mut sent = self.send(backend, timeouts, ctx).await;
        if let Err(error) = sent.as_ref()
            && (backend.is_streamed() || *error.etype() == ErrorType::WriteTimedout)
        {
            self.progress.unsent = backend.is_streamed();
            return sent.map(|()| AfterExchange::Over);
        }
        // A backend that closes before it has read everything may have answered all the same.
        let answer = self.answer(backend, timeouts, ctx).await;
        if let Some(refusal) = self.client.rest().relay().and_then(Relay::take_refusal) {
            sent = Err(refusal);
        }
        let mut answer = match (answer, sent) {
            (Err(error), Err(first)) if *error.esource() == ErrorSource::Upstream && !backend.is_streamed() => {
                return Err(first);
            }
            (answer, sent) => {
                let mut answer = answer?;
                answer.keeps &= sent.is_ok();
                answer
            }
        };
        if answer.switches() {
            return Ok(AfterExchange::Tunnel);
        }
        let answered = self.proxy.clock().now();
        counts::answered(ctx, answer.status, answered, self.client.rest().relay().is_some());
        if self.progress.again {
            self.progress.grpc_status = None;
            return Ok(leave(backend, &answer, answered));
        }
        let mut at_once = self.pass_on(backend, &mut answer, timeouts).await?;
        if self.client.rest().relay().is_some_and(|relay| !relay.is_sent()) {
            at_once = false;
            self.client.finish(&mut backend.connection).await?;
            answer.keeps &= self.client.rest().relay().is_some_and(|relay| relay.is_sent());
        }
        // What is left was not asked for, and who knows what follows it.
        if answer.keeps && backend.is_sent() && backend.buffer.is_empty() {
            let ended = if at_once { answered } else { self.proxy.clock().now() };
            return Ok(AfterExchange::Keep((answered, ended), answer.keep_alive));
        }
        Ok(AfterExchange::Over)
    }

    /// Sends what there is of it to `backend`.
    async fn send(&mut self, backend: &mut BackendConnection, timeouts: &Timeouts, ctx: &Context) -> Result<()> {
        match (self.client.rest().relay(), self.in_fields) {
            // It sends the header section, too, where that is bytes.
            (Some(relay), None) => {
                relay.begin(&mut self.scratch.request, backend.is_streamed());
                backend.open(relay.head())
            }
            (None, None) => backend.send(&self.scratch.request, self.request.body(), timeouts.write).await,
            (relay, Some(sender)) => {
                let body = relay.is_none().then(|| self.request.body());
                if let Some(relay) = relay {
                    relay.begin(&mut self.scratch.request, true);
                }
                backend.open_in_fields(self.request.in_fields(sender, &ctx.request_id), body)
            }
        }
    }

    /// Passes the body on, and before it the header. Whether all of it was there at once.
    async fn pass_on(
        &mut self,
        backend: &mut BackendConnection,
        answer: &mut Answer,
        timeouts: &Timeouts,
    ) -> Result<bool> {
        if answer.body.is_apart(&backend.buffer) {
            backend.acknowledge();
        }
        // A call may be silent for as long as both sides like.
        let quiet = backend.is_streamed() && is_grpc(&self.request.fields());
        let limit = if quiet { FOREVER } else { timeouts.read };
        let mut at_once = true;
        loop {
            let before = std::mem::replace(&mut self.progress.status, answer.status);
            let passed = self.client.pass(&mut answer.body, &mut backend.buffer, &mut backend.connection).await;
            // A body that turns out to be none before anything of it was passed on is no answer.
            if passed.as_ref().is_err_and(|error| *error.esource() == ErrorSource::Upstream) {
                self.progress.status = before;
            }
            self.progress.bytes_out += passed? as u64;
            if answer.body.is_done() {
                return Ok(at_once);
            }
            at_once = false;
            backend.buffer.reserve(
                answer.body.left().map_or(UNKNOWN_READ, |left| left.min(LONG_READ)).min(self.client.reads_ahead()),
            );
            let read = self.read(backend, limit).await?;
            if read > 0 && !backend.is_over() {
                continue;
            }
            let trailers = backend.take_trailers();
            self.progress.grpc_status = grpc::status(trailers.iter()).or(self.progress.grpc_status);
            if !answer.body.end(trailers) && read == 0 {
                return Err(Error::explain(ErrorType::ConnectionClosed, "reading an answer").into_up());
            }
        }
    }

    /// Lets pass what the client and the backend say to each other after a 101, until both have ended.
    async fn tunnel(&mut self, backend: BackendConnection, timeouts: &Timeouts, ctx: &mut Context) -> Result<()> {
        self.progress.status = 101;
        if let Some(trace) = &mut ctx.trace {
            trace.answer_attempt(101);
        }
        let Some((mut connection, behind, unsent)) = backend.into_parts() else {
            return Err(Error::new_str("a 101 on one of many streams").into_in());
        };
        self.client.pass(&mut AnswerBody::until_end(true, false), &mut BytesMut::new(), &mut connection).await?;
        let Some(ends) = self.client.ends() else {
            return Err(Error::new_str("a 101 for one of many streams").into_in());
        };
        self.progress.tunnel = Some(ends.tunnels.begin());
        let silence = (timeouts.tunnel, self.proxy.clock());
        let mut stream = ends.stream;
        let client = (&mut stream, std::mem::take(ends.ahead));
        // Boxed, since the memory of any connection is that of the largest state it can be in.
        let passing = tunnel::pass(client, (&mut connection, behind), &unsent, silence, ends.tunnels.cut());
        let passed = Box::pin(passing).await;
        (self.progress.bytes_in, self.progress.bytes_out) = (passed.from_client, passed.to_client);
        // Whatever it was, there is no HTTP on it any more.
        self.client.break_off(if passed.end == TunnelEnd::Both { Reason::NO_ERROR } else { Reason::CANCEL });
        if passed.end == TunnelEnd::Client {
            // It is gone, and the backend learns it in the same way.
            connection.reset_at_end();
        }
        passed.end.told(ctx, timeouts.tunnel)
    }
}

/// Leaves an answer where another backend is asked. The connection is kept where all of it was there.
fn leave(backend: &mut BackendConnection, answer: &Answer, answered: Instant) -> AfterExchange {
    if answer.keeps && backend.is_sent() && answer.body.left() == Some(backend.buffer.len()) {
        return AfterExchange::Keep((answered, answered), answer.keep_alive);
    }
    if backend.is_streamed() {
        backend.give_up(Reason::CANCEL, false);
    }
    AfterExchange::Over
}
