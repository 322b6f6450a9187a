//! What an access line holds, in the words of the file.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_yaml::Value;

use super::kind::{ValueKind, of_quotes};
use crate::spelling::closest;
use crate::telemetry::{AccessField, NamedField};

/// A name in a line that needs no escapes.
const NAME: &str = "^[A-Za-z0-9_.@-]{1,64}$";

/// A field of a line, by its name, or with another one: `{status: code}`.
#[derive(Debug)]
pub(in crate::config) struct LineField;

impl ValueKind for LineField {
    type Checked = NamedField;

    fn wanted() -> String {
        let names: Vec<_> = AccessField::ALL.iter().map(|(name, _)| *name).collect();
        format!(
            "a field, or one with another name of up to 64 letters, digits and _.@-, such as {{status: code}} (fields: {})",
            names.join(", ")
        )
    }

    fn read(value: &Value) -> Option<NamedField> {
        let (known, name) = match value.as_mapping() {
            Some(pairs) if pairs.len() == 1 => {
                let (known, name) = pairs.iter().next()?;
                (known.as_str()?, name.as_str()?)
            }
            Some(_) => return None,
            None => (value.as_str()?, value.as_str()?),
        };
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.@-".contains(&byte);
        let (_, field) = *AccessField::ALL.iter().find(|(field, _)| *field == known)?;
        ((1..=64).contains(&name.len()) && name.bytes().all(is_plain))
            .then(|| NamedField { field, name: name.to_owned() })
    }

    fn hint(refused: &Value) -> Option<String> {
        let name = refused.as_str().or_else(|| refused.as_mapping()?.keys().next()?.as_str());
        let known = || AccessField::ALL.iter().map(|(name, _)| *name);
        let close = name.filter(|name| known().all(|known| known != *name)).and_then(|name| closest(name, known()));
        close.map(|close| format!("did you mean {close}?")).or_else(|| of_quotes::<Self>(refused))
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        let names = AccessField::ALL.map(|(name, _)| name);
        json_schema!({"anyOf": [{"enum": names}, {
            "type": "object", "propertyNames": {"enum": names}, "minProperties": 1, "maxProperties": 1,
            "additionalProperties": {"type": "string", "pattern": NAME}
        }]})
    }
}
