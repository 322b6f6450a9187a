//! One key of the file: what was written there, and whether it can be that.
//!
//! A wrong value is kept beside the right ones instead of ending the reading, so that one mistake does not hide the
//! others. Each kind of value says what it wants once; the message and the schema both come from there.

use std::borrow::Cow;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, DeserializeOwned, Deserializer};
use serde_yaml::Value;

use super::value::{Filled, ValueKind, describe, filled};
use crate::proxy::STATUSES;

/// What was written at one key.
#[derive(Debug, Default)]
pub(super) enum Written<T: ValueKind> {
    /// Nothing: the file does not have the key.
    #[default]
    Absent,
    /// Something that is not allowed; this says why.
    Wrong(String),
    /// Something that is not known, which was reported.
    Told,
    /// A value.
    Given(T::Checked),
}

impl<T: ValueKind> Written<T> {
    /// Reads what is written.
    pub(super) fn read(value: &Value) -> Self {
        match filled(value) {
            Some(Filled::Told) => return Written::Told,
            Some(Filled::With(text, stands)) => return Self::read_filled(text, &stands),
            None => {}
        }
        // Values see through their tags. No key here knows what a tag means, so none may carry one.
        let checked = if let Value::Tagged(_) = value { None } else { T::read(value) };
        match checked {
            Some(checked) => Written::Given(checked),
            None if *value == Value::Null => Written::Wrong(format!("has no value, must be {}", T::wanted())),
            None => {
                let hint = T::hint(value).map_or_else(String::new, |hint| format!(": {hint}"));
                Written::Wrong(format!("must be {}, not {}{hint}", T::wanted(), describe(value)))
            }
        }
    }

    /// Reads what variables say, which may be meant as a number, or as true or false. Messages show what stands there.
    fn read_filled(text: &str, stands: &str) -> Self {
        let number = || {
            let whole = text.parse::<u64>().map(Value::from).or_else(|_| text.parse::<i64>().map(Value::from));
            whole.ok().or_else(|| text.parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::from))
        };
        let bare = || number().or_else(|| text.parse::<bool>().ok().map(Value::from));
        let checked = T::read(&text.into()).or_else(|| T::read(&bare()?));
        checked.map_or_else(
            || Written::Wrong(format!("must be {}, not what {} says", T::wanted(), describe(&stands.into()))),
            Written::Given,
        )
    }

    /// Reads the text of an argument.
    pub(super) fn read_text(text: &str) -> Self {
        Self::read(&text.parse::<u64>().map_or_else(|_| Value::from(text), Value::from))
    }
}

impl<'de, T: ValueKind> Deserialize<'de> for Written<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(|value| Written::read(&value))
    }
}

impl<T: ValueKind> JsonSchema for Written<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Written".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::schema(generator)
    }
}

/// A mapping of known keys, read into `T`.
#[derive(Debug)]
pub(super) struct Section<T>(PhantomData<T>);

impl<T: DeserializeOwned + JsonSchema> ValueKind for Section<T> {
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

/// A mapping of names that are not known beforehand to `T`, in the order of the file.
#[derive(Debug)]
pub(super) struct Map<T>(PhantomData<T>);

impl<T: ValueKind> ValueKind for Map<T> {
    type Checked = Vec<(String, Written<T>)>;
    const WANTED: &str = "a mapping of names to values";

    fn read(value: &Value) -> Option<Self::Checked> {
        let pairs = value.as_mapping()?.iter();
        pairs.map(|(name, value)| Some((name.as_str()?.to_owned(), Written::read(value)))).collect()
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "object", "additionalProperties": T::schema(generator)})
    }
}

/// A mapping of statuses of HTTP to `T`, in the order of the file. Which statuses can be there is checked later.
#[derive(Debug)]
pub(super) struct Statuses<T>(PhantomData<T>);

impl<T: ValueKind> ValueKind for Statuses<T> {
    type Checked = Vec<(String, Written<T>)>;
    const WANTED: &str = "a mapping of statuses, such as 429";

    fn read(value: &Value) -> Option<Self::Checked> {
        let text = |name: &Value| name.as_str().map(str::to_owned).or_else(|| Some(name.as_i64()?.to_string()));
        value.as_mapping()?.iter().map(|(name, value)| Some((text(name)?, Written::read(value)))).collect()
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let names = STATUSES.map(|status| status.to_string());
        json_schema!({"type": "object", "propertyNames": {"enum": names}, "additionalProperties": T::schema(generator)})
    }
}

/// A list of at least `MIN` (0 or 1) `T`.
#[derive(Debug)]
pub(super) struct List<T, const MIN: usize = 1>(PhantomData<T>);

impl<T: ValueKind, const MIN: usize> ValueKind for List<T, MIN> {
    type Checked = Vec<Written<T>>;

    fn wanted() -> String {
        if MIN == 0 { "a list".to_owned() } else { "a list with at least one item".to_owned() }
    }

    fn read(value: &Value) -> Option<Vec<Written<T>>> {
        let items = value.as_sequence().filter(|items| items.len() >= MIN)?;
        Some(items.iter().map(Written::read).collect())
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "array", "minItems": MIN, "items": T::schema(generator)})
    }
}
