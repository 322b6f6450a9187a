//! Reading JSON, strictly.
//!
//! JSON leaves open what two equal keys mean, and libraries differ: the proxy in front believes the first, the service
//! behind it the last. Here that is an error, as are `NaN`, numbers that no `f64` holds, text that is not UTF-8,
//! anything behind the value, and nesting that no body of ours needs. The message says what is wrong and at which line
//! and column.
//!
//! A value takes more room in memory than in the text: `0,` is two bytes there and some thirty here. So the values of
//! one text are counted while they are read, and no more than so many are kept. Refused: a smaller bound on the bytes,
//! which would hit long notes and not short numbers.

use std::cell::Cell;
use std::fmt;

use http::StatusCode;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

use super::ApiError;

/// How deep arrays and objects may lie in each other.
const MAX_DEPTH: usize = 32;
/// How many values a body may hold, arrays and objects among them. A question with all its headers has some 2,200.
const MAX_VALUES: usize = 65_536;
/// How many values one item of many may hold. A client with all its addresses has some 1,010.
const MAX_ITEM_VALUES: usize = 4_096;
/// How much of a wrong name is repeated in a message.
pub(super) const SHOWN: usize = 64;

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::admin) enum Value {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number; one with a point or an exponent is a float, however whole.
    Number(Number),
    /// A string.
    String(String),
    /// An array.
    Array(Vec<Value>),
    /// An object, in the order of the text.
    Object(Vec<(String, Value)>),
}

/// Reads one JSON value.
///
/// # Errors
/// 400 that says what is wrong and where.
pub(in crate::admin) fn parse(text: &[u8]) -> Result<Value, ApiError> {
    if text.iter().all(u8::is_ascii_whitespace) {
        return Err(ApiError::bad_request("The body is empty; JSON was expected"));
    }
    parse_value(text, MAX_VALUES).map_err(|wrong| ApiError::bad_request(wrong.of(&"The body")))
}

/// Reads one JSON value that is a line of a longer text.
///
/// # Errors
/// 400 that says what is wrong and where, with the number of the line.
pub(in crate::admin) fn parse_line(text: &[u8], line: usize) -> Result<Value, ApiError> {
    parse_value(text, MAX_ITEM_VALUES).map_err(|wrong| {
        let wrong = match wrong {
            // The library counts lines from this one.
            Wrong::Syntax(wrong) => Wrong::Syntax(wrong.replace(" at line 1 column ", " at column ")),
            too_many => too_many,
        };
        ApiError::bad_request(wrong.of(&format_args!("Line {line}")))
    })
}

/// Reads a JSON array and gives `each` its items, one after the other.
///
/// # Errors
/// 400 that says what is wrong and where, or what `each` says, after which it gets no more; items before that have been
/// given.
pub(in crate::admin) fn parse_array(
    text: &[u8],
    each: impl FnMut(Value) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    let syntax = |wrong: String| ApiError::bad_request(Wrong::Syntax(wrong).of(&"The body"));
    check_utf8(text).map_err(syntax)?;
    let mut refused = None;
    let mut reader = serde_json::Deserializer::from_slice(text);
    let items = Items { each, refused: &mut refused };
    let read = serde::Deserializer::deserialize_seq(&mut reader, items).and_then(|()| reader.end());
    read.map_err(|error| refused.unwrap_or_else(|| syntax(error.to_string())))
}

/// Why a text is not read.
enum Wrong {
    /// It is not JSON; why and where.
    Syntax(String),
    /// It holds more values than this.
    TooMany(usize),
}

impl Wrong {
    /// The same in a sentence about `what`.
    fn of(&self, what: &dyn fmt::Display) -> String {
        match self {
            Wrong::Syntax(wrong) => format!("{what} is not JSON: {wrong}"),
            Wrong::TooMany(most) => {
                format!("{what} has too many values; at most {most} are allowed, arrays and objects counted too")
            }
        }
    }
}

fn parse_value(text: &[u8], most: usize) -> Result<Value, Wrong> {
    check_utf8(text).map_err(Wrong::Syntax)?;
    let budget = ValueBudget::new(most);
    let mut reader = serde_json::Deserializer::from_slice(text);
    let read = Seed::new(0, &budget).deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    read.map_err(|error| if budget.is_overdrawn() { Wrong::TooMany(most) } else { Wrong::Syntax(error.to_string()) })
}

fn check_utf8(text: &[u8]) -> Result<(), String> {
    std::str::from_utf8(text).map(drop).map_err(|error| format!("not UTF-8 at byte {}", error.valid_up_to() + 1))
}

/// Gives away the items of an array.
struct Items<'r, F> {
    each: F,
    /// Why there are to be no more.
    refused: &'r mut Option<ApiError>,
}

impl<'de, F: FnMut(Value) -> Result<(), ApiError>> Visitor<'de> for Items<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        for index in 0_usize.. {
            let budget = ValueBudget::new(MAX_ITEM_VALUES);
            let refusal = match items.next_element_seed(Seed::new(1, &budget)) {
                Ok(Some(value)) => (self.each)(value).err(),
                Ok(None) => break,
                Err(_) if budget.is_overdrawn() => {
                    let wrong = Wrong::TooMany(MAX_ITEM_VALUES);
                    Some(ApiError::bad_request(wrong.of(&format_args!("The item [{index}]"))))
                }
                Err(error) => return Err(error),
            };
            if let Some(refusal) = refusal {
                *self.refused = Some(refusal);
                return Err(A::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

/// How many values may still be read.
struct ValueBudget {
    /// One more than that; 0 once it was not enough.
    left: Cell<usize>,
}

impl ValueBudget {
    fn new(most: usize) -> Self {
        ValueBudget { left: Cell::new(most + 1) }
    }

    /// Takes one value out, if there is one.
    fn take(&self) -> bool {
        self.left.set(self.left.get().saturating_sub(1));
        !self.is_overdrawn()
    }

    fn is_overdrawn(&self) -> bool {
        self.left.get() == 0
    }
}

/// Reads a value that lies `depth` levels deep.
#[derive(Clone, Copy)]
struct Seed<'b> {
    depth: usize,
    budget: &'b ValueBudget,
}

impl<'b> Seed<'b> {
    fn new(depth: usize, budget: &'b ValueBudget) -> Self {
        Seed { depth, budget }
    }

    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        match self.depth {
            MAX_DEPTH.. => Err(E::custom(format_args!("nested deeper than {MAX_DEPTH} levels"))),
            depth => Ok(Seed { depth: depth + 1, ..self }),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if !self.budget.take() {
            return Err(D::Error::custom("too many values"));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(inner)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut values: Vec<(String, Value)> = Vec::new();
        let mut names = std::collections::HashSet::new();
        while let Some(name) = entries.next_key::<String>()? {
            if !names.insert(name.clone()) {
                return Err(A::Error::custom(format_args!("the key {} stands twice in one object", shown(&name))));
            }
            values.push((name, entries.next_value_seed(inner)?));
        }
        Ok(Value::Object(values))
    }
}

/// A text from outside for a message: quoted, escaped, and not too long.
pub(in crate::admin) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// Whether a `Content-Type` may stand above JSON.
///
/// None may, and neither of the types that `curl -d` and a merge patch send is refused: who forgets the header still
/// means JSON. A page of another origin can send a form's type without asking first, but never without an `Origin`
/// header, which the access checks refuse. `text/plain` and `multipart/form-data`, the other two that need no asking,
/// are refused here as well.
///
/// # Errors
/// 415 that names what is allowed.
pub(in crate::admin) fn check_content_type(value: Option<&http::HeaderValue>) -> Result<(), ApiError> {
    let Some(value) = value else { return Ok(()) };
    let text = value.to_str().unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let allowed = [
        "application/json",
        "application/merge-patch+json",
        "application/x-ndjson",
        "application/x-www-form-urlencoded",
    ];
    if allowed.contains(&essence.as_str()) {
        return Ok(());
    }
    let message = format!("The Content-Type {} is not supported; send application/json", shown(text));
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message))
}

#[cfg(test)]
mod tests;
