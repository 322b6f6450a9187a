//! A value that variables of the environment have a part in.
//!
//! It is marked by a tag, which a value of the file keeps wherever it goes. The mark holds what the file says, for messages.

use serde_yaml::Value;
use serde_yaml::value::{Tag, TaggedValue};

/// What marks a text that holds values of variables; what the file says stands behind it.
const FILLED: &str = "\0filled ";
/// What marks one that could not be filled, which is told.
const TOLD: &str = "\0told";

/// A scalar of the file as variables left it.
pub(in crate::config) enum Filled<'v> {
    /// Some were put in: what it says now, and what stands in the file.
    With(&'v str, String),
    /// They could not be, which was reported.
    Told,
}

/// What `value` is if it has variables; none for all others.
pub(in crate::config) fn filled(value: &Value) -> Option<Filled<'_>> {
    let Value::Tagged(tagged) = value else { return None };
    let tag = tagged.tag.to_string();
    let tag = tag.strip_prefix('!').unwrap_or(&tag);
    if tag == TOLD {
        return Some(Filled::Told);
    }
    Some(Filled::With(tagged.value.as_str()?, tag.strip_prefix(FILLED)?.to_owned()))
}

impl Filled<'_> {
    /// It as a value of the file.
    pub(in crate::config) fn marked(&self) -> Value {
        let (mark, value) = match self {
            Filled::With(text, stands) => (format!("{FILLED}{stands}"), (*text).into()),
            Filled::Told => (TOLD.to_owned(), Value::Null),
        };
        Value::Tagged(Box::new(TaggedValue { tag: Tag::new(mark), value }))
    }
}
