//! The script of turns as calls and answers.

use std::time::Duration;

use redis::Value;

use super::bucket::{call, integers, millis, narrow};
use super::link::{LinkError, ScriptCall};
use super::names::Names;
use super::script::TURNS;
use crate::limit::turns::shared::TurnsTold;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

/// What a node asks of the turns of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TurnsAsk<'a> {
    /// This process.
    pub holder: &'a str,
    /// The requests that run there: held, whether there is room for them or not.
    pub running: u32,
    /// With them, those that it may begin without a further question: held if it has held them.
    pub keeps: u32,
    /// Further ones that it wants: held as far as there is room.
    pub wants: u32,
    /// How many may run over all nodes.
    pub most: u32,
    /// Later questions of a holder have larger numbers; one that comes after a later one changes nothing.
    pub number: u64,
    /// How long it may use what it holds; the store keeps it from others a tenth longer.
    pub valid: Duration,
}

/// Asks of the turns of the caller with that key.
pub fn ask(names: &Names, key: u128, ask: &TurnsAsk<'_>) -> ScriptCall {
    let mut args = vec![ask.holder.into()];
    args.extend([ask.running, ask.keeps, ask.wants, ask.most].map(|number| number.to_string().into_bytes()));
    args.extend([millis(ask.valid).to_string().into_bytes(), ask.number.to_string().into_bytes()]);
    call(&TURNS, names.turns(key), args)
}

/// The answer to that.
///
/// # Errors
/// When it is none.
pub fn read(value: &Value) -> Result<TurnsTold, LinkError> {
    integers(value).map(|[held, others]| TurnsTold { held: narrow(held), others: narrow(others) })
}
