//! Which prefix lengths there are.

/// Counts prefixes by their length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lengths {
    /// Length and how many prefixes have it, at least one; the longest first.
    counts: Vec<(u8, u32)>,
}

impl Lengths {
    /// Those that any prefix has.
    pub(super) fn longest_first(&self) -> impl Iterator<Item = u8> {
        self.counts.iter().map(|(length, _)| *length)
    }

    /// Counts one more prefix of this length.
    pub(super) fn add(&mut self, length: u8) {
        match self.place(length) {
            Ok(place) => self.counts[place].1 += 1,
            Err(place) => self.counts.insert(place, (length, 1)),
        }
    }

    /// Counts one less.
    pub(super) fn remove(&mut self, length: u8) {
        let Ok(place) = self.place(length) else { return };
        match &mut self.counts[place].1 {
            1 => drop(self.counts.remove(place)),
            count => *count -= 1,
        }
    }

    fn place(&self, length: u8) -> Result<usize, usize> {
        self.counts.binary_search_by(|(known, _)| length.cmp(known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_there_while_any_prefix_has_it() {
        let mut lengths = Lengths::default();
        [24, 32, 8, 24].into_iter().for_each(|length| lengths.add(length));
        assert_eq!(lengths.longest_first().collect::<Vec<_>>(), [32, 24, 8]);
        [24, 8, 16].into_iter().for_each(|length| lengths.remove(length));
        assert_eq!(lengths.longest_first().collect::<Vec<_>>(), [32, 24]);
        [24, 32].into_iter().for_each(|length| lengths.remove(length));
        assert_eq!(lengths, Lengths::default());
    }
}
