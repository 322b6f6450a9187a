//! What every kind of value is.

use std::borrow::Cow;

use schemars::{Schema, SchemaGenerator};
use serde_yaml::Value;

/// A kind of value that a key can have.
pub(in crate::config) trait ValueKind {
    /// What it is read into.
    type Checked;

    /// What is allowed, after "must be", where that is one text.
    const WANTED: &str = "";
    /// What is allowed, for an editor, where that is one JSON Schema.
    const SCHEMA: &str = "{}";

    /// What is allowed, after "must be".
    fn wanted() -> String {
        Self::WANTED.to_owned()
    }

    /// Reads `value`; none when it is not allowed.
    fn read(value: &Value) -> Option<Self::Checked>;

    /// What to say of `refused` beyond what is wanted.
    fn hint(refused: &Value) -> Option<String> {
        of_quotes::<Self>(refused)
    }

    /// What is allowed, for an editor.
    fn schema(_: &mut SchemaGenerator) -> Schema {
        serde_json::from_str(Self::SCHEMA).expect("the schema of a kind is JSON, as the test of the whole schema shows")
    }
}

/// What to say where `refused` lacks quotes, or has some too many.
pub(in crate::config) fn of_quotes<T: ValueKind + ?Sized>(refused: &Value) -> Option<String> {
    requoted(refused).find(|(value, _)| T::read(value).is_some()).map(|(_, hint)| hint.to_owned())
}

/// A value as a message shows it.
pub(in crate::config) fn describe(value: &Value) -> String {
    const SHOWN: usize = 60;
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => match &*without_login(text) {
            text if text.chars().count() > SHOWN => {
                format!("{:?} and so on", text.chars().take(SHOWN).collect::<String>())
            }
            text => format!("{text:?}"),
        },
        Value::Sequence(items) if items.is_empty() => "an empty list".to_owned(),
        Value::Sequence(items) => {
            let items: Option<Vec<_>> = items.iter().map(plain).collect();
            let items = items.map(|items| format!("[{}]", items.join(", ")));
            items.filter(|items| items.len() <= SHOWN).unwrap_or_else(|| "a list".to_owned())
        }
        Value::Mapping(keys) if keys.is_empty() => "an empty mapping".to_owned(),
        Value::Mapping(keys) => {
            let keys: Option<Vec<_>> =
                keys.iter().map(|(key, value)| Some(format!("{}: {}", key.as_str()?, plain(value)?))).collect();
            let keys = keys.map(|keys| format!("{{{}}}", keys.join(", ")));
            keys.filter(|keys| keys.len() <= SHOWN).unwrap_or_else(|| "a mapping".to_owned())
        }
        Value::Tagged(tagged) => format!("a value with the tag {}", tagged.tag),
    }
}

/// `text` without the user and the password of an address.
fn without_login(text: &str) -> Cow<'_, str> {
    let login = text.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1)));
    login.map_or(text.into(), |(scheme, rest)| format!("{scheme}://***@{rest}").into())
}

/// A value that is no list and no mapping, as a message shows it within one.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => None,
        Value::Null => Some("null".to_owned()),
        _ => Some(describe(value)),
    }
}

/// What `value` would be with quotes, or without.
fn requoted(value: &Value) -> impl Iterator<Item = (Value, &'static str)> {
    let bare = value.as_str().and_then(|text| {
        let number = text.parse::<u64>().map(Value::from);
        number.or_else(|_| text.parse::<bool>().map(Value::from)).ok()
    });
    let quoted = (value.is_number() || value.is_bool()).then(|| Value::from(describe(value)));
    let bare = bare.map(|value| (value, "leave out the quotes"));
    bare.into_iter().chain(quoted.map(|value| (value, "put it in quotes")))
}
