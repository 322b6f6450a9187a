//! What is wrong with a pair, in words for people.

use std::fmt;

/// The file that something is wrong with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The one with the certificates.
    Cert,
    /// The one with the private key.
    Key,
    /// The one with the authorities.
    Ca,
}

impl Part {
    /// As the configuration names it.
    pub fn name(self) -> &'static str {
        match self {
            Part::Cert => "cert",
            Part::Key => "key",
            Part::Ca => "ca",
        }
    }
}

/// One thing that is wrong with a pair, or not wise about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// Which of the two files.
    pub part: Part,
    /// What it is. Begins with the file's name, and shows nothing of a key.
    pub message: String,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.part.name(), self.message)
    }
}
