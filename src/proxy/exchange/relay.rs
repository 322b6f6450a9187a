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

use std::borrow::Cow;
use std::io::{IoSlice, Write};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pingora_core::{Error, ErrorType, Result};

use crate::clock::Clock;
use crate::proxy::backend::body::LAST_CHUNK;
use crate::proxy::backend::sink::RequestSink;
use crate::proxy::downstream::pace::allowance;
use crate::proxy::downstream::parcel::{BodySource, Parcel};
use crate::proxy::exchange::failure::MALFORMED_BODY;
use crate::proxy::exchange::waits::{BodyBounds, Side, Waits};
use crate::proxy::gate::headers::Underscores;
use crate::proxy::gate::rejection::Rejection;
use crate::proxy::wire::trailers::Trailers;

/// The most parts that are written at once. More than a parcel has, but for the pieces of an HTTP/2 client that takes
/// pains.
const PARTS: usize = 40;
/// The longest silence in a body that comes after its answer.
const LATE: Duration = Duration::from_secs(1);

/// A body on its way.
pub(in crate::proxy) struct Relay {
    parcel: Parcel,
    /// What goes before what is in the parcel, and how much of it is sent.
    lead: (Vec<u8>, usize),
    /// What goes behind it, and how much of that is sent.
    trail: (Cow<'static, [u8]>, usize),
    /// The trailers, once all of it has come.
    trailers: Trailers,
    /// How much of the lead is the header section.
    head: usize,
    /// Whether a backend gets it in chunks, and whether the present one knows by itself where it ends.
    in_chunks: bool,
    in_frames: bool,
    stage: RelayStage,
    /// Whether all of it has come.
    is_read: bool,
    bounds: BodyBounds,
    /// Bytes of the body that have come.
    received: u64,
    waits: Waits,
    /// Why tollgate answers itself.
    rejection: Option<Rejection>,
    /// Why the backend takes no more.
    refusal: Option<Box<Error>>,
    /// Whether it does not.
    is_refused: bool,
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
    /// One of which what is in `parcel` has come, or all of it with these trailers, and which goes to the backend
    /// `in_chunks` or as it is.
    pub(in crate::proxy) fn new(
        (parcel, end): (Parcel, Option<Trailers>),
        in_chunks: bool,
        bounds: BodyBounds,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (received, waits) = (parcel.unsent() as u64, Waits::new(clock));
        let (lead, trail) = ((Vec::new(), 0), (Cow::default(), 0));
        let (is_read, trailers) = (end.is_some(), end.unwrap_or_default());
        let mut relay = Relay {
            parcel,
            lead,
            trail,
            trailers: Trailers::default(),
            head: 0,
            in_chunks,
            in_frames: false,
            stage: RelayStage::Sends,
            is_read,
            bounds,
            received,
            waits,
            rejection: None,
            refusal: None,
            is_refused: false,
        };
        relay.take_trailers(trailers);
        relay
    }

    /// Takes note of the trailers.
    fn take_trailers(&mut self, trailers: Trailers) {
        self.trailers = match self.bounds.underscores {
            Underscores::Drop => trailers.without_underscores(),
            Underscores::Pass => trailers,
        };
    }

    /// Begins an attempt: a backend is to get the header section, which is taken from `head` for the first one, and the
    /// body. One to which they go `in_frames` gets the header section apart.
    pub(in crate::proxy) fn begin(&mut self, head: &mut Vec<u8>, in_frames: bool) {
        if self.head == 0 {
            self.head = head.len();
            self.lead.0 = std::mem::take(head);
        }
        if self.parcel.is_whole() {
            self.parcel.rewind();
        }
        self.lead.0.truncate(self.head);
        self.in_frames = in_frames;
        self.lead.1 = if in_frames { self.head } else { 0 };
        self.waits.begin();
        (self.refusal, self.is_refused) = (None, false);
        self.seal();
    }

    /// The header section of the request.
    pub(in crate::proxy) fn head(&self) -> &[u8] {
        &self.lead.0[..self.head]
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
        !self.is_read && self.bounds.silence.is_some() && !self.is_awaited()
    }

    /// Whether the client waits for a word, and has sent nothing so far.
    fn is_awaited(&self) -> bool {
        self.bounds.expects && self.received == 0
    }

    /// The client has got its word.
    pub(in crate::proxy) fn go_on(&mut self) {
        self.bounds.expects = false;
        self.waits.end();
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
        self.waits.end();
    }

    /// How much longer an answer is to be waited for, when it may take so long from the moment at which the backend got
    /// more of the request.
    pub(in crate::proxy) fn more_time(&self, limit: Duration) -> Option<Duration> {
        limit.checked_sub(self.waits.since_then()).filter(|left| !left.is_zero())
    }

    /// Moves on as far as that is possible now, from the client to the backend. Ready only when there can be no answer.
    pub(in crate::proxy) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl BodySource,
        to: &mut impl RequestSink,
    ) -> Poll<Box<Error>> {
        loop {
            match self.stage {
                RelayStage::Over => return Poll::Pending,
                RelayStage::Sends => match self.poll_send(cx, from, to) {
                    Poll::Ready(()) => {}
                    Poll::Pending => {
                        from.gather(cx);
                        return self.poll_patience(cx, Side::Backend, Some(self.bounds.write));
                    }
                },
                RelayStage::Reads => match from.poll_more(cx, &mut self.parcel) {
                    Poll::Ready(read) => {
                        self.waits.end();
                        self.received += self.parcel.unsent() as u64;
                        if let Err(error) = read.and_then(|()| self.check()) {
                            return Poll::Ready(self.broken(error));
                        }
                        self.is_read = from.is_over();
                        if self.is_read {
                            self.take_trailers(from.trailers());
                        }
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
    fn poll_send(&mut self, cx: &mut Context<'_>, from: &mut impl BodySource, to: &mut impl RequestSink) -> Poll<()> {
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
            let length: usize = parts[..count].iter().map(|part| part.len()).sum();
            let last = self.in_frames && self.is_read && self.trailers.is_empty() && length == self.parcel.unsent();
            match ready!(to.poll_parts(cx, &parts[..count], last)) {
                Ok(0) if count > 0 => self.refuse(Error::explain(ErrorType::WriteError, "sending a request")),
                Ok(sent) => from.sent(self.advance(sent)),
                Err(error) => self.refuse(Error::because(ErrorType::WriteError, "sending a request", error)),
            }
            if self.in_frames
                && self.is_sent()
                && !self.trailers.is_empty()
                && let Err(error) = to.finish(&self.trailers)
            {
                self.refuse(Error::because(ErrorType::WriteError, "sending a request", error));
            }
        }
        Poll::Ready(())
    }

    /// Takes note that so many bytes were sent; how many of them are of the body.
    fn advance(&mut self, sent: usize) -> usize {
        self.waits.end();
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
                self.waits.note();
            }
        }
        of_body
    }

    /// Prepares to send what is in the parcel, which ends the body or not.
    fn seal(&mut self) {
        let data = self.parcel.unsent();
        let in_chunks = self.in_chunks && !self.in_frames;
        let trail = match (in_chunks, data, self.is_read) {
            (true, 0, true) => LAST_CHUNK,
            (true, 1.., true) => b"\r\n0\r\n\r\n",
            (true, 1.., false) => b"\r\n",
            _ => b"",
        };
        self.trail = (Cow::Borrowed(trail), 0);
        if in_chunks && self.is_read && !self.trailers.is_empty() {
            let last = trail.len() - b"\r\n".len();
            self.trail.0 = [&trail[..last], self.trailers.as_bytes(), b"\r\n"].concat().into();
        }
        if in_chunks && data > 0 {
            write!(self.lead.0, "{data:x}\r\n").expect("a Vec takes every write");
        }
        // Where frames say where it ends, that is still to be said.
        let ends = self.in_frames && self.is_read;
        let nothing = self.lead.1 == self.lead.0.len() && data == 0 && self.trail.0.is_empty() && !ends;
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
        let Some(length) = self.bounds.length.filter(|length| self.received > *length) else { return Ok(()) };
        self.rejection = Some(Rejection::BodyTooLarge(length));
        Err(Error::explain(ErrorType::HTTPStatus(413), "the body is larger than it may be").into_down())
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
        if self.is_awaited() {
            return None;
        }
        let left = self.bounds.rate.map(|rate| allowance(rate, self.received).saturating_sub(waited));
        self.bounds.silence.into_iter().chain(left).min()
    }

    /// Waits for one side, as long as it may take.
    fn poll_patience(&mut self, cx: &mut Context<'_>, side: Side, limit: Option<Duration>) -> Poll<Box<Error>> {
        ready!(self.waits.poll_too_long(cx, side, limit));
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
