//! A request's body on its way from the client to a backend, while the backend may answer already.
//!
//! The problem: a body can be endless and its client slow, the backend can be slow or say what it has to say before it
//! has read anything, and either may leave. What is read and cannot be passed on is memory that a client decides on;
//! who waits for the one side only does not hear the other.
//!
//! The rule: a [`Relay`] is polled wherever an exchange waits, for the backend's answer or for the client to take it.
//! It reads only when all that it has read was taken by the backend, so a slow one slows its client. It counts what
//! comes against the limits, and how long each side keeps it waiting. What a backend refuses to take ends the relay,
//! not the exchange: its answer may be there. As long as little has come it can begin anew, for another attempt.
//!
//! Refused: a task or a pair of queues between both sides, which wake each other for each piece.

use std::io::{IoSlice, Write};
use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use pingora_core::{Error, ErrorType, Result};
use tokio::io::AsyncWrite;
use tokio::time::{Sleep, sleep};

use crate::clock::Clock;
use crate::proxy::backend::body::LAST_CHUNK;
use crate::proxy::downstream::pace::allowance;
use crate::proxy::downstream::parcel::{BodySource, Parcel};
use crate::proxy::exchange::failure::MALFORMED_BODY;
use crate::proxy::gate::rejection::Rejection;

/// The most parts that are written at once. More than a parcel has, but for the pieces of an HTTP/2 client that takes
/// pains.
const PARTS: usize = 40;
/// The longest silence in a body that comes after its answer.
const LATE: Duration = Duration::from_secs(1);

/// What bounds a body and its way.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct BodyBounds {
    /// The longest silence in it; `None` is no bound.
    pub(in crate::proxy) silence: Option<Duration>,
    /// The fewest bytes a second that it may come at, until the answer begins.
    pub(in crate::proxy) rate: Option<NonZeroU64>,
    /// Its length, in bytes; known once the request is let in.
    pub(in crate::proxy) length: Option<u64>,
    /// The longest that a backend may take nothing of it.
    pub(in crate::proxy) write: Duration,
}

/// A body on its way.
pub(in crate::proxy) struct Relay {
    parcel: Parcel,
    /// What goes before what is in the parcel, and how much of it is sent.
    lead: (Vec<u8>, usize),
    /// What goes behind it, and how much of that is sent.
    trail: (&'static [u8], usize),
    /// How much of the lead is the header section.
    head: usize,
    /// Whether the backend gets it in chunks.
    in_chunks: bool,
    stage: RelayStage,
    /// Whether all of it has come.
    is_read: bool,
    bounds: BodyBounds,
    /// Bytes of the body that have come.
    received: u64,
    /// Who is waited for, and since when; the last of them when it is over.
    waits: (Option<Side>, Instant),
    timer: Option<(Pin<Box<Sleep>>, Instant)>,
    clock: Arc<dyn Clock>,
    /// Why tollgate answers itself.
    rejection: Option<Rejection>,
    /// Why the backend takes no more.
    refusal: Option<Box<Error>>,
    /// Whether it does not.
    is_refused: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Backend,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RelayStage {
    /// Some is to be sent.
    Sends,
    /// All that has come was sent, and more is to come.
    Reads,
    /// Nothing is left to be done.
    Over,
}

impl Relay {
    /// One of which what is in `parcel` has come, or all of it, and which goes to the backend `in_chunks` or as it is.
    pub(in crate::proxy) fn new(
        (parcel, is_read): (Parcel, bool),
        in_chunks: bool,
        bounds: BodyBounds,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (received, waits) = (parcel.unsent() as u64, (None, clock.now()));
        let (lead, trail) = ((Vec::new(), 0), (&b""[..], 0));
        Relay {
            parcel,
            lead,
            trail,
            head: 0,
            in_chunks,
            stage: RelayStage::Sends,
            is_read,
            bounds,
            received,
            waits,
            timer: None,
            clock,
            rejection: None,
            refusal: None,
            is_refused: false,
        }
    }

    /// Begins an attempt: a backend is to get the header section, which is taken from `head` for the first one, and the
    /// body.
    pub(in crate::proxy) fn begin(&mut self, head: &mut Vec<u8>) {
        if self.head == 0 {
            self.head = head.len();
            self.lead.0 = std::mem::take(head);
        }
        if self.parcel.is_whole() {
            self.parcel.rewind();
        }
        self.lead.0.truncate(self.head);
        (self.lead.1, self.waits) = (0, (None, self.clock.now()));
        (self.refusal, self.is_refused) = (None, false);
        self.seal();
    }

    /// Whether all of it has come.
    pub(in crate::proxy) fn is_read(&self) -> bool {
        self.is_read
    }

    /// Whether nothing is left to be done: the backend has got all of it, or takes no more.
    pub(in crate::proxy) fn is_over(&self) -> bool {
        self.stage == RelayStage::Over
    }

    /// Whether the backend has got all of it.
    pub(in crate::proxy) fn is_sent(&self) -> bool {
        self.stage == RelayStage::Over && !self.is_refused
    }

    /// Whether it can begin anew, though some of it was sent.
    pub(in crate::proxy) fn is_kept(&self) -> bool {
        self.parcel.is_whole()
    }

    /// Bytes of it that have come.
    pub(in crate::proxy) fn received(&self) -> u64 {
        self.received
    }

    /// Why tollgate answers itself, if it is for this body.
    pub(in crate::proxy) fn rejection(&self) -> Option<Rejection> {
        self.rejection
    }

    /// Why the backend took no more of it, if it did not.
    pub(in crate::proxy) fn take_refusal(&mut self) -> Option<Box<Error>> {
        self.refusal.take()
    }

    /// Whether a client that should have sent more of it is at fault when the backend does not answer.
    pub(in crate::proxy) fn is_owed(&self) -> bool {
        !self.is_read && self.bounds.silence.is_some()
    }

    /// Sets what was found out as the request was let in: how long it may be, and for how long a backend may take
    /// nothing. What has come may be too much already.
    ///
    /// # Errors
    /// Then.
    pub(in crate::proxy) fn bound(&mut self, length: u64, write: Duration) -> Result<()> {
        self.bounds.length = self.bounds.length.map(|_| length);
        self.bounds.write = write;
        self.check()
    }

    /// The answer has begun: from now on the backend may take its time with the body, and the client with it.
    pub(in crate::proxy) fn answer_begins(&mut self) {
        self.bounds.rate = None;
    }

    /// The answer is whole: nobody waits for a body that does not come.
    pub(in crate::proxy) fn answer_ends(&mut self) {
        (self.bounds.silence, self.bounds.write) = (Some(LATE), LATE);
        self.waits.0 = None;
    }

    /// How much longer an answer is to be waited for, when it may take so long from the moment at which the backend got
    /// more of the request.
    pub(in crate::proxy) fn more_time(&self, limit: Duration) -> Option<Duration> {
        let passed = self.clock.now().saturating_duration_since(self.waits.1);
        limit.checked_sub(passed).filter(|left| !left.is_zero())
    }

    /// Moves on as far as that is possible now, from the client to the backend. Ready only when there can be no answer.
    pub(in crate::proxy) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl BodySource,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Box<Error>> {
        loop {
            match self.stage {
                RelayStage::Over => return Poll::Pending,
                RelayStage::Sends => match self.poll_send(cx, from, to) {
                    Poll::Ready(()) => {}
                    Poll::Pending => return self.poll_patience(cx, Side::Backend, Some(self.bounds.write)),
                },
                RelayStage::Reads => match from.poll_more(cx, &mut self.parcel) {
                    Poll::Ready(read) => {
                        self.waits.0 = None;
                        self.received += self.parcel.unsent() as u64;
                        if let Err(error) = read.and_then(|()| self.check()) {
                            return Poll::Ready(self.broken(error));
                        }
                        self.is_read = from.is_over();
                        self.seal();
                    }
                    Poll::Pending => {
                        let patience = self.patience(from.waited());
                        return self.poll_patience(cx, Side::Client, patience);
                    }
                },
            }
        }
    }

    /// Reads the rest of it for nothing. Ready at its end, or where that is not reached.
    pub(in crate::proxy) fn poll_discard(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl BodySource,
    ) -> Poll<Result<()>> {
        while !from.is_over() {
            self.parcel.discard();
            ready!(from.poll_more(cx, &mut self.parcel))?;
            self.received += self.parcel.unsent() as u64;
            self.is_read = from.is_over();
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what there is, or takes note that the backend takes no more.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl BodySource,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<()> {
        while self.stage == RelayStage::Sends {
            let mut parts = [IoSlice::new(&[]); PARTS];
            let mut count = 0;
            if let lead @ [_, ..] = &self.lead.0[self.lead.1..] {
                (parts[0], count) = (IoSlice::new(lead), 1);
            }
            count = self.parcel.fill(&mut parts, count);
            if let trail @ [_, ..] = &self.trail.0[self.trail.1..]
                && count < PARTS
            {
                parts[count] = IoSlice::new(trail);
                count += 1;
            }
            let sent = match &parts[..count] {
                // Cheaper than a vector.
                [one] => Pin::new(&mut *to).poll_write(cx, one),
                parts => Pin::new(&mut *to).poll_write_vectored(cx, parts),
            };
            match ready!(sent) {
                Ok(sent @ 1..) => from.sent(self.advance(sent)),
                Ok(_) => self.refuse(Error::explain(ErrorType::WriteError, "sending a request")),
                Err(error) => self.refuse(Error::because(ErrorType::WriteError, "sending a request", error)),
            }
        }
        Poll::Ready(())
    }

    /// Takes note that so many bytes were sent; how many of them are of the body.
    fn advance(&mut self, sent: usize) -> usize {
        self.waits.0 = None;
        let of_lead = sent.min(self.lead.0.len() - self.lead.1);
        let of_body = (sent - of_lead).min(self.parcel.unsent());
        self.lead.1 += of_lead;
        self.parcel.advance(of_body);
        self.trail.1 += sent - of_lead - of_body;
        if self.lead.1 == self.lead.0.len() && self.parcel.unsent() == 0 && self.trail.1 == self.trail.0.len() {
            self.lead.0.truncate(self.head);
            self.lead.1 = self.head;
            self.stage = if self.is_read { RelayStage::Over } else { RelayStage::Reads };
            if self.stage == RelayStage::Over {
                self.waits.1 = self.clock.now();
            }
        }
        of_body
    }

    /// Prepares to send what is in the parcel, which ends the body or not.
    fn seal(&mut self) {
        let data = self.parcel.unsent();
        self.trail = match (self.in_chunks, data, self.is_read) {
            (true, 0, true) => (LAST_CHUNK, 0),
            (true, 1.., true) => (b"\r\n0\r\n\r\n", 0),
            (true, 1.., false) => (b"\r\n", 0),
            _ => (b"", 0),
        };
        if self.in_chunks && data > 0 {
            write!(self.lead.0, "{data:x}\r\n").expect("a Vec takes every write");
        }
        let nothing = self.lead.1 == self.lead.0.len() && data == 0 && self.trail.0.is_empty();
        self.stage = match (nothing, self.is_read) {
            (false, _) => RelayStage::Sends,
            (true, false) => RelayStage::Reads,
            (true, true) => RelayStage::Over,
        };
    }

    /// The backend takes no more. It may have answered all the same.
    fn refuse(&mut self, error: Box<Error>) {
        (self.refusal, self.is_refused, self.stage) = (Some(error.into_up()), true, RelayStage::Over);
    }

    /// Whether it is as short as it has to be.
    fn check(&mut self) -> Result<()> {
        match self.bounds.length {
            Some(length) if self.received > length => {
                self.rejection = Some(Rejection::BodyTooLarge(length));
                Err(Error::explain(ErrorType::HTTPStatus(413), "the body is larger than it may be").into_down())
            }
            _ => Ok(()),
        }
    }

    /// Takes note that there will be no more of it.
    fn broken(&mut self, error: Box<Error>) -> Box<Error> {
        if *error.etype() == ErrorType::InvalidHTTPHeader {
            self.rejection = Some(Rejection::BadRequest(MALFORMED_BODY));
        }
        error
    }

    /// How long to wait for more of it, of which so much was waited for already.
    fn patience(&self, waited: Duration) -> Option<Duration> {
        let left = self.bounds.rate.map(|rate| allowance(rate, self.received).saturating_sub(waited));
        self.bounds.silence.into_iter().chain(left).min()
    }

    /// Waits for one side, as long as it may take.
    fn poll_patience(&mut self, cx: &mut Context<'_>, side: Side, limit: Option<Duration>) -> Poll<Box<Error>> {
        if self.waits.0 != Some(side) {
            self.waits = (Some(side), self.clock.now());
        }
        let Some(limit) = limit else { return Poll::Pending };
        let due = self.waits.1 + limit;
        loop {
            // One that is due too early is set anew when it is over: most are never.
            if self.timer.as_ref().is_none_or(|(_, at)| *at > due) {
                let left = due.saturating_duration_since(self.clock.now());
                self.timer = Some((Box::pin(sleep(left)), due));
            }
            let Some((timer, _)) = &mut self.timer else { return Poll::Pending };
            ready!(timer.as_mut().poll(cx));
            self.timer = None;
            if self.clock.now() >= due {
                break;
            }
        }
        Poll::Ready(match side {
            Side::Backend => Error::explain(ErrorType::WriteTimedout, "sending a request").into_up(),
            Side::Client => {
                self.rejection = Some(Rejection::RequestTimeout);
                Error::explain(ErrorType::ReadTimedout, "reading a request").into_down()
            }
        })
    }
}

#[cfg(test)]
mod tests;
