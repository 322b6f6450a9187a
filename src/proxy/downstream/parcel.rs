//! What has come of a request's body and is on its way to the backend, without a copy where it is worth one.
//!
//! Pieces stay where they were read; small ones are put together, or a client that sends byte by byte would have each
//! byte cost a piece. While all of the body that has come is little ([`MAX_BODY`]) it is kept after it was sent, so
//! that it can be sent once more; what comes beyond that makes room by what was sent.

use std::io::IoSlice;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pingora_core::Result;

use crate::proxy::downstream::arrived::MAX_BODY;
use crate::proxy::wire::trailers::Trailers;

/// The most that is kept of a body, in bytes, and what is read of one before it is passed on.
pub(in crate::proxy) const MOST: usize = MAX_BODY as usize;
/// Pieces below this size are put together.
pub(in crate::proxy) const SMALL: usize = 4 << 10;

/// Where a body comes from.
pub(in crate::proxy) trait BodySource {
    /// Reads on, and adds what comes to `parcel`, of which all has been sent. Ready when something came, or the end
    /// did.
    ///
    /// # Errors
    /// When the client is gone, or it is no body; all of them the client's doing.
    fn poll_more(&mut self, cx: &mut Context<'_>, parcel: &mut Parcel) -> Poll<Result<()>>;

    /// Takes note of what has come while nobody takes it.
    fn gather(&mut self, _cx: &mut Context<'_>) {}

    /// Whether all of it has come.
    fn is_over(&self) -> bool;

    /// The trailers behind it, once all of it has come.
    fn trailers(&mut self) -> Trailers;

    /// Takes note that so many bytes of it were sent.
    fn sent(&mut self, bytes: usize);

    /// How long it was waited for.
    fn waited(&self) -> Duration;
}

/// A part of a body: what is to be sent, and maybe what was.
#[derive(Debug)]
pub(in crate::proxy) struct Parcel {
    pieces: Vec<Bytes>,
    /// The last one, while it grows.
    tail: BytesMut,
    /// Bytes in all of them.
    length: usize,
    /// How many of them were sent.
    sent: usize,
    /// Whether all that ever came is here.
    is_whole: bool,
}

impl Parcel {
    /// An empty one.
    pub(in crate::proxy) fn new() -> Self {
        Parcel { pieces: Vec::new(), tail: BytesMut::new(), length: 0, sent: 0, is_whole: true }
    }

    /// What is to be sent of it, in bytes.
    pub(in crate::proxy) fn unsent(&self) -> usize {
        self.length - self.sent
    }

    /// Whether all of the body that has come is here.
    pub(in crate::proxy) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// How much more it has room for; makes room where there is none, now that all of it was sent.
    pub(in crate::proxy) fn room(&mut self) -> usize {
        if self.unsent() == 0 && (self.length >= MOST || !self.is_whole) {
            self.forget();
        }
        MOST.saturating_sub(self.length)
    }

    /// Adds a piece.
    pub(in crate::proxy) fn push(&mut self, piece: Bytes) {
        if piece.len() < SMALL {
            return self.push_copy(&piece);
        }
        self.begin(piece.len());
        if !self.tail.is_empty() {
            self.pieces.push(self.tail.split().freeze());
        }
        self.pieces.push(piece);
    }

    /// Adds a piece that is small.
    pub(in crate::proxy) fn push_copy(&mut self, piece: &[u8]) {
        self.begin(piece.len());
        self.tail.extend_from_slice(piece);
    }

    /// Adds the bytes of `all` that are in `part` of it.
    pub(in crate::proxy) fn push_part(&mut self, all: &Bytes, part: &[u8]) {
        if part.len() < SMALL { self.push_copy(part) } else { self.push(all.slice_ref(part)) }
    }

    /// Makes room for so many bytes.
    fn begin(&mut self, bytes: usize) {
        self.is_whole &= self.length + bytes <= MOST;
        if !self.is_whole && self.unsent() == 0 {
            self.forget();
        }
        self.length += bytes;
    }

    /// Lets go of all that is here, all of which was sent.
    fn forget(&mut self) {
        self.is_whole &= self.length == 0;
        self.pieces.clear();
        self.tail.clear();
        (self.length, self.sent) = (0, 0);
    }

    /// Puts what is to be sent into `slices`, from `at` on, as far as they reach; where the next one goes.
    pub(in crate::proxy) fn fill<'p>(&'p self, slices: &mut [IoSlice<'p>], mut at: usize) -> usize {
        let mut skip = self.sent;
        for piece in self.pieces.iter().map(|piece| &piece[..]).chain([&self.tail[..]]) {
            let part = &piece[skip.min(piece.len())..];
            skip -= piece.len() - part.len();
            if !part.is_empty() && at < slices.len() {
                slices[at] = IoSlice::new(part);
                at += 1;
            }
        }
        at
    }

    /// Takes note that so many bytes of it were sent.
    pub(in crate::proxy) fn advance(&mut self, bytes: usize) {
        self.sent += bytes;
        debug_assert!(self.sent <= self.length);
    }

    /// All of it is to be sent again. It has to be whole.
    pub(in crate::proxy) fn rewind(&mut self) {
        self.sent = 0;
    }

    /// Throws away what has come.
    pub(in crate::proxy) fn discard(&mut self) {
        self.sent = self.length;
        self.forget();
    }
}
