//! The bucket against its definition.
//!
//! The reference keeps every allowed take and no level. From the definition (in no window of length t more than C +
//! ρ·t), the next take is allowed exactly when no window that ends now would hold too many; the least slack over all
//! windows is what the bucket holds. It shares neither formula nor state with the bucket, and rounds nothing.

use proptest::prelude::*;

use super::*;

const SECOND: Nanos = 1_000_000_000;
const TEN_YEARS: Nanos = 10 * 366 * 86_400 * SECOND;

/// Every take since the last edit.
#[derive(Debug)]
struct Reference {
    quota: Quota,
    since: Nanos,
    initial: u128,
    takes: Vec<Nanos>,
    /// The last instant that was written; the bucket's time never runs behind it.
    clock: Nanos,
}

impl Reference {
    /// The least slack, in units: over the whole time since the edit, over each window that begins with a take, and
    /// over the empty window.
    fn slack(&self, now: Nanos) -> u128 {
        let now = now.max(self.clock);
        let earned = |from: Nanos| u128::from(self.quota.rate().nanos_per_sec()) * u128::from(now - from);
        let capacity = u128::from(self.quota.capacity().get()) * TOKEN;
        let taken = |takes: usize| takes as u128 * TOKEN;
        let windows = self
            .takes
            .iter()
            .enumerate()
            .map(|(index, &from)| capacity + earned(from) - taken(self.takes.len() - index));
        let whole = self.initial + earned(self.since) - taken(self.takes.len());
        windows.chain([whole, capacity]).min().unwrap()
    }

    fn take(&mut self, now: Nanos) -> bool {
        let allowed = self.slack(now) >= TOKEN;
        if allowed {
            self.clock = self.clock.max(now);
            self.takes.push(self.clock);
        }
        allowed
    }

    fn edit(&mut self, quota: Quota, now: Nanos) {
        self.initial = self.slack(now).min(u128::from(quota.capacity().get()) * TOKEN);
        self.clock = self.clock.max(now);
        (self.since, self.quota) = (self.clock, quota);
        self.takes.clear();
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Time passes; it may be nothing.
    Wait(Nanos),
    /// The clock is that much behind from now on.
    Back(Nanos),
    /// So many requests at once.
    Ask(u8),
    /// Asks just before, and at, the instant when the next token is promised.
    AskInTime,
    /// Writes back what it reads.
    Credit,
    /// Is saved and read back.
    SaveAndRestore,
    Edit(Quota),
}

/// Numbers of every magnitude between the two.
fn magnitudes(least: u64, most: u64) -> impl Strategy<Value = u64> {
    let (low, high) = ((least.max(1) as f64).ln(), (most as f64).ln());
    prop_oneof![
        8 => (low..=high).prop_map(move |log| (log.exp() as u64).clamp(least, most)),
        1 => Just(least),
        1 => Just(most),
    ]
}

fn quotas() -> impl Strategy<Value = Quota> {
    let capacity = prop_oneof![2 => 1..=20_u64, 1 => magnitudes(1, 1_000_000_000)];
    let rate = prop_oneof![
        2 => magnitudes(1_000, 1_000_000_000_000_000_000).prop_map(|nanos| nanos as f64 / 1e9),
        1 => prop::sample::select(vec![1e-6, 0.7, 1.0 / 3.0, 1.0, 3.0, 7.0, 10.0, 1e9]),
    ];
    (capacity, rate).prop_map(|(capacity, rate)| Quota::new(capacity, rate.clamp(1e-6, 1e9)).unwrap())
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => magnitudes(0, TEN_YEARS / 100).prop_map(Step::Wait),
        1 => magnitudes(0, 10 * SECOND).prop_map(Step::Back),
        4 => (1..30_u8).prop_map(Step::Ask),
        2 => Just(Step::AskInTime),
        2 => Just(Step::Credit),
        1 => Just(Step::SaveAndRestore),
        1 => quotas().prop_map(Step::Edit),
    ];
    prop::collection::vec(step, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Random schedules over ten years, at every scale, with clocks that repeat and step back and edits in the middle:
    /// each answer and each level is the reference's, to the last of 10¹⁸ parts.
    #[test]
    fn agrees_with_the_definition(
        first in quotas(),
        initial in prop_oneof![Just(u128::MAX), (0..30_u128).prop_map(|tokens| tokens * TOKEN), 0..3 * TOKEN],
        steps in steps(),
    ) {
        let mut quota = first;
        let mut now = 20 * SECOND;
        let initial = initial.min(u128::from(quota.capacity().get()) * TOKEN);
        let mut bucket = Bucket::resume(Tokens(initial), now);
        let mut reference = Reference { quota, since: now, initial, takes: Vec::new(), clock: now };
        for step in steps {
            match step {
                Step::Wait(nanos) => now += nanos,
                Step::Back(nanos) => now = now.saturating_sub(nanos),
                Step::Ask(times) => for _ in 0..times {
                    prop_assert_eq!(bucket.take(quota, now), reference.take(now));
                },
                Step::AskInTime => {
                    let due = bucket.next_token_at(quota, now);
                    if due > now && due <= 2 * TEN_YEARS {
                        for early in [now, now + (due - now) / 2, due - 1] {
                            let before = bucket;
                            prop_assert!(!bucket.take(quota, early));
                            prop_assert_eq!(bucket, before);
                        }
                    }
                    if due <= 2 * TEN_YEARS {
                        now = due;
                        prop_assert!(bucket.take(quota, now) && reference.take(now));
                    }
                }
                Step::Credit => {
                    bucket = bucket.credited(quota, now);
                    reference.clock = reference.clock.max(now);
                }
                Step::SaveAndRestore => {
                    let (whole, fraction) = bucket.tokens().parts();
                    bucket = Bucket::resume(Tokens::from_parts(whole, fraction), bucket.at());
                }
                Step::Edit(to) => {
                    // An empty bucket whose instant is yet to come owes, which the reference knows nothing of.
                    now = now.max(reference.clock);
                    bucket = bucket.edit(quota, to, now);
                    reference.edit(to, now);
                    quota = to;
                }
            }
            prop_assert_eq!(bucket.held(quota, now).0, reference.slack(now));
            prop_assert_eq!(bucket.is_full(quota, now), reference.slack(now) == u128::from(quota.capacity().get()) * TOKEN);
        }
    }

    /// A caller who always asks gets all that there is: never more than C + ρ·t, and at most one less. With a capacity
    /// of 1 a token that comes between two nanoseconds is taken at the second, and the next one counts from there: each
    /// one in ⌈1/ρ⌉ nanoseconds then, and more would break the upper bound.
    #[test]
    fn always_asking_gets_everything(
        capacity in prop_oneof![Just(1_u64), Just(2), 1..=1_000_u64],
        goal in magnitudes(1, 20_000),
        horizon in magnitudes(1, TEN_YEARS),
        start in 0..SECOND,
    ) {
        let rate = (goal as f64 / (horizon as f64 / 1e9)).clamp(1e-6, 1e9);
        let quota = Quota::new(capacity, rate).unwrap();
        let nano_rate = quota.rate().nanos_per_sec();
        let most = (u128::from(capacity) * TOKEN + u128::from(nano_rate) * u128::from(horizon)) / TOKEN;
        prop_assume!(most < 40_000);
        let least = if capacity == 1 { 1 + u128::from(horizon / (TOKEN as u64).div_ceil(nano_rate)) } else { most - 1 };
        let mut bucket = Bucket::full(quota, start);
        let (mut now, mut allowed) = (start, 0);
        while now <= start + horizon {
            prop_assert!(bucket.take(quota, now));
            allowed += 1;
            now = bucket.next_token_at(quota, now);
        }
        prop_assert!(least <= allowed && allowed <= most, "{allowed} of {least} to {most}");
    }

    /// However often it is read and written back meanwhile, it refills at the same instant.
    #[test]
    fn crediting_often_is_crediting_once(quota in quotas(), mut looks in prop::collection::vec(0..1_000_000_u64, 1..500)) {
        let empty = Bucket::resume(Tokens(0), 7);
        let due = empty.next_token_at(quota, 7);
        looks.sort_unstable();
        let looked_at = looks.iter().fold(empty, |bucket, look| {
            bucket.credited(quota, 7 + (u128::from(due - 7) * u128::from(*look) / 1_000_000) as u64)
        });
        prop_assert_eq!(looked_at.held(quota, due), empty.held(quota, due));
        prop_assert!(looked_at.held(quota, due - 1) < Tokens::ONE);
        prop_assert_eq!(looked_at.next_token_at(quota, 7), due);
    }

    /// One caller asks two buckets at once, ours and one that we know of only by debits, which come when they come.
    /// Ours goes by what there is of both: the reference is one level with a sign. So after each take that ours
    /// allows, both together stay within C + ρ·t for all that was debited by then, and all that comes on top is what
    /// the other one gave since.
    #[test]
    fn with_debits_the_two_together_give_no_more_than_one(
        quota in quotas(),
        steps in prop::collection::vec((0..4_u8, 1..20_u32, magnitudes(0, 100 * SECOND)), 1..100),
    ) {
        let capacity = i128::from(quota.capacity().get()) * TOKEN as i128;
        let rate = i128::from(quota.rate().nanos_per_sec());
        let (start, mut now) = (SECOND, SECOND);
        let mut bucket = Bucket::full(quota, start);
        let (mut level, mut taken, mut debited, mut underway, mut unpaid) = (capacity, 0_i128, 0_i128, 0_u32, 0_i128);
        for (step, count, nanos) in steps {
            match step {
                0 => {
                    now += nanos;
                    level = (level + rate * i128::from(nanos)).min(capacity);
                }
                1 => for _ in 0..count {
                    let allowed = bucket.take(quota, now);
                    prop_assert_eq!(allowed, level >= TOKEN as i128);
                    if allowed {
                        level -= TOKEN as i128;
                        taken += TOKEN as i128;
                        unpaid = 0;
                        prop_assert!(taken + debited <= capacity + rate * i128::from(now - start));
                    }
                },
                2 => underway += count,
                _ => {
                    bucket = bucket.debited(underway, quota, now);
                    let amount = i128::from(underway) * TOKEN as i128;
                    underway = 0;
                    level -= amount;
                    debited += amount;
                    unpaid += amount;
                }
            }
            // In debt it shows what is left of the last nanosecond, less than a token.
            let rest = if now < bucket.at { bucket.tokens.0 as i128 } else { 0 };
            prop_assert_eq!(bucket.held(quota, now).0 as i128, level.max(rest));
            prop_assert!(taken + debited <= capacity + rate * i128::from(now - start) + unpaid);
        }
    }
}
