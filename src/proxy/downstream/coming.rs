//! A request's body that is still coming over HTTP/1.

use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use pingora_core::{Error, ErrorType, Result};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::proxy::downstream::pace::Waited;
use crate::proxy::downstream::parcel::{BodySource, Parcel};
use crate::proxy::wire::request_body::Body;
use crate::proxy::wire::trailers::Trailers;

/// What is read at once at first; of what comes faster, as much as a parcel holds.
const FIRST: usize = 16 << 10;

/// A body of which some is still to come.
#[derive(Debug)]
pub(in crate::proxy) struct Coming {
    body: Body,
    /// What is read into; empty from one read to the next.
    buffer: BytesMut,
    /// What is read at once.
    most: usize,
    waited: Waited,
    is_malformed: bool,
}

impl Coming {
    /// What comes of `body` behind the bytes that are in `first`, which were found to be of it; those go into `parcel`.
    /// How long it is `waited` for is counted.
    pub(in crate::proxy) fn new(body: Body, first: BytesMut, waited: Waited, parcel: &mut Parcel) -> Self {
        let mut coming = Coming { body, buffer: first, most: FIRST, waited, is_malformed: false };
        if !coming.buffer.is_empty() {
            let behind = coming.take(parcel);
            debug_assert!(behind.is_ok_and(|behind| behind.is_empty()));
        }
        coming
    }

    /// Whether all of it has come.
    pub(in crate::proxy) fn is_done(&self) -> bool {
        self.body.is_done()
    }

    /// The trailers behind it, once all of it has come.
    pub(in crate::proxy) fn trailers(&self) -> Trailers {
        match &self.body {
            Body::Length(_) => Trailers::default(),
            Body::Chunked(chunked) => Trailers::of_lines(chunked.trailers()),
        }
    }

    /// Whether what came is no body.
    pub(in crate::proxy) fn is_malformed(&self) -> bool {
        self.is_malformed
    }

    /// Moves what was read into `parcel`; what came behind the body.
    fn take(&mut self, parcel: &mut Parcel) -> Result<Bytes> {
        let all = self.buffer.split().freeze();
        let part = match &mut self.body {
            Body::Chunked(chunked) => chunked.decode(&all, |piece| parcel.push_part(&all, piece)),
            length @ Body::Length(_) => length.follow(&all).inspect(|part| parcel.push_part(&all, &all[..*part])),
        };
        let Ok(part) = part else {
            self.is_malformed = true;
            return Err(Error::explain(ErrorType::InvalidHTTPHeader, "a malformed body").into_down());
        };
        Ok(all.slice(part..))
    }

    /// How many bytes to read now.
    fn room(&self, parcel: &mut Parcel) -> usize {
        // Framing takes room, too, so a parcel may be all but full.
        let room = parcel.room().min(self.most);
        match self.body {
            Body::Length(left) => room.min(usize::try_from(left).unwrap_or(usize::MAX)),
            Body::Chunked(_) => room,
        }
    }
}

/// A body that comes over a connection.
pub(in crate::proxy) struct ComingOver<'o, S> {
    /// What of it is still to come.
    pub(in crate::proxy) coming: &'o mut Coming,
    /// The connection.
    pub(in crate::proxy) stream: &'o mut S,
    /// Where that goes that comes behind it.
    pub(in crate::proxy) ahead: &'o mut BytesMut,
}

impl<S: AsyncRead + Unpin> BodySource for ComingOver<'_, S> {
    fn poll_more(&mut self, cx: &mut Context<'_>, parcel: &mut Parcel) -> Poll<Result<()>> {
        let coming = &mut *self.coming;
        let mut any = false;
        while !coming.body.is_done() {
            let room = coming.room(parcel);
            if room == 0 {
                break;
            }
            coming.buffer.reserve(room);
            let mut buffer = (&mut coming.buffer).limit(room);
            // It keeps nothing from one poll to the next.
            let read = pin!(self.stream.read_buf(&mut buffer)).poll(cx);
            let read = match coming.waited.note(read) {
                Poll::Ready(Ok(read @ 1..)) => read,
                Poll::Ready(end) => {
                    let gone = "the client went";
                    return Poll::Ready(Err(match end {
                        Ok(_) => Error::explain(ErrorType::ConnectionClosed, gone).into_down(),
                        Err(error) => Error::because(ErrorType::ReadError, gone, error).into_down(),
                    }));
                }
                Poll::Pending if any => break,
                Poll::Pending => return Poll::Pending,
            };
            any = true;
            if read == room {
                coming.most = usize::MAX;
            }
            let behind = coming.take(parcel)?;
            self.ahead.extend_from_slice(&behind);
        }
        Poll::Ready(Ok(()))
    }

    fn is_over(&self) -> bool {
        self.coming.body.is_done()
    }

    fn trailers(&mut self) -> Trailers {
        self.coming.trailers()
    }

    fn sent(&mut self, _bytes: usize) {}

    fn waited(&self) -> Duration {
        self.coming.waited.so_far()
    }
}
