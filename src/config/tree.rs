//! Text to tree, with the line of every key.
//!
//! `serde_yaml::Value` carries no positions, and reading stops at a key that stands twice. So the tree is built here.
//! `serde_yaml` tells a position only in an error, so each scalar is read by a visitor that keeps the value and answers
//! with an error; the error is then dropped, after its position was taken. The scalar is behind the reader by then, and
//! reading goes on. One pass finds every line, however many problems ask for theirs.
//!
//! Refused: reading the text again for each problem, which takes minutes for ten thousand of them; a second YAML parser.

use std::fmt;

use serde::Deserialize;
use serde::de::value::EnumAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, Visitor};
use serde_yaml::value::TaggedValue;
use serde_yaml::{Mapping, Value};

use super::key::describe;
use super::problem::{KeyPath, Problem, Report};

/// Reads one YAML document. A key that stands twice counts as it stands first, and is a problem in the report.
///
/// # Errors
/// When the text is not one YAML document.
pub(super) fn read(text: &str) -> Result<(Value, Report), serde_yaml::Error> {
    let mut report = Report::default();
    let top = Node { report: &mut report, path: &KeyPath::default() };
    let (value, _) = top.deserialize(serde_yaml::Deserializer::from_str(text))?;
    Ok((value, report))
}

/// A value, and the line in which it begins; that of an empty list or mapping is not known.
type Found = (Value, Option<usize>);

/// The value at one path.
struct Node<'a> {
    report: &'a mut Report,
    path: &'a KeyPath,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        let mut scalar = None;
        match (deserializer.deserialize_any(Reader { node: self, scalar: &mut scalar }), scalar) {
            (Err(error), Some(value)) => Ok((value, Some(line_of(&error)))),
            (found, _) => found,
        }
    }
}

/// The line that an error of `serde_yaml` ends with. It leaves out the very first position of a file.
fn line_of(error: &impl fmt::Display) -> usize {
    let text = error.to_string();
    let line = text.rsplit_once(" at line ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
    line.unwrap_or(1)
}

struct Reader<'a> {
    node: Node<'a>,
    scalar: &'a mut Option<Value>,
}

impl Reader<'_> {
    fn keep<E: Error>(self, value: impl Into<Value>) -> Result<Found, E> {
        *self.scalar = Some(value.into());
        Err(E::custom("a scalar"))
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Found, E> {
        self.keep(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Found, E> {
        self.keep(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Found, E> {
        self.keep(value)
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Found, E> {
        self.keep(value as f64)
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Found, E> {
        self.keep(value as f64)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Found, E> {
        self.keep(value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Found, E> {
        self.keep(value)
    }

    fn visit_unit<E: Error>(self) -> Result<Found, E> {
        self.keep(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Found, E> {
        self.keep(Value::Null)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<Found, A::Error> {
        let tagged = TaggedValue::deserialize(EnumAccessDeserializer::new(tagged))?;
        Ok((Value::Tagged(Box::new(tagged)), None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Found, A::Error> {
        let (mut items, mut first) = (Vec::new(), None);
        loop {
            let path = self.node.path.item(items.len());
            let Some((item, line)) = access.next_element_seed(Node { report: self.node.report, path: &path })? else {
                return Ok((Value::Sequence(items), first));
            };
            if let Some(line) = line {
                self.node.report.lines.insert(path, line);
            }
            first = first.or(line);
            items.push(item);
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Found, A::Error> {
        let report = self.node.report;
        let (mut mapping, mut first) = (Mapping::new(), None);
        while let Some((key, line)) = access.next_key_seed(Node { report, path: self.node.path })? {
            let path = self.node.path.key(&name(&key));
            first = first.or(line);
            if mapping.contains_key(&key) {
                let message = "stands here twice, must be written once".to_owned();
                report.problems.push(Problem { path: path.to_string(), message, line });
                access.next_value::<serde::de::IgnoredAny>()?;
                continue;
            }
            if let Some(line) = line {
                report.lines.insert(path.clone(), line);
            }
            let (value, _) = access.next_value_seed(Node { report, path: &path })?;
            mapping.insert(key, value);
        }
        Ok((Value::Mapping(mapping), first))
    }
}

/// A key's name as a path shows it.
pub(super) fn name(key: &Value) -> String {
    key.as_str().map_or_else(|| describe(key), str::to_owned)
}
