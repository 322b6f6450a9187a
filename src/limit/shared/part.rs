//! This node's part of the fleet, while the store is away.

/// How many nodes there are, and which buckets that cannot be divided are this one's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetPart {
    /// Hashes of the names of the others.
    others: Vec<u64>,
    own: u64,
}

impl FleetPart {
    /// The part of the node `own` among `all`, of which it may be one.
    pub fn new<'n>(own: &str, all: impl Iterator<Item = &'n str>) -> Self {
        let others = all.filter(|name| *name != own).map(hash).collect();
        FleetPart { others, own: hash(own) }
    }

    /// How many nodes there are, with this one.
    pub fn nodes(&self) -> u32 {
        u32::try_from(self.others.len()).map_or(u32::MAX, |others| others.saturating_add(1))
    }

    /// Whether a bucket that cannot be divided is this node's: its name and the bucket hash to more than those of any
    /// other node.
    pub fn is_owner(&self, bucket: u128) -> bool {
        let own = mix(self.own, bucket);
        self.others.iter().all(|other| (mix(*other, bucket), *other) < (own, self.own))
    }
}

/// FNV-1a, which every node computes alike.
fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The end of SplitMix64, which lets every bit count.
fn mix(node: u64, bucket: u128) -> u64 {
    let mut bits = node ^ bucket as u64 ^ ((bucket >> 64) as u64).rotate_left(32);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bucket_is_one_nodes_and_each_node_has_about_as_many() {
        let names = ["a", "b", "c"];
        let parts = names.map(|own| FleetPart::new(own, names.into_iter()));
        let mut counts = [0; 3];
        for bucket in 0..3_000_u128 {
            let bucket = bucket << 7 | bucket << 90;
            let owners: Vec<_> = (0..3).filter(|node| parts[*node].is_owner(bucket)).collect();
            assert_eq!(owners.len(), 1);
            counts[owners[0]] += 1;
        }
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
        assert_eq!((parts[0].nodes(), FleetPart::new("a", [].into_iter()).nodes()), (3, 1));
    }
}
