//! Who gets in.

/// A token and what its holder is called in the history.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// What its holder is called.
    pub name: String,
    /// The secret.
    pub secret: String,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Who gets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Whoever is on this machine: only for a loopback address.
    Loopback,
    /// Whoever has one of these, at least one.
    Tokens(Vec<Token>),
}
