//! The seam: what the proxy asks of a limiter.
//!
//! [`Striped`](crate::limit::Striped) is the limiter of one process. One that shares its tokens among several nodes fits
//! behind the same four calls, as long as it answers from memory: a request never waits for a limiter, so no call is
//! asynchronous and none can fail.

use crate::client::Quota;
use crate::limit::bucket::Nanos;
use crate::limit::decision::{Decision, Standing};
use crate::limit::key::Key;

/// Gives every key its own token bucket.
///
/// Contract: for each key that has a bucket (a limiter may let anonymous callers share one when it is full) and any time t, at most C + ρ·t takes are allowed, whatever the threads that ask. `quota` is what
/// the key's owner has now; a bucket that last saw another one adapts as in [`edit`](Limiter::edit). `now` is the time
/// since one epoch for all calls; it may repeat and step back, which credits nothing.
///
/// A limiter may hold the quota of anonymous callers itself. Then `quota` does not count for them, and the standing says which
/// one did.
pub trait Limiter: Send + Sync {
    /// Takes a token from the bucket of `key`, or refuses.
    fn take(&self, key: Key, quota: Quota, now: Nanos) -> Decision;

    /// How the bucket of `key` stands. Takes nothing and makes no bucket.
    fn peek(&self, key: Key, quota: Quota, now: Nanos) -> Standing;

    /// Puts the bucket of `key` under the quota `to`, from now on: it keeps its tokens, clamped to the new capacity. A
    /// bucket that is not there was full under `from`.
    fn edit(&self, key: Key, from: Quota, to: Quota, now: Nanos);

    /// Makes the bucket of `key` full, under `quota`.
    fn reset(&self, key: Key, quota: Quota, now: Nanos);
}
