//! Reading JSON, strictly.
//!
//! JSON leaves open what two equal keys mean, and libraries differ: the proxy in front believes the first, the service
//! behind it the last. Here that is an error, as are `NaN`, numbers that no `f64` holds, text that is not UTF-8,
//! anything behind the value, and nesting that no body of ours needs. The message says what is wrong and at which line
//! and column.

use std::fmt;

use http::StatusCode;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

use super::error::MAX_FIELDS;
use super::{ApiError, FieldError};

/// How deep arrays and objects may lie in each other.
const MAX_DEPTH: usize = 32;
/// How much of a wrong name is repeated in a message.
const SHOWN: usize = 64;

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
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
pub(super) fn parse(text: &[u8]) -> Result<Value, ApiError> {
    if text.iter().all(u8::is_ascii_whitespace) {
        return Err(ApiError::bad_request("The body is empty; JSON was expected"));
    }
    parse_value(text).map_err(|wrong| ApiError::bad_request(format!("The body is not JSON: {wrong}")))
}

/// Reads one JSON value that is a line of a longer text.
///
/// # Errors
/// What is wrong and where, with the number of the line.
pub(super) fn parse_line(text: &[u8], line: usize) -> Result<Value, String> {
    parse_value(text).map_err(|wrong| {
        // The library counts lines from this one.
        let wrong = wrong.replace(" at line 1 column ", " at column ");
        format!("Line {line} is not JSON: {wrong}")
    })
}

/// Reads a JSON array and gives `each` its items, one after the other.
///
/// # Errors
/// What is wrong and where; items before that have been given.
pub(super) fn parse_array(text: &[u8], each: impl FnMut(Value)) -> Result<(), String> {
    let wrong = |wrong: String| format!("The body is not JSON: {wrong}");
    check_utf8(text).map_err(wrong)?;
    let mut reader = serde_json::Deserializer::from_slice(text);
    let read = serde::Deserializer::deserialize_seq(&mut reader, Items(each)).and_then(|()| reader.end());
    read.map_err(|error| wrong(error.to_string()))
}

fn parse_value(text: &[u8]) -> Result<Value, String> {
    check_utf8(text)?;
    let mut reader = serde_json::Deserializer::from_slice(text);
    let read = Seed { depth: 0 }.deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    read.map_err(|error| error.to_string())
}

fn check_utf8(text: &[u8]) -> Result<(), String> {
    std::str::from_utf8(text).map(drop).map_err(|error| format!("not UTF-8 at byte {}", error.valid_up_to() + 1))
}

/// Gives away the items of an array.
struct Items<F>(F);

impl<'de, F: FnMut(Value)> Visitor<'de> for Items<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        while let Some(value) = items.next_element_seed(Seed { depth: 1 })? {
            self.0(value);
        }
        Ok(())
    }
}

/// Reads a value that lies `depth` levels deep.
#[derive(Clone, Copy)]
struct Seed {
    depth: usize,
}

impl Seed {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        match self.depth {
            MAX_DEPTH.. => Err(E::custom(format_args!("nested deeper than {MAX_DEPTH} levels"))),
            depth => Ok(Seed { depth: depth + 1 }),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Seed {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed {
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
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// The fields of an object while they are read. What is wrong is collected, so that it can be told all at once.
#[derive(Debug)]
pub(super) struct Fields {
    prefix: String,
    values: Vec<(String, Value)>,
    errors: Vec<FieldError>,
    is_object: bool,
}

impl Fields {
    /// The fields of `value`, which must be an object with no others than those in `known`. `prefix` stands before
    /// their names in messages, such as `[3].`; for the body itself it is empty.
    pub(super) fn new(value: Value, prefix: &str, known: &[&str]) -> Self {
        let mut fields = Fields { prefix: prefix.to_owned(), values: Vec::new(), errors: Vec::new(), is_object: true };
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
    pub(super) fn has(&self, name: &str) -> bool {
        self.values.iter().any(|(known, _)| known == name)
    }

    /// Takes a field out.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        let at = self.values.iter().position(|(known, _)| known == name)?;
        Some(self.values.swap_remove(at).1)
    }

    /// Takes a field out and reads it with `read`, which says what is allowed when it cannot. `None` when it is not
    /// there or is wrong.
    pub(super) fn read<T>(&mut self, name: &str, read: impl FnOnce(Value) -> Result<T, String>) -> Option<T> {
        match read(self.take(name)?) {
            Ok(value) => Some(value),
            Err(message) => {
                self.wrong(name, message);
                None
            }
        }
    }

    /// As [`read`](Fields::read), for a field that must be there.
    pub(super) fn require<T>(&mut self, name: &str, read: impl FnOnce(Value) -> Result<T, String>) -> Option<T> {
        // Of what is no object, nothing more is said.
        if !self.has(name) && self.is_object {
            self.wrong(name, "is required");
        }
        self.read(name, read)
    }

    /// Notes that a field is wrong.
    pub(super) fn wrong(&mut self, name: &str, message: impl Into<String>) {
        self.errors.push(FieldError::new(format!("{}{name}", self.prefix), message));
    }

    /// What is wrong so far.
    pub(super) fn into_errors(self) -> Vec<FieldError> {
        self.errors
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// 422 with everything that was wrong.
    pub(super) fn finish(self) -> Result<(), ApiError> {
        if self.errors.is_empty() { Ok(()) } else { Err(ApiError::fields(self.errors)) }
    }
}

/// What is said of an unknown field: the known one that it resembles, else all of them.
fn unknown(name: &str, known: &[&str]) -> String {
    let close = known.iter().map(|known| (strsim::damerau_levenshtein(name, known), known));
    match close.min() {
        Some((distance, known)) if distance <= known.len() / 3 => format!("is unknown; did you mean {known}?"),
        _ => format!("is unknown; the fields are {}", known.join(", ")),
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
pub(super) fn check_content_type(value: Option<&http::HeaderValue>) -> Result<(), ApiError> {
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
mod tests {
    use super::*;

    fn message(text: &[u8]) -> String {
        let error = parse(text).unwrap_err();
        assert_eq!(error.status, 400);
        error.message
    }

    #[test]
    fn json_is_read() {
        let value = parse(br#" {"a":[1,-2,3.5,null,true],"b":{"c":"\u00e4"}} "#).unwrap();
        let Value::Object(fields) = value else { panic!("{value:?}") };
        assert_eq!(fields[0].1, {
            let numbers = [1.into(), (-2).into(), Number::from_f64(3.5).unwrap()].map(Value::Number);
            Value::Array([numbers.as_slice(), &[Value::Null, Value::Bool(true)]].concat())
        });
        assert_eq!(fields[1].1, Value::Object(vec![("c".to_owned(), Value::String("ä".to_owned()))]));
    }

    #[test]
    fn what_is_no_json_is_refused_with_the_reason() {
        for (text, reason) in [
            (&b""[..], "The body is empty; JSON was expected"),
            (b" \n\t", "The body is empty; JSON was expected"),
            (b"{", "EOF while parsing an object at line 1 column 1"),
            (b"{} {}", "trailing characters at line 1 column 4"),
            (b"[NaN]", "expected value at line 1 column 2"),
            (b"[Infinity]", "expected value at line 1 column 2"),
            (b"[1e400]", "number out of range at line 1 column 6"),
            (b"{\"a\":1,\n\"a\":2}", "the key \"a\" stands twice in one object at line 2 column 3"),
            (b"{'a':1}", "key must be a string at line 1 column 2"),
            (b"\"\xff\"", "not UTF-8 at byte 2"),
            (b"\"\\ud800\"", "unexpected end of hex escape at line 1 column 8"),
            (b"[01]", "invalid number at line 1 column 3"),
            (b"[1,]", "trailing comma at line 1 column 4"),
            (b"\"\x01\"", "control character"),
        ] {
            let message = message(text);
            assert!(message.contains(reason), "{message}, not {reason}");
        }
    }

    #[test]
    fn nesting_has_a_limit() {
        let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
        assert!(parse(&nested(MAX_DEPTH)).is_ok());
        assert!(message(&nested(MAX_DEPTH + 1)).contains("nested deeper than 32 levels"));
        assert!(message(&nested(100_000)).contains("nested deeper than 32 levels"));
        assert!(message(&b"{\"a\":".repeat(100_000)).contains("nested deeper than 32 levels"));
    }

    #[test]
    fn unknown_fields_are_named() {
        let value = parse(br#"{"capcity":1,"colour":2,"mode":"x"}"#).unwrap();
        let mut fields = Fields::new(value, "[3].", &["capacity", "mode"]);
        assert_eq!(fields.require("capacity", Ok::<_, String>), None);
        assert_eq!(fields.read("mode", |_| Err::<(), _>("must be something".to_owned())), None);
        let told: Vec<_> = fields.into_errors().into_iter().map(|error| (error.field, error.message)).collect();
        let expected = [
            ("[3].capcity", "is unknown; did you mean capacity?"),
            ("[3].colour", "is unknown; the fields are capacity, mode"),
            ("[3].capacity", "is required"),
            ("[3].mode", "must be something"),
        ];
        assert_eq!(told, expected.map(|(field, message)| (field.to_owned(), message.to_owned())));
    }

    #[test]
    fn what_is_no_object_is_told_once() {
        let mut fields = Fields::new(Value::Null, "", &["capacity"]);
        assert_eq!(fields.require("capacity", Ok::<_, String>), None);
        let error = fields.finish().unwrap_err();
        assert_eq!((error.status.as_u16(), &*error.message), (422, "body: must be a JSON object"));
    }

    #[test]
    fn media_types_that_no_one_means_are_refused() {
        for text in ["application/json", "Application/JSON; charset=utf-8", "application/x-www-form-urlencoded"] {
            check_content_type(Some(&text.parse().unwrap())).unwrap();
        }
        check_content_type(None).unwrap();
        for text in ["text/plain", "multipart/form-data; boundary=x", "application/xml", "", "json"] {
            assert_eq!(check_content_type(Some(&text.parse().unwrap())).unwrap_err().status, 415, "{text}");
        }
    }
}
