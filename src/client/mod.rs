//! Who calls, and what they may spend.
//!
//! A [`Client`] is known by its API key or by its address. [`Directory`] finds it: immutable, so that a lookup takes no
//! lock, and swapped whole when something changes.

mod api_key;
mod digest;
mod directory;
mod figures;
mod lengths;
mod networks;
mod plans;
mod quota;
mod recorder;
mod recording;
mod table;
mod usage;

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::SystemTime;

use ipnet::IpNet;

pub use api_key::{ApiKey, KeyId, MOST_KEYS};
pub use digest::KeyDigest;
pub use directory::{Conflict, Directory};
pub use figures::{UsageFigures, together};
pub use networks::Networks;
pub use plans::{PlanName, Plans};
pub(crate) use quota::MAX_CAPACITY;
pub use quota::{Quota, QuotaError, Rate};
pub use recorder::Recorder;
pub use recording::RECORDED_SECONDS;
pub use usage::Usage;

/// The name of a client: 1 to 128 characters of `A-Za-z0-9._:@/-`. A new one also [stands in a
/// path](ClientId::check_new).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(Arc<str>);

/// The text is no client's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 128 characters of A-Z, a-z, 0-9 and . _ : @ / -")]
pub struct InvalidClientId;

/// The name has a segment that does not survive in a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must have no segment between slashes that is empty, . or .., since paths lose those")]
pub struct LostInPaths;

impl ClientId {
    /// Reads a name.
    ///
    /// # Errors
    /// [`InvalidClientId`] when it is empty, too long, or has another character.
    pub fn parse(text: &str) -> Result<Self, InvalidClientId> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:@/-".contains(&byte);
        match text.len() {
            1..=128 if text.bytes().all(allowed) => Ok(ClientId(text.into())),
            _ => Err(InvalidClientId),
        }
    }

    /// Whether a new client may have it: software on the way leaves it as it is in a path. Segments `.` and `..` are
    /// taken out by RFC 3986 section 5.2.4, empty ones by many programs.
    ///
    /// # Errors
    /// [`LostInPaths`] when it may not. Clients that have such a name already keep it.
    pub fn check_new(&self) -> Result<(), LostInPaths> {
        let kept = self.0.split('/').all(|segment| !matches!(segment, "" | "." | ".."));
        if kept { Ok(()) } else { Err(LostInPaths) }
    }

    /// Its characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// What is done with a client's requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// They are held to its quota.
    #[default]
    Limit,
    /// They are let in, and cost nothing.
    Unlimited,
    /// They are refused.
    Blocked,
}

impl Mode {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Limit => "limit",
            Mode::Unlimited => "unlimited",
            Mode::Blocked => "blocked",
        }
    }
}

/// One client.
#[derive(Clone, Debug)]
pub struct Client {
    /// 128 bits that are its own from its creation on and never given away again, on whichever node: its bucket is
    /// found by them.
    pub uid: u128,
    /// Its name.
    pub id: ClientId,
    /// What it may spend now: what its plan has, if it has one that is there.
    pub quota: Quota,
    /// Its plan, and the quota of its own that holds when there is no such plan.
    pub plan: Option<Box<(PlanName, Quota)>>,
    /// What it may spend of its own in policies, by their names.
    pub policies: Vec<(String, Quota)>,
    /// A quota that is tried beside that one, and refuses nothing.
    pub candidate: Option<Quota>,
    /// How many of its requests may run at once; none when what counts for everybody does.
    pub max_concurrent: Option<NonZeroU32>,
    /// What is done with its requests.
    pub mode: Mode,
    /// The addresses that it is known by.
    pub addresses: Vec<IpNet>,
    /// The API key that it is known by for good.
    pub api_key: Option<KeyDigest>,
    /// Further ones, which may end; most clients have none.
    pub further_keys: Box<[ApiKey]>,
    /// What it has done; shared by all versions of the client.
    pub usage: Arc<Usage>,
}

impl Client {
    /// A client that has nothing but a name and a quota, and cannot be found yet.
    pub fn new(uid: u128, id: ClientId, quota: Quota) -> Self {
        Client {
            uid,
            id,
            quota,
            plan: None,
            policies: Vec::new(),
            candidate: None,
            max_concurrent: None,
            mode: Mode::Limit,
            addresses: Vec::new(),
            api_key: None,
            further_keys: Box::default(),
            usage: Arc::default(),
        }
    }

    /// The same client with its name as its credential, when it has no other: a name that is an address or a network is
    /// that, any other is the API key.
    #[must_use]
    pub fn with_credential(mut self) -> Self {
        if self.addresses.is_empty() && self.keys().next().is_none() {
            (self.api_key, self.addresses) = credential(&self.id);
        }
        self
    }
}

impl Client {
    /// One of its credentials as text: what it is found by in the directory of another node.
    pub fn credential(&self) -> Option<String> {
        self.keys().next().map(|key| key.hex()).or_else(|| self.addresses.first().map(IpNet::to_string))
    }

    /// All its keys, those that have ended too.
    pub(crate) fn keys(&self) -> impl Iterator<Item = KeyDigest> {
        self.api_key.into_iter().chain(self.further_keys.iter().map(|key| key.digest))
    }

    /// Whether a key of its own counts at `now`, by the wall clock.
    fn counts(&self, key: &KeyDigest, now: SystemTime) -> bool {
        self.further_keys.is_empty()
            || self.api_key == Some(*key)
            || self.further_keys.iter().any(|further| further.digest == *key && further.counts(now))
    }
}

/// The credential that a name is: an address or a network, or else an API key.
pub fn credential(id: &ClientId) -> (Option<KeyDigest>, Vec<IpNet>) {
    match network(id.as_str()) {
        Some(network) => (None, vec![network]),
        None => (Some(KeyDigest::of(id.as_str().as_bytes())), Vec::new()),
    }
}

/// Reads an address or a network. Bits behind the prefix are dropped; IPv4-mapped IPv6 is IPv4.
pub fn network(text: &str) -> Option<IpNet> {
    let network = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    Some(canonical(network))
}

fn canonical(network: IpNet) -> IpNet {
    let mapped = match network {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96)),
        _ => None,
    };
    let v4 = mapped.and_then(|(address, length)| IpNet::new(address.into(), length).ok());
    v4.unwrap_or(network).trunc()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_few_characters_and_is_not_long() {
        for name in ["a", "user1", "203.0.113.0/24", "2001:db8::/32", "team@example.com", "A_b-c.d/e", &"x".repeat(128)]
        {
            assert_eq!(ClientId::parse(name).unwrap().as_str(), name);
        }
        for name in ["", " ", "a b", "ä", "a\n", "a%20", "<a>", &"x".repeat(129)] {
            assert_eq!(ClientId::parse(name), Err(InvalidClientId), "{name:?}");
        }
    }

    #[test]
    fn a_name_that_paths_lose_is_told() {
        for name in ["a", "203.0.113.0/24", "2001:db8::/32", "a/b/c", ".a", "a..", "...", "a/.b", "-"] {
            assert_eq!(ClientId::parse(name).unwrap().check_new(), Ok(()), "{name}");
        }
        for name in [".", "..", "/", "a/", "/a", "a//b", "a/./b", "a/..", "../a", "a/.", "//"] {
            assert_eq!(ClientId::parse(name).unwrap().check_new(), Err(LostInPaths), "{name}");
        }
    }

    #[test]
    fn without_a_credential_the_name_is_one() {
        let client = |name: &str, addresses: Vec<IpNet>| {
            let (id, quota) = (ClientId::parse(name).unwrap(), Quota::new(1, 1.0).unwrap());
            Client { addresses, ..Client::new(1, id, quota) }.with_credential()
        };
        let known = |name: &str| (client(name, vec![]).addresses, client(name, vec![]).api_key);
        assert_eq!(known("user1"), (vec![], Some(KeyDigest::of(b"user1"))));
        assert_eq!(known("203.0.113.7"), (vec!["203.0.113.7/32".parse().unwrap()], None));
        assert_eq!(known("203.0.113.7/24"), (vec!["203.0.113.0/24".parse().unwrap()], None));
        assert_eq!(known("::ffff:203.0.113.7"), (vec!["203.0.113.7/32".parse().unwrap()], None));
        assert_eq!(known("2001:db8::/32"), (vec!["2001:db8::/32".parse().unwrap()], None));
        let other = vec!["10.0.0.0/8".parse().unwrap()];
        assert_eq!(client("user1", other.clone()).addresses, other);
        assert_eq!(client("user1", other).api_key, None);
    }
}
