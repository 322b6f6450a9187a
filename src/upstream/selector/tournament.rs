//! The best of many, when one at a time changes.
//!
//! A tournament tree: players at the leaves, in every node above the better of the two below it. A change is played
//! again along one path to the root. Equals are won by the lower place, so that the outcome depends on nothing else.
//!
//! A heap would find the best as quickly, but neither the best from some place on nor a player that is to leave.

/// Players of rank `K`, the greatest of which is best.
#[derive(Debug)]
pub(super) struct Tournament<K> {
    /// The number of leaves, a power of two; those behind the last player stay empty.
    leaves: usize,
    /// The winner below each node, with its place; the root is at 1, the leaves begin at `leaves`.
    winners: Box<[Option<(K, usize)>]>,
}

impl<K: Ord + Copy> Tournament<K> {
    /// With so many places, all of them empty.
    pub(super) fn new(places: usize) -> Self {
        let leaves = places.max(1).next_power_of_two();
        Tournament { leaves, winners: vec![None; 2 * leaves].into() }
    }

    /// Puts a player at `place`, in place of the one there; or none. O(log places).
    pub(super) fn set(&mut self, place: usize, rank: Option<K>) {
        let mut node = self.leaves + place;
        self.winners[node] = rank.map(|rank| (rank, place));
        while node > 1 {
            node /= 2;
            let winner = better(self.winners[2 * node], self.winners[2 * node + 1]);
            if self.winners[node] == winner {
                // Nothing above has seen anything of it. Never so for the old winner: its rank or its place differs.
                return;
            }
            self.winners[node] = winner;
        }
    }

    /// The best of all, and its place. O(1).
    pub(super) fn best(&self) -> Option<(K, usize)> {
        self.winners[1]
    }

    /// The best of all, and its place; of equals the first from `start` on, going around. O(log places).
    pub(super) fn best_from(&self, start: usize) -> Option<(K, usize)> {
        let (after, before) = (self.best_in(start, self.leaves), self.best_in(0, start));
        match (after, before) {
            (Some(after), Some(before)) if before.0 > after.0 => Some(before),
            (after, before) => after.or(before),
        }
    }

    /// The best at the places from `from` to before `to`.
    fn best_in(&self, from: usize, to: usize) -> Option<(K, usize)> {
        let (mut from, mut to, mut best) = (from + self.leaves, to + self.leaves, None);
        while from < to {
            if from % 2 == 1 {
                best = better(best, self.winners[from]);
                from += 1;
            }
            if to % 2 == 1 {
                to -= 1;
                best = better(best, self.winners[to]);
            }
            (from, to) = (from / 2, to / 2);
        }
        best
    }
}

fn better<K: Ord>(a: Option<(K, usize)>, b: Option<(K, usize)>) -> Option<(K, usize)> {
    match (a, b) {
        (Some(a), Some(b)) if (&b.0, a.1) > (&a.0, b.1) => Some(b),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// After any changes it says what looking at everybody says.
        #[test]
        fn agrees_with_a_linear_search(
            places in 1_usize..40,
            changes in prop::collection::vec((0_usize..40, prop::option::of(0_u8..4), 0_usize..40), 0..80),
        ) {
            let mut tournament = Tournament::new(places);
            let mut ranks = vec![None; places];
            for (place, rank, start) in changes {
                let (place, start) = (place % places, start % places);
                tournament.set(place, rank);
                ranks[place] = rank;
                let best = ranks.iter().flatten().max().copied();
                let first_from = |start: usize| {
                    let place = (start..places).chain(0..start).find(|place| best.is_some() && ranks[*place] == best)?;
                    Some((best?, place))
                };
                prop_assert_eq!(tournament.best(), first_from(0));
                prop_assert_eq!(tournament.best_from(start), first_from(start));
            }
        }
    }
}
