//! A set of marks that any thread adds to and one takes, without looking at what has none.
//!
//! A mark is a bit of a word, and each word has a bit of a second layer, by which it is found.
//!
//! The rule: a mark is set first, and its word's bit after it; whoever takes clears a word's bit first, and takes the
//! marks after it. So whenever a marker is done, its mark is taken or its word can be found. Each marker sees to that
//! itself. That the first one of a word alone says so was refused: one that is put to sleep between the two steps would
//! hide what all others mark in that word meanwhile.
//!
//! Proven for every order of steps that the memory model allows, by loom, in the tests below: for them the word is a
//! seam.

use std::sync::atomic::{AtomicU64, Ordering};

const BITS: usize = u64::BITS as usize;

/// Sixty-four bits that threads share.
pub(super) trait AtomicWord {
    /// With no bit set.
    fn zero() -> Self;
    fn load(&self, order: Ordering) -> u64;
    fn fetch_or(&self, bits: u64, order: Ordering) -> u64;
    fn swap(&self, bits: u64, order: Ordering) -> u64;
}

impl AtomicWord for AtomicU64 {
    fn zero() -> Self {
        AtomicU64::new(0)
    }

    fn load(&self, order: Ordering) -> u64 {
        AtomicU64::load(self, order)
    }

    fn fetch_or(&self, bits: u64, order: Ordering) -> u64 {
        AtomicU64::fetch_or(self, bits, order)
    }

    fn swap(&self, bits: u64, order: Ordering) -> u64 {
        AtomicU64::swap(self, bits, order)
    }
}

/// Marks on so many places. Every part of it may be used from any thread.
#[derive(Debug)]
pub(super) struct Marks<W = AtomicU64> {
    /// A bit for each place.
    marks: Box<[W]>,
    /// A bit for each word of `marks` that may have a bit.
    words: Box<[W]>,
}

impl<W: AtomicWord> Marks<W> {
    /// Of so many places, none is marked.
    pub(super) fn new(places: usize) -> Self {
        let zeros = |bits: usize| (0..bits.div_ceil(BITS)).map(|_| W::zero()).collect::<Box<[_]>>();
        let marks = zeros(places);
        let words = zeros(marks.len());
        Marks { marks, words }
    }

    /// Marks `place`. What was written before is seen by whoever takes the mark.
    pub(super) fn mark(&self, place: usize) {
        let (word, bit) = (place / BITS, 1 << (place % BITS));
        let (group, found) = (&self.words[word / BITS], 1 << (word % BITS));
        let first = self.marks[word].fetch_or(bit, Ordering::AcqRel) == 0;
        // Where there are marks already, whoever set them mostly has said so: looking leaves the cache line where it
        // is.
        if first || group.load(Ordering::Relaxed) & found == 0 {
            group.fetch_or(found, Ordering::Release);
        }
    }

    /// Takes all marks; `look` is called with the place of each. By one thread at a time.
    pub(super) fn take(&self, mut look: impl FnMut(usize)) {
        for (group, words) in self.words.iter().enumerate() {
            for word in ones(taken(words)).map(|bit| group * BITS + bit) {
                ones(taken(&self.marks[word])).for_each(|bit| look(word * BITS + bit));
            }
        }
    }
}

/// Its bits, which it has no more. Reading alone leaves the cache line to those who mark.
fn taken(bits: &impl AtomicWord) -> u64 {
    if bits.load(Ordering::Relaxed) == 0 { 0 } else { bits.swap(0, Ordering::AcqRel) }
}

/// The numbers of the bits that are set.
fn ones(mut bits: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = (bits != 0).then(|| bits.trailing_zeros() as usize)?;
        bits &= bits - 1;
        Some(bit)
    })
}

#[cfg(test)]
mod tests {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    /// Loom's, which is in every state that the memory model allows.
    type Modelled = loom::sync::atomic::AtomicU64;

    impl AtomicWord for Modelled {
        fn zero() -> Self {
            Modelled::new(0)
        }

        fn load(&self, order: Ordering) -> u64 {
            Modelled::load(self, order)
        }

        fn fetch_or(&self, bits: u64, order: Ordering) -> u64 {
            Modelled::fetch_or(self, bits, order)
        }

        fn swap(&self, bits: u64, order: Ordering) -> u64 {
            Modelled::swap(self, bits, order)
        }
    }

    fn take<W: AtomicWord>(marks: &Marks<W>) -> Vec<usize> {
        let mut places = Vec::new();
        marks.take(|place| places.push(place));
        places
    }

    #[test]
    fn each_mark_is_taken_once() {
        let marks: Marks = Marks::new(10_000);
        assert_eq!(take(&marks), [0; 0]);
        for places in [vec![0], vec![63, 64], vec![4095, 4096, 9_999], (0..10_000).collect()] {
            places.iter().for_each(|place| marks.mark(*place));
            places.iter().for_each(|place| marks.mark(*place));
            assert_eq!(take(&marks), places);
            assert_eq!(take(&marks), [0; 0]);
        }
    }

    #[test]
    fn a_marker_that_sleeps_halfway_hides_no_mark_of_others() {
        for other in [0, 1, 64] {
            loom::model(move || {
                let marks = Arc::new(Marks::<Modelled>::new(65));
                let sleeper = Arc::clone(&marks);
                // Loom stops it after each of its steps, for as long as the rest of this takes.
                let sleeper = thread::spawn(move || sleeper.mark(other));
                marks.mark(1);
                assert!(take(&marks).contains(&1), "another one marked {other}");
                sleeper.join().unwrap();
            });
        }
    }

    #[test]
    fn a_mark_is_found_by_one_who_takes_meanwhile_or_by_the_next() {
        loom::model(|| {
            let marks = Arc::new(Marks::<Modelled>::new(2));
            let values = Arc::new([Modelled::new(0), Modelled::new(0)]);
            let markers: Vec<_> = (0..2)
                .map(|place| {
                    let (marks, values) = (Arc::clone(&marks), Arc::clone(&values));
                    thread::spawn(move || {
                        values[place].store(1, Ordering::Relaxed);
                        marks.mark(place);
                    })
                })
                .collect();
            let mut seen = [0, 0];
            let mut look = || marks.take(|place| seen[place] = values[place].load(Ordering::Relaxed));
            look();
            markers.into_iter().for_each(|marker| marker.join().unwrap());
            look();
            assert_eq!(seen, [1, 1], "whoever takes a mark sees what was written before it");
        });
    }
}
