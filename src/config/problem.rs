//! What is wrong with a configuration, and where.

use std::fmt;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, such as `upstreams[0].backends[1].weight`; the flag, such as `--listen`; or the file, when it is the
    /// whole of it.
    pub path: String,
    /// What is wrong with it, and what is allowed.
    pub message: String,
    /// The line of the file, from 1, where it is known.
    pub line: Option<usize>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)?;
        self.line.map_or(Ok(()), |line| write!(f, " (line {line})"))
    }
}

/// Everything that is wrong with one configuration, at least one thing, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    source: String,
    list: Vec<Problem>,
}

impl Problems {
    /// Sorts `list` by line, then path; problems that have no line come first. `source` says where they are.
    pub(super) fn new(source: impl Into<String>, mut list: Vec<Problem>) -> Self {
        list.sort_by(|a, b| (a.line, &a.path).cmp(&(b.line, &b.path)));
        Problems { source: source.into(), list }
    }

    /// The file that they are in, or `the command line`.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The problems, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.list.iter()
    }
}

/// A line that names the file and counts, then one problem a line.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.list.len() == 1 { "" } else { "s" };
        write!(f, "{} has {} problem{s}:", self.source, self.list.len())?;
        self.list.iter().try_for_each(|problem| write!(f, "\n{problem}"))
    }
}

impl std::error::Error for Problems {}

/// The way to a key, from the top of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct KeyPath(String);

impl KeyPath {
    /// A flag of the command line, which stands outside the file.
    pub(super) fn flag(name: &str) -> Self {
        KeyPath(name.to_owned())
    }

    /// The key `name` below this one; quoted and cut short when it does not look like a key.
    pub(super) fn key(&self, name: &str) -> Self {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        let plain = (1..=60).contains(&name.len()) && name.bytes().all(plain);
        let name = if plain { name.to_owned() } else { format!("{:?}", name.chars().take(60).collect::<String>()) };
        KeyPath(if self.0.is_empty() { name } else { format!("{self}.{name}") })
    }

    /// The item at `index` of the list at this key.
    pub(super) fn item(&self, index: usize) -> Self {
        KeyPath(format!("{self}[{index}]"))
    }

    /// How long it is, in bytes.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The key above this one; none for the top.
    pub(super) fn parent(&self) -> Option<Self> {
        let end = self.0.rfind(['.', '['])?;
        Some(KeyPath(self.0[..end].to_owned()))
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
