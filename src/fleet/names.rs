//! What things are called in the store.
//!
//! All keys of one bucket, and all that one script touches, stand under one hash tag (the part in braces), so a Cluster
//! has them in one slot; 64 tags spread the buckets.

/// The names under one prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    prefix: String,
}

impl Names {
    /// Names that begin with `prefix`.
    pub fn new(prefix: &str) -> Self {
        Names { prefix: prefix.to_owned() }
    }

    /// The bucket of a key of the fleet.
    pub fn bucket(&self, key: u128) -> Vec<u8> {
        self.under(key, 'b')
    }

    /// What remembers that the bucket of a key was changed by the change of that number.
    pub fn changed(&self, key: u128, change: u64) -> Vec<u8> {
        let mut name = self.under(key, 'o');
        name.extend(format!(":{change:016x}").bytes());
        name
    }

    /// The turns that the caller of such a key may have at once.
    pub fn turns(&self, key: u128) -> Vec<u8> {
        self.under(key, 'c')
    }

    /// Something of the registry of clients.
    pub fn clients(&self, what: &str) -> Vec<u8> {
        format!("{}:{{clients}}:{what}", self.prefix).into_bytes()
    }

    /// Something about the nodes.
    pub fn nodes(&self, what: &str) -> Vec<u8> {
        format!("{}:{{nodes}}:{what}", self.prefix).into_bytes()
    }

    /// A key beside every other: under each hash tag one.
    pub fn trials(&self) -> Vec<Vec<u8>> {
        let buckets = (0..64).map(|tag| self.under(tag, 't'));
        [self.clients("trial"), self.nodes("trial")].into_iter().chain(buckets).collect()
    }

    fn under(&self, key: u128, kind: char) -> Vec<u8> {
        format!("{}:{{{:02}}}:{kind}:{key:032x}", self.prefix, key & 63).into_bytes()
    }
}
