//! What passes between a node and the store, as plain values.

use std::time::Duration;

use crate::client::Quota;
use crate::limit::bucket::Nanos;
use crate::limit::key::Key;

/// What is to be asked about one bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketQuestion {
    /// Which.
    pub key: Key,
    /// Its quota, as this node knows it.
    pub quota: Quota,
    /// Tokens of the lease that are still held.
    pub left: u32,
    /// Tokens for requests that wait.
    pub want: u32,
    /// Tokens to hold for later, at most.
    pub ahead: u32,
    /// Of what is there, at most one part in so many is held for later.
    pub divisor: u32,
    /// Tokens that were given without having been asked for.
    pub debit: u64,
    /// Tokens that go back.
    pub back: u32,
    /// For how long what is held may be spent; the store keeps it from others a tenth longer.
    pub valid: Duration,
    /// Above that of every question before.
    pub number: u64,
    /// That of the last one about the bucket that was answered, or one from before there was any.
    pub known: u64,
}

/// What the store said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Tokens for the requests that waited.
    pub granted: u32,
    /// Tokens to hold for later, beside what was still held.
    pub ahead: u32,
    /// What is left there; below zero for a debt.
    pub tokens: i64,
    /// For how long the next one has been earned, in nanoseconds.
    pub age: Nanos,
}
