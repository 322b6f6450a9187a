//! What of answers lies here because clients do not take it.
//!
//! The problem: a client of HTTP/2 can ask for hundreds of long answers over one connection and take none. Each of them
//! may have been read for 64 KiB, since a fast client is served best so.
//!
//! The rule: only little is read of an answer before its client has taken what came before, until it has taken so much
//! that it can be seen to read ([`TAKES`]). What waits all the same counts, over all connections, and while that is
//! much, little is read of any answer.

use std::sync::atomic::{AtomicUsize, Ordering};

/// What may wait, in bytes, before it is much.
const MUCH: usize = 6 << 20;
/// What is read at once then, and of an answer of which the client has not taken much.
const LITTLE: usize = 16 << 10;
/// What a client has taken that reads, in bytes: more than its share of what both kernels take for one that does not.
const TAKES: usize = 256 << 10;

/// What waits for its client, in bytes. Any thread may use it at any time.
#[derive(Debug, Default)]
pub struct UntakenAnswers(AtomicUsize);

/// A part of an answer that waits for its client, until it is dropped.
#[derive(Debug)]
pub(in crate::proxy) struct HeldAnswer<'a> {
    all: &'a UntakenAnswers,
    bytes: usize,
}

impl UntakenAnswers {
    /// Counts so many bytes as long as what is returned is there.
    pub(in crate::proxy) fn hold(&self, bytes: usize) -> HeldAnswer<'_> {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        HeldAnswer { all: self, bytes }
    }

    /// The most that is to be read at once of an answer of which the client has taken so much.
    pub(in crate::proxy) fn room(&self, taken: usize) -> usize {
        if taken >= TAKES && self.0.load(Ordering::Relaxed) < MUCH { usize::MAX } else { LITTLE }
    }
}

impl Drop for HeldAnswer<'_> {
    fn drop(&mut self) {
        self.all.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_is_read_while_much_waits() {
        let all = UntakenAnswers::default();
        let mut held: Vec<_> = (0..MUCH >> 16).map(|_| all.hold(64 << 10)).collect();
        assert_eq!(all.room(usize::MAX), LITTLE);
        held.pop();
        assert_eq!((all.room(TAKES), all.room(TAKES - 1)), (usize::MAX, LITTLE));
        drop(held);
        assert_eq!(all.0.into_inner(), 0);
    }
}
