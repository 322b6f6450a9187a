//! What is done with requests where a fleet's store decides, or is away.

/// What is done with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The store answers, or there is none: buckets decide.
    Joined,
    /// It does not: this node gives its part of every quota.
    Share,
    /// It does not: nobody is let in.
    Refuse,
    /// It does not: everybody is let in.
    Allow,
}
