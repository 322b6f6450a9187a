//! Text to tree, with the line of every key.
//!
//! `serde_yaml::Value` carries no positions, and reading stops at a key that stands twice. So the tree is built here.
//! `serde_yaml` tells a position only in an error, so each scalar is read by a visitor that keeps the value and answers
//! with an error; the error is then dropped, after its position was taken. The scalar is behind the reader by then, and
//! reading goes on. One pass finds every line, however many problems ask for theirs.
//!
//! What may be read is bounded before anything is kept of it. The reader below takes time by the square of the depth of
//! brackets, and aliases let a few lines stand for millions of values; so the brackets are counted first, and the tree
//! has so much [`Room`].
//!
//! Refused: reading the text again for each problem, which takes minutes for ten thousand of them; a second YAML
//! parser.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde_yaml::value::{Tag, TaggedValue};
use serde_yaml::{Mapping, Value};

use super::problem::{KeyPath, Problem};
use super::report::Report;
use super::value::describe;

/// How deep brackets may be nested. No configuration has a quarter of it.
const DEEPEST: usize = 32;
/// How many values there may be: those of a file with thirty thousand routes.
const VALUES: usize = 250_000;
/// How many values aliases may add to those that stand there.
const BY_ALIASES: usize = 10_000;

/// Reads one YAML document. A key that stands twice counts as it stands first, and is a problem in the report.
///
/// # Errors
/// When the text is not one YAML document, or one that takes too much to read.
pub(super) fn read(text: &str) -> Result<(Value, Report), serde_yaml::Error> {
    if is_too_deep(text) {
        return Err(Error::custom(format!("brackets are nested more than {DEEPEST} deep")));
    }
    let mut report = Report::default();
    let mut room = Room::of(text);
    let top = Node { report: &mut report, room: &mut room, path: &KeyPath::default() };
    let (value, _) = top.deserialize(serde_yaml::Deserializer::from_str(text))?;
    Ok((value, report))
}

/// Whether more brackets are open at once than a configuration can have. Those in strings and comments count, too, but
/// there as well each is closed.
fn is_too_deep(text: &str) -> bool {
    let depths = text.bytes().scan(0_usize, |depth, byte| {
        match byte {
            b'[' | b'{' => *depth += 1,
            b']' | b'}' => *depth = depth.saturating_sub(1),
            _ => {}
        }
        Some(*depth)
    });
    depths.into_iter().any(|depth| depth > DEEPEST)
}

/// What the tree may still take. Without aliases it is never used up, but by a file of more than [`VALUES`].
struct Room {
    values: usize,
    /// Of strings, and of the paths by which lines are known.
    bytes: usize,
}

impl Room {
    fn of(text: &str) -> Self {
        // A value takes a byte at least; its path is some times as long.
        Room { values: VALUES.min(text.len() + BY_ALIASES), bytes: 16 * text.len() + (1 << 20) }
    }

    fn take<E: Error>(&mut self, values: usize, bytes: usize) -> Result<(), E> {
        match (self.values.checked_sub(values), self.bytes.checked_sub(bytes)) {
            (Some(values), Some(bytes)) => *self = Room { values, bytes },
            _ => return Err(E::custom("there are too many values, or aliases that stand for too many")),
        }
        Ok(())
    }
}

/// A value, and the line in which it begins; that of an empty list or mapping is not known.
type Found = (Value, Option<usize>);

/// The value at one path.
struct Node<'a> {
    report: &'a mut Report,
    room: &'a mut Room,
    path: &'a KeyPath,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        self.room.take(1, self.path.len())?;
        let mut scalar = None;
        match (deserializer.deserialize_any(TreeReader { node: self, scalar: &mut scalar }), scalar) {
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

struct TreeReader<'a> {
    node: Node<'a>,
    scalar: &'a mut Option<Value>,
}

impl TreeReader<'_> {
    fn keep<E: Error>(self, value: impl Into<Value>) -> Result<Found, E> {
        let value = value.into();
        self.node.room.take(0, value.as_str().map_or(0, str::len))?;
        *self.scalar = Some(value);
        Err(E::custom("a scalar"))
    }
}

impl<'de> Visitor<'de> for TreeReader<'_> {
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
        let (tag, tagged) = tagged.variant::<String>()?;
        if tag.is_empty() {
            return Err(A::Error::custom("empty YAML tag is not allowed"));
        }
        let (value, line) = tagged.newtype_variant_seed(self.node)?;
        Ok((Value::Tagged(Box::new(TaggedValue { tag: Tag::new(tag), value })), line))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Found, A::Error> {
        let (mut items, mut first) = (Vec::new(), None);
        loop {
            let path = self.node.path.item(items.len());
            let Some((item, line)) =
                access.next_element_seed(Node { report: self.node.report, room: self.node.room, path: &path })?
            else {
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
        let (report, room) = (self.node.report, self.node.room);
        let (mut mapping, mut first) = (Mapping::new(), None);
        while let Some((key, line)) = access.next_key_seed(Node { report, room, path: self.node.path })? {
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
            let (value, _) = access.next_value_seed(Node { report, room, path: &path })?;
            mapping.insert(key, value);
        }
        Ok((Value::Mapping(mapping), first))
    }
}

/// A key's name as a path shows it.
pub(super) fn name(key: &Value) -> String {
    key.as_str().map_or_else(|| describe(key), str::to_owned)
}
