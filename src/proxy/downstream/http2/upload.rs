//! The body of a request, as it comes over its stream.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use h2::RecvStream;
use pingora_core::{Error, ErrorType, Result};
use pingora_timeout::timeout;

use crate::proxy::downstream::arrived::{GRACE, MAX_BODY};
use crate::proxy::downstream::http2::windows::{Share, Windows};
use crate::proxy::downstream::pace::Waited;
use crate::proxy::downstream::parcel::{BodySource, MOST, Parcel, SMALL};
use crate::proxy::wire::trailers::Trailers;

/// How much of a body is read for nothing, in bytes.
const DISCARD: usize = 16 << 20;
/// For how long a body is read for nothing. nginx waits 5 s for the next part of one, over and over; clients that go on
/// for longer are told to stop.
const DISCARDING: Duration = Duration::from_millis(800);

/// A body that is coming. What is taken of it gives the client as much more to send.
#[derive(Debug)]
pub(in crate::proxy) struct Upload {
    /// What was taken already, and comes first.
    ahead: Bytes,
    /// What comes next, and was taken while nobody took it: small pieces, and behind them one that is not.
    gathered: (BytesMut, Bytes),
    stream: RecvStream,
    share: Share,
    waited: Waited,
    /// Bytes that were taken and that the client may not send anew yet.
    owed: usize,
    /// Bytes at the start of what is sent on that it may already.
    paid: usize,
    /// Whether the end was seen.
    ended: bool,
    /// What came behind it.
    trailers: Trailers,
}

impl Upload {
    /// The body that comes over `stream`, of this length, if it was announced. How long it is `waited` for is counted.
    pub(in crate::proxy) fn new(
        stream: RecvStream,
        windows: &Arc<Windows>,
        length: Option<u64>,
        waited: Waited,
    ) -> Self {
        let (ahead, gathered, share) = (Bytes::new(), Default::default(), Share::new(windows, length));
        let (owed, paid, ended, trailers) = (0, 0, false, Trailers::default());
        Upload { ahead, gathered, stream, share, waited, owed, paid, ended, trailers }
    }

    /// How long it was waited for.
    pub(in crate::proxy) fn waited(&self) -> Duration {
        self.waited.so_far()
    }

    /// Whether all of it has been taken.
    pub(in crate::proxy) fn is_over(&self) -> bool {
        let is_taken = self.ahead.is_empty() && self.gathered.0.is_empty() && self.gathered.1.is_empty();
        is_taken && (self.ended || self.stream.is_end_stream())
    }

    /// The next piece of what was gathered, so long at most if it is of small ones. The client may not send it anew
    /// yet.
    fn take_gathered(&mut self, most: usize) -> Option<Bytes> {
        let (small, large) = &mut self.gathered;
        match small.len() {
            0 if large.is_empty() => None,
            0 => Some(std::mem::take(large)),
            length => Some(small.split_to(length.min(most)).freeze()),
        }
    }

    /// The next bytes, never none; `None` at the end.
    pub(in crate::proxy) async fn next(&mut self) -> Option<Result<Bytes, h2::Error>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The same, as far as it is there.
    pub(in crate::proxy) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        if !self.ahead.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.ahead))));
        }
        if let Some(data) = self.take_gathered(MOST) {
            self.release(data.len());
            return Poll::Ready(Some(Ok(data)));
        }
        loop {
            let data = match ready!(self.waited.note(self.stream.poll_data(cx))) {
                Some(Ok(data)) => data,
                other => {
                    self.share.end();
                    return Poll::Ready(other);
                }
            };
            // An empty frame says nothing, and at the end Pingora would take it for another end. h2 bounds their
            // number.
            if !data.is_empty() {
                self.release(data.len());
                return Poll::Ready(Some(Ok(data)));
            }
        }
    }

    /// Lets the client send so many bytes more.
    fn release(&mut self, bytes: usize) {
        self.share.took(bytes);
        // Fails only when the stream is gone, which the next read tells.
        let _ = self.stream.flow_control().release_capacity(bytes);
    }

    /// Takes the body when its end is there with its header, without trailers, and it is not too long. `waits` says
    /// that this may be [`GRACE`] later. Otherwise nothing of it is lost.
    pub(in crate::proxy) async fn take_what_is_there(&mut self, waits: bool) -> Option<Bytes> {
        let mut taken = TakenBody::default();
        let taking = async {
            while taken.length() as u64 <= MAX_BODY && !self.is_over() {
                let Some(Ok(data)) = self.next().await else { return };
                taken.push(data);
            }
        };
        if waits {
            // Cut off only while it waits for more.
            let _ = timeout(GRACE, taking).await;
        } else {
            let _ = taking.now_or_never();
        }
        let data = taken.whole();
        if self.is_over() && data.len() as u64 <= MAX_BODY {
            return Some(data);
        }
        self.ahead = data;
        None
    }

    /// Reads what still comes of it when its request has been answered, for a while. Then, with the last handle on the
    /// stream, it is reset without blame (RFC 9113 section 8.1). That reset is not sent at once, since it would reach
    /// the client together with the answer, and some (curl 7.88) drop an answer for that; most stop by themselves.
    pub(in crate::proxy) async fn discard(mut self) {
        self.share.end();
        let reading = async {
            let mut left = DISCARD;
            while let Some(Ok(data)) = self.next().await
                && data.len() < left
            {
                left -= data.len();
            }
        };
        let _ = timeout(DISCARDING, reading).await;
    }
}

impl BodySource for Upload {
    fn poll_more(&mut self, cx: &mut Context<'_>, parcel: &mut Parcel) -> Poll<Result<()>> {
        if !self.ahead.is_empty() {
            self.paid += self.ahead.len();
            parcel.push(std::mem::take(&mut self.ahead));
            return Poll::Ready(Ok(()));
        }
        while !self.is_over() && parcel.unsent() < MOST {
            if let Some(data) = self.take_gathered(MOST - parcel.unsent()) {
                self.owed += data.len();
                parcel.push(data);
                continue;
            }
            match self.waited.note(self.stream.poll_data(cx)) {
                Poll::Ready(Some(Ok(data))) => {
                    self.owed += data.len();
                    parcel.push(data);
                }
                Poll::Ready(Some(Err(error))) => {
                    self.share.end();
                    let gone = Error::because(ErrorType::ConnectionClosed, "reading the body", error);
                    return Poll::Ready(Err(gone.into_down()));
                }
                Poll::Ready(None) => {
                    self.share.end();
                    // They are what ended the data, or there are none.
                    match self.stream.poll_trailers(cx) {
                        Poll::Ready(Ok(trailers)) => {
                            self.trailers = trailers.as_ref().map(Trailers::of_map).unwrap_or_default();
                            self.ended = true;
                            if self.trailers.are_too_large() {
                                let error = Error::explain(ErrorType::InvalidHTTPHeader, "its trailers are too large");
                                return Poll::Ready(Err(error.into_down()));
                            }
                        }
                        Poll::Ready(Err(error)) => {
                            let gone = Error::because(ErrorType::ConnectionClosed, "reading the body", error);
                            return Poll::Ready(Err(gone.into_down()));
                        }
                        Poll::Pending if parcel.unsent() > 0 => break,
                        Poll::Pending => return Poll::Pending,
                    }
                }
                Poll::Pending if parcel.unsent() > 0 => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Puts small pieces together, each of which h2 keeps at many times its size. The windows bound them.
    fn gather(&mut self, cx: &mut Context<'_>) {
        let (small, large) = &mut self.gathered;
        while large.is_empty() {
            match self.stream.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) if data.len() < SMALL => small.extend_from_slice(&data),
                Poll::Ready(Some(Ok(data))) => *large = data,
                // An end, or an error, is told again to whoever asks next.
                Poll::Ready(Some(Err(_)) | None) | Poll::Pending => break,
            }
        }
    }

    fn is_over(&self) -> bool {
        Upload::is_over(self)
    }

    fn trailers(&mut self) -> Trailers {
        std::mem::take(&mut self.trailers)
    }

    fn sent(&mut self, bytes: usize) {
        let paid = self.paid.min(bytes);
        self.paid -= paid;
        // What is sent once more was paid for when it was sent first.
        let bytes = (bytes - paid).min(self.owed);
        self.owed -= bytes;
        if bytes > 0 {
            self.release(bytes);
        }
        if self.owed == 0 && self.is_over() {
            self.share.end();
        }
    }

    fn waited(&self) -> Duration {
        Upload::waited(self)
    }
}

/// Parts of a body; a single one is not copied.
#[derive(Default)]
struct TakenBody {
    first: Bytes,
    all: BytesMut,
}

impl TakenBody {
    fn length(&self) -> usize {
        self.first.len() + self.all.len()
    }

    fn push(&mut self, data: Bytes) {
        if self.length() == 0 {
            self.first = data;
            return;
        }
        self.all.extend_from_slice(&std::mem::take(&mut self.first));
        self.all.extend_from_slice(&data);
    }

    fn whole(self) -> Bytes {
        if self.all.is_empty() { self.first } else { self.all.freeze() }
    }
}
