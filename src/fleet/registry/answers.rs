//! Reading what the registry's scripts answer.

use redis::Value;

use super::wire;
use crate::store::Authored;

/// Which registry the store has, and how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) lineage: u64,
    pub(super) generation: u64,
    pub(super) secret: u128,
    pub(super) seq: u64,
    pub(super) mark: u64,
}

/// The names of [`Meta`] in the store.
pub(super) const META: [&str; 5] = ["lineage", "generation", "secret", "seq", "mark"];

/// What was answered to who wanted to add to the line.
#[derive(Debug, PartialEq)]
pub(super) enum LineTurn {
    /// It is added; the last number.
    Done(u64),
    /// Others came first.
    Behind(Vec<LogEntry>),
    /// What is kept is not what the caller has seen: another generation, or the store has lost something.
    Other,
    /// There is no registry.
    Empty,
    /// The store is behind the caller.
    Lost,
}

/// One change in the line.
#[derive(Debug, PartialEq)]
pub(super) struct LogEntry {
    pub(super) seq: u64,
    pub(super) mark: u64,
    /// None when it makes no sense.
    pub(super) change: Option<Authored>,
}

/// The registry, none where there is none; an error for what makes no sense.
pub(super) fn meta(value: &Value) -> Result<Option<Meta>, &'static str> {
    let fields = list(value);
    let number = |at: usize| fields.get(at).and_then(text)?.parse().ok();
    if fields.get(1).is_none_or(|generation| text(generation).is_none()) {
        return Ok(None);
    }
    let meta = || {
        let secret = u128::from_str_radix(&fields.get(2).and_then(text)?, 16).ok()?;
        Some(Meta { lineage: number(0)?, generation: number(1)?, secret, seq: number(3)?, mark: number(4)? })
    };
    meta().map(Some).ok_or("the registry of clients in the store makes no sense")
}

/// What the script for adding answers.
pub(super) fn turn(value: &Value) -> Option<LineTurn> {
    let fields = list(value);
    match text(fields.first()?)?.as_str() {
        "DONE" => Some(LineTurn::Done(text(fields.get(1)?)?.parse().ok()?)),
        "BEHIND" => Some(LineTurn::Behind(line(fields.get(3)?)?)),
        "OTHER" => Some(LineTurn::Other),
        "EMPTY" => Some(LineTurn::Empty),
        "LOST" => Some(LineTurn::Lost),
        _ => None,
    }
}

/// The place to go on from, and the changes, of a piece of the table of all clients.
pub(super) fn piece(value: &Value) -> Option<(Vec<u8>, Vec<Authored>)> {
    let fields = list(value);
    let next = bytes(fields.first()?)?.to_vec();
    let pairs = list(fields.get(1)?);
    let change = |value: &Value| {
        // The order stands before it.
        let bytes = bytes(value)?;
        let start = bytes.iter().position(|byte| *byte == b'{')?;
        wire::read(&bytes[start..])
    };
    Some((next, pairs.iter().skip(1).step_by(2).filter_map(change).collect()))
}

/// A piece of the line.
pub(super) fn line(value: &Value) -> Option<Vec<LogEntry>> {
    list(value).iter().map(entry).collect()
}

fn entry(value: &Value) -> Option<LogEntry> {
    let parts = list(value);
    let seq = text(parts.first()?)?.split('-').next()?.parse().ok()?;
    let fields = list(parts.get(1)?);
    let field = |name: &[u8]| {
        let at = fields.iter().step_by(2).position(|field| bytes(field) == Some(name))?;
        bytes(fields.get(at * 2 + 1)?)
    };
    let mark = std::str::from_utf8(field(b"m")?).ok()?.parse().ok()?;
    Some(LogEntry { seq, mark, change: field(b"c").and_then(wire::read) })
}

fn list(value: &Value) -> &[Value] {
    match value {
        Value::Array(values) => values,
        _ => &[],
    }
}

fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

fn text(value: &Value) -> Option<String> {
    String::from_utf8(bytes(value)?.to_vec()).ok()
}
