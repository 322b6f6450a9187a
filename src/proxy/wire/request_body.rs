//! Where a request's body ends.

use crate::proxy::wire::chunked::{Chunked, MalformedChunks};

/// What of the request's body is still to come.
#[derive(Clone, Debug)]
pub(in crate::proxy) enum Body {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunked),
}

impl Body {
    /// How many of `bytes`, which come next, belong to the body.
    ///
    /// # Errors
    /// When they cannot be a body.
    pub(in crate::proxy) fn follow(&mut self, bytes: &[u8]) -> Result<usize, MalformedChunks> {
        match self {
            Body::Length(left) => {
                let part = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= part as u64;
                Ok(part)
            }
            Body::Chunked(chunked) => chunked.follow(bytes),
        }
    }

    /// Whether all of it has come.
    pub(in crate::proxy) fn is_done(&self) -> bool {
        match self {
            Body::Length(left) => *left == 0,
            Body::Chunked(chunked) => chunked.is_done(),
        }
    }
}
