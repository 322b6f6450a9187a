//! What rules say of headers.

use http::{HeaderName, HeaderValue};
use regex::bytes::{Regex, RegexBuilder};
use serde_yaml::Value;

use super::kind::ValueKind;

/// The most memory that one expression may take, in bytes: more than any that people write needs, little enough for
/// thousands of routes.
const LARGEST_PATTERN: usize = 1 << 20;

/// The name of any header, as it is spelt.
#[derive(Debug)]
pub(in crate::config) struct HeaderField;

impl ValueKind for HeaderField {
    type Checked = HeaderName;
    const WANTED: &str = "the name of a header, such as X-Env";
    const SCHEMA: &str = r#"{"type": "string", "pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", "examples": ["X-Env"]}"#;

    fn read(value: &Value) -> Option<HeaderName> {
        value.as_str()?.parse().ok()
    }
}

/// What a header says.
#[derive(Debug)]
pub(in crate::config) struct HeaderText;

impl ValueKind for HeaderText {
    type Checked = String;
    const WANTED: &str = "what a header says: text that is not empty and neither begins nor ends with a space, without \
                          line breaks and other control characters";
    const SCHEMA: &str = r#"{"type": "string", "minLength": 1, "pattern": "^[^\\x00-\\x1f\\x7f]*$"}"#;

    fn read(value: &Value) -> Option<String> {
        let text = value.as_str().filter(|text| !text.is_empty() && text.trim_ascii() == *text)?;
        HeaderPiece::read(value).map(|_| text.to_owned())
    }

    fn hint(refused: &Value) -> Option<String> {
        match refused {
            Value::Number(_) | Value::Bool(_) => Some("put it in quotes".to_owned()),
            Value::String(text) if text.is_empty() => Some("`remove` takes a header away from a message".to_owned()),
            _ => None,
        }
    }
}

/// What a request is to say in a header to be met: as [`HeaderText`], which nobody takes away here.
#[derive(Debug)]
pub(in crate::config) struct SaidText;

impl ValueKind for SaidText {
    type Checked = String;
    const WANTED: &str = HeaderText::WANTED;
    const SCHEMA: &str = HeaderText::SCHEMA;

    fn read(value: &Value) -> Option<String> {
        HeaderText::read(value)
    }
}

/// A part of what a header says, maybe nothing.
#[derive(Debug)]
pub(in crate::config) struct HeaderPiece;

impl ValueKind for HeaderPiece {
    type Checked = String;
    const WANTED: &str = "text without line breaks and other control characters";
    const SCHEMA: &str = r#"{"type": "string", "pattern": "^[^\\x00-\\x1f\\x7f]*$"}"#;

    fn read(value: &Value) -> Option<String> {
        let text = value.as_str()?;
        let plain = HeaderValue::from_bytes(text.as_bytes()).is_ok() && !text.contains('\t');
        plain.then(|| text.to_owned())
    }
}

/// Any text.
#[derive(Debug)]
pub(in crate::config) struct AnyText;

impl ValueKind for AnyText {
    type Checked = String;
    const WANTED: &str = "text";
    const SCHEMA: &str = r#"{"type": "string"}"#;

    fn read(value: &Value) -> Option<String> {
        value.as_str().map(str::to_owned)
    }
}

/// A regular expression.
#[derive(Debug)]
pub(in crate::config) struct Pattern;

impl Pattern {
    fn build(text: &str) -> Result<Regex, regex::Error> {
        RegexBuilder::new(text).size_limit(LARGEST_PATTERN).dfa_size_limit(LARGEST_PATTERN).build()
    }
}

impl ValueKind for Pattern {
    type Checked = Regex;
    const WANTED: &str = "a regular expression such as ^https:, without look-around and back-references";
    const SCHEMA: &str = r#"{"type": "string", "examples": ["^https:"]}"#;

    fn read(value: &Value) -> Option<Regex> {
        Pattern::build(value.as_str()?).ok()
    }

    fn hint(refused: &Value) -> Option<String> {
        let error = Pattern::build(refused.as_str()?).err()?.to_string();
        // The lines before show the expression, which the message does anyhow.
        Some(error.lines().last()?.trim_start_matches("error: ").to_owned())
    }
}
