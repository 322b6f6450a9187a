//! Reading the fields of an object, each of which may be wrong on its own.

use super::error::MAX_FIELDS;
use super::json::{SHOWN, Value};
use super::{ApiError, FieldError};
use crate::spelling::closest;

/// The fields of an object while they are read. What is wrong is collected, so that it can be told all at once.
#[derive(Debug)]
pub(in crate::admin) struct BodyFields {
    prefix: String,
    values: Vec<(String, Value)>,
    errors: Vec<FieldError>,
    is_object: bool,
}

impl BodyFields {
    /// The fields of `value`, which must be an object with no others than those in `known`. `prefix` stands before
    /// their names in messages, such as `[3].`; for the body itself it is empty.
    pub(in crate::admin) fn new(value: Value, prefix: &str, known: &[&str]) -> Self {
        let mut fields =
            BodyFields { prefix: prefix.to_owned(), values: Vec::new(), errors: Vec::new(), is_object: true };
        let Value::Object(values) = value else {
            fields.is_object = false;
            let whole = prefix.strip_suffix('.').filter(|whole| !whole.is_empty()).unwrap_or("body");
            fields.errors.push(FieldError::new(whole, "must be a JSON object"));
            return fields;
        };
        for (name, value) in values {
            if known.contains(&name.as_str()) {
                fields.values.push((name, value));
            } else {
                let shown: String = name.chars().take(SHOWN).collect();
                // Looking for what was meant takes time; whoever sends thousands of names is not told of all of them
                // anyway.
                let told = fields.errors.len() < MAX_FIELDS;
                fields.wrong(&shown, if told { unknown(&shown, known) } else { String::new() });
            }
        }
        fields
    }

    /// Whether the field is there.
    pub(in crate::admin) fn has(&self, name: &str) -> bool {
        self.values.iter().any(|(known, _)| known == name)
    }

    /// Takes a field out.
    pub(in crate::admin) fn take(&mut self, name: &str) -> Option<Value> {
        let at = self.values.iter().position(|(known, _)| known == name)?;
        Some(self.values.swap_remove(at).1)
    }

    /// Takes a field out and reads it with `read`, which says what is allowed when it cannot. `None` when it is not
    /// there or is wrong.
    pub(in crate::admin) fn read<T>(&mut self, name: &str, read: impl FnOnce(Value) -> Result<T, String>) -> Option<T> {
        match read(self.take(name)?) {
            Ok(value) => Some(value),
            Err(message) => {
                self.wrong(name, message);
                None
            }
        }
    }

    /// As [`read`](BodyFields::read), for a field that must be there.
    pub(in crate::admin) fn require<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(Value) -> Result<T, String>,
    ) -> Option<T> {
        // Of what is no object, nothing more is said.
        if !self.has(name) && self.is_object {
            self.wrong(name, "is required");
        }
        self.read(name, read)
    }

    /// Notes that a field is wrong.
    pub(in crate::admin) fn wrong(&mut self, name: &str, message: impl Into<String>) {
        self.errors.push(FieldError::new(format!("{}{name}", self.prefix), message));
    }

    /// What is wrong so far.
    pub(in crate::admin) fn into_errors(self) -> Vec<FieldError> {
        self.errors
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// 422 with everything that was wrong.
    pub(in crate::admin) fn finish(self) -> Result<(), ApiError> {
        if self.errors.is_empty() { Ok(()) } else { Err(ApiError::fields(self.errors)) }
    }
}

/// What is said of an unknown field: the known one that it resembles, else all of them.
fn unknown(name: &str, known: &[&str]) -> String {
    match closest(name, known.iter().copied()) {
        Some(known) => format!("is unknown; did you mean {known}?"),
        None => format!("is unknown; the fields are {}", known.join(", ")),
    }
}
