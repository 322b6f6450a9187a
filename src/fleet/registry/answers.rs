//! Reading what the registry's scripts answer.

use redis::Value;

use super::wire;
use crate::client::ClientId;
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
    /// It is added.
    Done {
        /// The last number.
        seq: u64,
        /// The mark of the first bulk that is not folded in.
        unfolded: Option<u64>,
    },
    /// Others came first.
    Behind(Vec<LogEntry>),
    /// What is kept is not what the caller has seen: another generation, or the store has lost something.
    Other,
    /// There is no registry.
    Empty,
    /// The store is behind the caller.
    Lost,
    /// Another has many changes to add, and comes first.
    Held,
    /// The stage is not what was put down.
    Stage,
}

/// One entry of the line.
#[derive(Debug, PartialEq)]
pub(super) struct LogEntry {
    pub(super) seq: u64,
    pub(super) mark: u64,
    pub(super) what: Logged,
}

/// What an entry of the line tells.
#[derive(Debug, PartialEq)]
pub(super) enum Logged {
    /// A change.
    One(Box<Authored>),
    /// So many, in the stage of the entry's mark.
    Bulk(usize),
    /// What makes no sense.
    Nonsense,
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
        "DONE" => {
            let seq = text(fields.get(1)?)?.parse().ok()?;
            Some(LineTurn::Done { seq, unfolded: fields.get(2).and_then(text)?.parse().ok() })
        }
        "BEHIND" => Some(LineTurn::Behind(line(fields.get(3)?)?)),
        "OTHER" => Some(LineTurn::Other),
        "EMPTY" => Some(LineTurn::Empty),
        "LOST" => Some(LineTurn::Lost),
        "HELD" => Some(LineTurn::Held),
        "STAGE" => Some(LineTurn::Stage),
        _ => None,
    }
}

/// A piece of the table of all clients.
#[derive(Debug)]
pub(super) struct TablePiece {
    /// The place to go on from.
    pub(super) next: Vec<u8>,
    /// Whose changes are in it.
    pub(super) ids: Vec<ClientId>,
    /// Those that make sense.
    pub(super) changes: Vec<Authored>,
}

/// A piece of the table of all clients.
pub(super) fn piece(value: &Value) -> Option<TablePiece> {
    let fields = list(value);
    let next = bytes(fields.first()?)?.to_vec();
    let pairs = list(fields.get(1)?);
    let change = |value: &Value| {
        // The order stands before it.
        let bytes = bytes(value)?;
        let start = bytes.iter().position(|byte| *byte == b'{')?;
        wire::read(&bytes[start..])
    };
    let id = |value: &Value| ClientId::parse(&text(value)?).ok();
    let ids = pairs.iter().step_by(2).filter_map(id).collect();
    Some(TablePiece { next, ids, changes: pairs.iter().skip(1).step_by(2).filter_map(change).collect() })
}

/// A piece of a stage; none for what makes no sense in it.
pub(super) fn staged(value: &Value) -> Vec<Option<Authored>> {
    // A change stands behind its client and its order.
    list(value).iter().skip(2).step_by(3).map(|change| bytes(change).and_then(wire::read)).collect()
}

/// The numbers in a list of them.
pub(super) fn numbers(value: &Value) -> Vec<u64> {
    list(value).iter().filter_map(|number| text(number)?.parse().ok()).collect()
}

/// A number.
pub(super) fn number(value: &Value) -> u64 {
    if let Value::Int(number) = value { number.unsigned_abs() } else { 0 }
}

/// Whether there is more to tend, and the mark of the first bulk that is not folded in.
pub(super) fn tended(value: &Value) -> Option<(bool, Option<u64>)> {
    let fields = list(value);
    Some((text(fields.first()?)? == "MORE", text(fields.get(1)?)?.parse().ok()))
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
    let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.parse::<u64>().ok();
    let bulk = field(b"b").and_then(number).and_then(|count| usize::try_from(count).ok());
    let what = match (bulk, field(b"c").and_then(wire::read)) {
        (Some(count), _) => Logged::Bulk(count),
        (None, Some(change)) => Logged::One(Box::new(change)),
        (None, None) => Logged::Nonsense,
    };
    Some(LogEntry { seq, mark: number(field(b"m")?)?, what })
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
