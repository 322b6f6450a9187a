//! The shared buckets' scripts as calls and answers.

use std::time::Duration;

use redis::Value;

use crate::client::Quota;

use super::link::{LinkError, ScriptCall};
use super::names::Names;
use super::script::{BUCKET, GRANT, PEEK, RESET, Script};

#[cfg(test)]
mod losses;
pub mod model;
#[cfg(test)]
mod tests;

/// What a node asks of a shared bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketAsk<'a> {
    /// The quota as this node knows it.
    pub quota: Quota,
    /// This node.
    pub holder: &'a str,
    /// Tokens of its lease that it still holds, without those that it gives back.
    pub left: u32,
    /// Tokens for requests that wait: all that are there, up to so many.
    pub want: u32,
    /// Tokens to hold for later, at most.
    pub ahead: u32,
    /// At most one part in so many of what is there is held for later.
    pub divisor: u32,
    /// Tokens that were given without having been asked for: taken whether they are there or not.
    pub debit: u64,
    /// Tokens of its lease that it gives back.
    pub back: u32,
    /// How long it may spend what it holds; the store keeps them from others a tenth longer.
    pub valid: Duration,
    /// The number of this question, above those of all that this node asked before; 0 for none, which is not remembered.
    pub number: u64,
    /// The number of the last one that was answered: what a later one took is given back first.
    pub known: u64,
}

/// What the store says to that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BucketAnswer {
    /// Tokens for the requests that wait; spent.
    pub granted: u32,
    /// Tokens to hold for later, beside what is still held.
    pub ahead: u32,
    /// Whole tokens that are left in the store; below zero for a debt.
    pub tokens: i64,
    /// Microseconds that the next one has been earned for.
    pub age_us: u64,
    /// Tokens that other nodes hold.
    pub others: u32,
    /// Whether the store did not know the bucket.
    pub was_missing: bool,
    /// Whether it came after a later one: then nothing was done, and the rest is zeros.
    pub is_late: bool,
}

/// Asks of the bucket of a key.
pub fn ask(names: &Names, key: u128, ask: &BucketAsk<'_>) -> ScriptCall {
    let [left, want, ahead, divisor, back] =
        [ask.left, ask.want, ask.ahead, ask.divisor.max(1), ask.back].map(u64::from);
    // Beyond what Lua's numbers hold, a debt is as good as any other.
    let debit = ask.debit.min(1 << 50);
    let numbers = [left, want, ahead, divisor, debit, back, millis(ask.valid), ask.number, ask.known];
    let args = vec![with_quota(ask.quota, &numbers), ask.holder.as_bytes().to_vec()];
    call(&BUCKET, names.bucket(key), args)
}

/// Fills the bucket of a key, but for what nodes hold; once, where the change has a number.
pub fn reset(names: &Names, key: u128, of: Quota, once: Option<u64>) -> ScriptCall {
    let keys = [Some(names.bucket(key)), once.map(|change| names.changed(key, change))];
    ScriptCall { script: &RESET, keys: keys.into_iter().flatten().collect(), args: vec![with_quota(of, &[])] }
}

/// Adds tokens to the bucket of a key, above its capacity if need be; once, where the change has a number.
pub fn grant(names: &Names, key: u128, of: Quota, tokens: u32, once: Option<u64>) -> ScriptCall {
    let args = vec![with_quota(of, &[tokens.into()])];
    ScriptCall { script: &GRANT, args, ..reset(names, key, of, once) }
}

/// Looks at the bucket of a key, and changes nothing.
pub fn peek(names: &Names, key: u128, of: Quota) -> ScriptCall {
    call(&PEEK, names.bucket(key), vec![with_quota(of, &[])])
}

/// The answer to [`peek`]: thousandths of tokens, those that nodes hold among them; 0 for a debt.
pub fn read_thousandths(value: &Value) -> Result<u64, LinkError> {
    let [tokens, thousandths, held] = integers(value)?;
    Ok(u64::try_from((tokens + held) * 1_000 + thousandths).unwrap_or(0))
}

/// The answer to [`ask`].
pub fn read(value: &Value) -> Result<BucketAnswer, LinkError> {
    let [granted, ahead, tokens, age_us, others, missing, late] = doubles(value)?;
    Ok(BucketAnswer {
        granted: granted as u32,
        ahead: ahead as u32,
        tokens: tokens as i64,
        age_us: age_us as u64,
        others: others as u32,
        was_missing: missing != 0.0,
        is_late: late != 0.0,
    })
}

/// The answer to [`reset`] and [`grant`]: whole tokens in the store.
pub fn read_tokens(value: &Value) -> Result<i64, LinkError> {
    integers(value).map(|[tokens]| tokens)
}

pub(super) fn call(script: &'static Script, key: Vec<u8>, args: Vec<Vec<u8>>) -> ScriptCall {
    ScriptCall { script, keys: vec![key], args }
}

/// Capacity, whole tokens a second, the nanotokens beside them, and further numbers: as Lua has them, so that the store
/// reads no digits.
fn with_quota(quota: Quota, more: &[u64]) -> Vec<u8> {
    let nanos = quota.rate().nanos_per_sec();
    let of_quota = [u64::from(quota.capacity().get()), nanos / 1_000_000_000, nanos % 1_000_000_000];
    of_quota.iter().chain(more).flat_map(|number| (*number as f64).to_le_bytes()).collect()
}

/// Milliseconds, as a lease has them.
pub(super) fn millis(time: Duration) -> u64 {
    time.as_millis().clamp(1, 1_000_000_000) as u64
}

/// Numbers as Lua has them; whole ones, below 2^53.
fn doubles<const N: usize>(value: &Value) -> Result<[f64; N], LinkError> {
    let Value::BulkString(bytes) = value else { return Err(strange(N)) };
    let (numbers, []) = bytes.as_chunks() else { return Err(strange(N)) };
    let numbers: Vec<f64> = numbers.iter().map(|number| f64::from_le_bytes(*number)).collect();
    numbers.try_into().map_err(|_| strange(N))
}

fn strange(numbers: usize) -> LinkError {
    LinkError::Script(format!("not an answer of {numbers} numbers"))
}

pub(super) fn integers<const N: usize>(value: &Value) -> Result<[i64; N], LinkError> {
    let Value::Array(items) = value else { return Err(strange(N)) };
    let numbers = items.iter().map(|item| if let Value::Int(number) = item { Some(*number) } else { None });
    let numbers: Option<Vec<i64>> = numbers.collect();
    numbers.and_then(|numbers| numbers.try_into().ok()).ok_or_else(|| strange(N))
}

pub(super) fn narrow(number: i64) -> u32 {
    u32::try_from(number.max(0)).unwrap_or(u32::MAX)
}
