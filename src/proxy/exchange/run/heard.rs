//! The header of an answer, from the backend to the client: read, looked at, and handed on.
//!
//! It comes as bytes, or, where both sides speak HTTP/2 and no rule changes it, in fields, which nobody has to write
//! and read again. What is asked of it is the same.

use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use pingora_core::{Error, ErrorSource, ErrorType, Result};

use crate::proxy::backend::answer;
use crate::proxy::backend::answer::Answer;
use crate::proxy::backend::connection::{BackendConnection, BackendLink};
use crate::proxy::exchange::client::{ReceivedRequest, Recipient};
use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::failure::{TOO_MANY_INTERIM, is_timeout};
use crate::proxy::exchange::rest::Rest;
use crate::proxy::exchange::run::{Exchange, FIRST_READ};
use crate::proxy::exchange::{grpc, request, upgrade};
use crate::proxy::gate::changes::Rewriting;
use crate::upstream::Timeouts;

/// What is done about an answer that is none.
fn no_answer(why: &'static str) -> Box<Error> {
    Error::explain(ErrorType::InvalidHTTPHeader, why).into_up()
}

impl<R: ReceivedRequest, C: Recipient> Exchange<'_, R, C> {
    /// Reads the header of the final answer and hands it to the client, as it does with interim answers before it.
    pub(super) async fn answer(
        &mut self,
        backend: &mut BackendConnection,
        timeouts: &Timeouts,
        ctx: &mut Context,
    ) -> Result<Answer> {
        let is_changed = self.rewriting.as_deref().is_some_and(Rewriting::changes_answers);
        if C::TAKES_FIELDS && backend.is_streamed() && !is_changed {
            return self.answer_in_fields(backend, timeouts, ctx).await;
        }
        let to_head = self.request.target().method == "HEAD";
        loop {
            if backend.buffer.capacity() == backend.buffer.len() {
                backend.buffer.reserve(FIRST_READ);
            }
            let read = self.read(backend, timeouts.read).await?;
            if read == 0 {
                return Err(Error::explain(ErrorType::ConnectionClosed, "reading an answer").into_up());
            }
            self.progress.heard = true;
            // What comes byte by byte is parsed once for each line, not once for each byte.
            let seen = backend.buffer.len() - read;
            if seen > 0 && seen < answer::MAX_ANSWER_HEAD && !backend.buffer[seen..].contains(&b'\n') {
                continue;
            }
            while let Some(mut answer) =
                answer::parse(&backend.buffer, &mut self.scratch.lines, to_head).map_err(no_answer)?
            {
                let lines = &self.scratch.lines;
                if backend.is_streamed() {
                    answer.comes_in_frames(backend.is_over());
                    self.progress.grpc_status = grpc::status(lines.of(&backend.buffer).iter());
                }
                let takes_up = || upgrade::takes_up(lines.of(&backend.buffer), |one| self.request.offers(one));
                self.look_at(&answer, takes_up, ctx)?;
                if self.asks_another(&answer, ctx) {
                    backend.buffer.advance(answer.end);
                    return Ok(answer);
                }
                let came = self.scratch.lines.of(&backend.buffer);
                let standing = self.proxy.told_with(ctx, &answer, || came.iter());
                match answer.changed(came, &backend.buffer, self.rewriting.as_deref()) {
                    None => self.client.head(&answer, &backend.buffer, came, standing).await?,
                    Some(changed) => {
                        self.client.head(&changed.answer, &changed.bytes, changed.lines(), standing).await?
                    }
                }
                backend.buffer.advance(answer.end);
                self.note(&answer);
                if !answer.is_interim() {
                    return Ok(answer);
                }
            }
        }
    }

    /// The same where it comes in fields.
    async fn answer_in_fields(
        &mut self,
        backend: &mut BackendConnection,
        timeouts: &Timeouts,
        ctx: &mut Context,
    ) -> Result<Answer> {
        let to_head = self.request.target().method == "HEAD";
        loop {
            let (status, fields) =
                self.wait(backend, timeouts.read, |link, cx, _| BackendLink::poll_head(link, cx)).await?;
            self.progress.heard = true;
            let answer = answer::of_fields(status, &fields, (to_head, backend.is_over())).map_err(no_answer)?;
            self.progress.grpc_status =
                grpc::status(fields.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())));
            self.look_at(&answer, || false, ctx)?;
            if self.asks_another(&answer, ctx) {
                return Ok(answer);
            }
            self.client.head_in_fields(&answer, fields, ctx.told_standing())?;
            self.note(&answer);
            if !answer.is_interim() {
                return Ok(answer);
            }
        }
    }

    /// Whether `answer` is one to this request; one that changes the protocol `takes_up` what was offered or not.
    fn look_at(&self, answer: &Answer, takes_up: impl FnOnce() -> bool, ctx: &mut Context) -> Result<()> {
        if answer.switches() && !takes_up() {
            return Err(no_answer("a 101 that nobody asked for"));
        }
        if self.request.tunnels_by_success() && (200..300).contains(&answer.status) {
            return Err(no_answer("a success without the WebSocket that was asked for"));
        }
        if answer.is_interim() && ctx.has_too_many_interim() {
            return Err(no_answer(TOO_MANY_INTERIM));
        }
        Ok(())
    }

    /// Whether another backend is asked, now that this one has answered so; the client gets nothing of it.
    fn asks_another(&mut self, answer: &Answer, ctx: &mut Context) -> bool {
        if answer.status < 500 {
            return false;
        }
        let whole = self.client.rest().relay().is_none_or(|relay| relay.is_sent() && relay.is_kept());
        let repeatable = whole && request::is_idempotent(self.request.target().method);
        self.progress.again = self.proxy.asks_another(ctx, answer.status, repeatable);
        self.progress.again
    }

    /// Tells the body that is being sent on what has been answered.
    fn note(&mut self, answer: &Answer) {
        let Some(relay) = self.client.rest().relay() else { return };
        if answer.status == 100 {
            relay.go_on();
        }
        if !answer.is_interim() {
            relay.answer_begins();
        }
    }

    /// Reads on from the backend, for as long as the client stays.
    pub(super) async fn read(&mut self, backend: &mut BackendConnection, limit: Duration) -> Result<usize> {
        self.wait(backend, limit, BackendLink::poll_fill).await
    }

    /// Waits for what the backend is to be ready with, for as long as the client stays. Each part of the request that
    /// the backend gets gives it as long again.
    async fn wait<T>(
        &mut self,
        backend: &mut BackendConnection,
        limit: Duration,
        mut poll: impl FnMut(&mut BackendLink, &mut TaskContext<'_>, &mut BytesMut) -> Poll<Result<T>>,
    ) -> Result<T> {
        let mut left = limit;
        loop {
            let within = (left, &mut self.scratch.alarm);
            let read = backend.wait(within, &mut poll, |cx, to| self.client.poll_meanwhile(cx, to)).await;
            let late = |error: &Error| is_timeout(error) && *error.esource() == ErrorSource::Upstream;
            let relay = self.client.rest().relay().filter(|_| read.as_ref().is_err_and(|error| late(error)));
            match relay.and_then(|relay| relay.more_time(limit)) {
                Some(more) => left = more,
                None => return read,
            }
        }
    }
}
