//! One key of the file: what was written there, and whether it can be that.
//!
//! A wrong value is kept beside the right ones instead of ending the reading, so that one mistake does not hide the
//! others. Each kind of value says what it wants once; the message and the schema both come from there.

use std::borrow::Cow;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, DeserializeOwned, Deserializer};
use serde_yaml::Value;

/// A kind of value that a key can have.
pub(super) trait Leaf {
    /// What it is read into.
    type Checked;

    /// What is allowed, after "must be".
    fn wanted() -> String;

    /// Reads `value`; none when it is not allowed.
    fn read(value: &Value) -> Option<Self::Checked>;

    /// What to say of `refused` beyond what is wanted.
    fn hint(refused: &Value) -> Option<String> {
        requoted(refused).find(|(value, _)| Self::read(value).is_some()).map(|(_, hint)| hint.to_owned())
    }

    /// What is allowed, for an editor.
    fn schema(generator: &mut SchemaGenerator) -> Schema;
}

/// What was written at one key.
#[derive(Debug, Default)]
pub(super) enum Key<T: Leaf> {
    /// Nothing: the file does not have the key.
    #[default]
    Absent,
    /// Something that is not allowed; this says why.
    Wrong(String),
    /// A value.
    Given(T::Checked),
}

impl<T: Leaf> Key<T> {
    /// Reads what is written.
    pub(super) fn read(value: &Value) -> Self {
        // Values see through their tags. No key here knows what a tag means, so none may carry one.
        let checked = if let Value::Tagged(_) = value { None } else { T::read(value) };
        match checked {
            Some(checked) => Key::Given(checked),
            None if *value == Value::Null => Key::Wrong(format!("has no value, must be {}", T::wanted())),
            None => {
                let hint = T::hint(value).map_or_else(String::new, |hint| format!(": {hint}"));
                Key::Wrong(format!("must be {}, not {}{hint}", T::wanted(), describe(value)))
            }
        }
    }

    /// Reads the text of an argument.
    pub(super) fn read_text(text: &str) -> Self {
        Self::read(&text.parse::<u64>().map_or_else(|_| Value::from(text), Value::from))
    }
}

impl<'de, T: Leaf> Deserialize<'de> for Key<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(|value| Key::read(&value))
    }
}

impl<T: Leaf> JsonSchema for Key<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Key".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::schema(generator)
    }
}

/// A mapping of known keys, read into `T`.
#[derive(Debug)]
pub(super) struct Section<T>(PhantomData<T>);

impl<T: DeserializeOwned + JsonSchema> Leaf for Section<T> {
    type Checked = T;

    fn wanted() -> String {
        let schema = SchemaGenerator::default().into_root_schema_for::<T>();
        let keys = schema.get("properties").and_then(|keys| keys.as_object());
        let keys: Vec<_> = keys.into_iter().flat_map(|keys| keys.keys()).map(String::as_str).collect();
        format!("a mapping (keys: {})", keys.join(", "))
    }

    fn read(value: &Value) -> Option<T> {
        value.is_mapping().then(|| T::deserialize(value).ok()).flatten()
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// A list of at least `MIN` (0 or 1) `T`.
#[derive(Debug)]
pub(super) struct List<T, const MIN: usize = 1>(PhantomData<T>);

impl<T: Leaf, const MIN: usize> Leaf for List<T, MIN> {
    type Checked = Vec<Key<T>>;

    fn wanted() -> String {
        if MIN == 0 { "a list".to_owned() } else { "a list with at least one item".to_owned() }
    }

    fn read(value: &Value) -> Option<Vec<Key<T>>> {
        let items = value.as_sequence().filter(|items| items.len() >= MIN)?;
        Some(items.iter().map(Key::read).collect())
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "array", "minItems": MIN, "items": T::schema(generator)})
    }
}

/// A value as a message shows it.
pub(super) fn describe(value: &Value) -> String {
    const SHOWN: usize = 60;
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) if text.chars().count() > SHOWN => {
            format!("{:?} and so on", text.chars().take(SHOWN).collect::<String>())
        }
        Value::String(text) => format!("{text:?}"),
        Value::Sequence(items) if items.is_empty() => "an empty list".to_owned(),
        Value::Sequence(_) => "a list".to_owned(),
        Value::Mapping(_) => "a mapping".to_owned(),
        Value::Tagged(tagged) => format!("a value with the tag {}", tagged.tag),
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
