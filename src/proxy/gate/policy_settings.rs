//! Policies as the configuration has them.

use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};

use http::HeaderName;

use crate::client::Quota;
use crate::decimal::put_number;
use crate::limit::{PolicyId, PolicyTerms, Standing};
use crate::route::RequestMatch;

/// The name under which the caller's own bucket is told. No policy has it.
pub const OWN: &str = "default";

/// One policy, as the configuration has it.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicySettings {
    /// Its name, as answers and metrics tell it.
    pub name: String,
    /// Which requests it is for.
    pub matches: RequestMatch,
    /// Whose bucket pays. Default: the caller's.
    pub key: PolicyKey,
    /// The quota of each bucket.
    pub quota: Quota,
    /// What a request costs. Default: a token.
    pub cost: PolicyCost,
    /// The most buckets. Default 100,000.
    pub max_buckets: NonZeroUsize,
    /// Whether it is on trial. Default: no.
    pub shadow: bool,
}

impl PolicySettings {
    /// What a limiter holds of it.
    pub fn terms(&self) -> PolicyTerms {
        PolicyTerms { id: PolicyId::of(&self.name), quota: self.quota, max_buckets: self.max_buckets }
    }
}

/// Appends the terms of the bucket with this name as an item of `RateLimit-Policy`.
pub(super) fn put_terms(name: &str, standing: &Standing, out: &mut Vec<u8>) {
    // A name has no character that a string would have to escape.
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\";q=");
    put_number(standing.quota().capacity().get().into(), out);
    out.extend_from_slice(b";w=");
    put_number(standing.window(), out);
}

/// Whose bucket of a policy pays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyKey {
    /// The client's, or of who is none the address's.
    Client,
    /// The address's.
    Address,
    /// One for everybody.
    All,
    /// That of the header's value; a request without the header does not pay.
    Header(HeaderName),
}

impl fmt::Display for PolicyKey {
    /// As the configuration has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PolicyKey::Client => f.write_str("client"),
            PolicyKey::Address => f.write_str("address"),
            PolicyKey::All => f.write_str("all"),
            PolicyKey::Header(name) => write!(f, "header:{name}"),
        }
    }
}

/// What a request costs in a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyCost {
    /// So many tokens.
    Tokens(NonZeroU32),
    /// What its answer says in this header.
    AnswerHeader(HeaderName),
}
