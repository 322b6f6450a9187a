//! What a limit would have done to requests that were recorded, and which limit they need.
//!
//! The model: of each second only the number of requests is known, and they count as if all came at its start. A bucket
//! is full at the first of them. Within that the answers are exact: what is told to be refused is what a bucket refuses
//! that is asked for every single one, and of the recommended rate no smaller capacity would do.
//!
//! The rate that is recommended is that of the busiest minute, rounded up to a thousandth: what the caller needs for as
//! long as it may last. The capacity is the least that refuses nothing at that rate. Refused: the mean over the whole
//! window, which is nearly nothing for who works an hour a day, and makes the capacity as large as all that it did; the
//! busiest second, which is a burst, for which the capacity is there.

use std::collections::VecDeque;

use crate::client::{Quota, Rate};
use crate::limit::bucket::{Bucket, Tokens};

/// Nanoseconds in a second, and nanotokens in a token.
const BILLION: u64 = 1_000_000_000;
/// For how long the rate must last, in seconds.
const MINUTE: u64 = 60;
const MOST_CAPACITY: u64 = 1_000_000_000;

/// Requests by the seconds in which they came: a second since the Unix epoch and how many, the earliest first, none
/// twice.
pub type Recorded = [(u64, u32)];

/// How many of the requests `quota` would refuse.
pub fn refused(recorded: &Recorded, quota: Quota) -> u64 {
    let Some((first, _)) = recorded.first() else { return 0 };
    let mut bucket = Bucket::full(quota, first * BILLION);
    let mut refused = 0;
    for (second, requests) in recorded {
        let now = second * BILLION;
        let allowed = bucket.held(quota, now).floor().min(*requests);
        bucket.spend(Tokens::whole(allowed), quota, now);
        refused += u64::from(requests - allowed);
    }
    refused
}

/// The most requests of one second.
pub fn peak(recorded: &Recorded) -> u32 {
    recorded.iter().map(|(_, requests)| *requests).max().unwrap_or(0)
}

/// All requests.
pub fn requests(recorded: &Recorded) -> u64 {
    recorded.iter().map(|(_, requests)| u64::from(*requests)).sum()
}

/// The quota that these requests need; none when there is none of them.
pub fn recommended(recorded: &Recorded) -> Option<Quota> {
    let rate = sustained(recorded)?;
    let (earned, mut spent, mut most, mut before) = (u128::from(rate.nanos_per_sec()), 0_u128, 0_u128, 0);
    for (second, requests) in recorded {
        spent = spent.saturating_sub(earned * u128::from(second - before));
        spent += u128::from(*requests) * u128::from(BILLION);
        (most, before) = (most.max(spent), *second);
    }
    let capacity = u64::try_from(most.div_ceil(u128::from(BILLION))).unwrap_or(u64::MAX);
    Quota::from_parts(capacity.clamp(1, MOST_CAPACITY), rate).ok()
}

/// The rate of the busiest minute, rounded up to a thousandth; none when nothing was recorded.
fn sustained(recorded: &Recorded) -> Option<Rate> {
    let (mut minute, mut sum, mut most) = (VecDeque::new(), 0_u64, 0_u64);
    for (second, requests) in recorded {
        while minute.front().is_some_and(|(earliest, _): &(u64, u32)| earliest + MINUTE <= *second) {
            sum -= minute.pop_front().map_or(0, |(_, gone)| u64::from(gone));
        }
        minute.push_back((*second, *requests));
        sum += u64::from(*requests);
        most = most.max(sum);
    }
    let thousandths = (most * 1_000).div_ceil(MINUTE);
    Rate::from_nanos_per_sec(thousandths.checked_mul(1_000_000)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quota(capacity: u64, rate: f64) -> Quota {
        Quota::new(capacity, rate).unwrap()
    }

    #[test]
    fn a_burst_needs_a_capacity_and_a_stream_a_rate() {
        let recommended = |recorded: &Recorded| {
            let quota = recommended(recorded).unwrap();
            (quota.capacity().get(), quota.rate().to_f64())
        };
        assert_eq!(recommended(&[(100, 90)]), (90, 1.5));
        let steady: Vec<_> = (0..3_600).map(|second| (second, 8)).collect();
        assert_eq!(recommended(&steady), (8, 8.0));
        let bursts: Vec<_> = (0..60).map(|minute| (minute * 60, 30)).collect();
        assert_eq!(recommended(&bursts), (30, 0.5));
        assert_eq!(recommended(&[(7, 1)]), (1, 0.017));
        assert_eq!((super::recommended(&[]), refused(&[], quota(1, 1.0))), (None, 0));
        assert_eq!((peak(&bursts), requests(&bursts)), (30, 1_800));
    }

    #[test]
    fn what_would_be_refused_is_told() {
        let recorded = [(10, 5), (11, 5), (20, 5)];
        assert_eq!(refused(&recorded, quota(5, 1.0)), 4);
        assert_eq!(refused(&recorded, quota(1, 0.001)), 14);
        assert_eq!(refused(&recorded, quota(15, 0.001)), 0);
    }

    /// Asks a bucket for every single one.
    fn replayed(recorded: &Recorded, quota: Quota) -> u64 {
        let mut bucket = Bucket::full(quota, recorded[0].0 * BILLION);
        let all = recorded.iter().flat_map(|(second, requests)| (0..*requests).map(move |_| second * BILLION));
        all.map(|now| u64::from(!bucket.take(quota, now))).sum()
    }

    fn recorded() -> impl Strategy<Value = Vec<(u64, u32)>> {
        let gaps = prop::collection::vec((1..90_u64, 1..60_u32), 1..120);
        (1_700_000_000..1_700_000_100_u64, gaps).prop_map(|(start, gaps)| {
            let mut second = start;
            gaps.into_iter()
                .map(|(gap, requests)| {
                    second += if gap > 60 { gap } else { 1 + gap / 20 };
                    (second, requests)
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn it_is_what_a_bucket_says(recorded in recorded(), capacity in 1..200_u64, rate in 0.001..50_f64) {
            let quota = quota(capacity, rate);
            prop_assert_eq!(refused(&recorded, quota), replayed(&recorded, quota));
        }

        /// The recommended quota refuses nothing, and at its rate no smaller capacity does.
        #[test]
        fn what_is_recommended_is_enough_and_no_more(recorded in recorded()) {
            let quota = recommended(&recorded).unwrap();
            prop_assert_eq!(replayed(&recorded, quota), 0);
            if let Ok(less) = Quota::from_parts(u64::from(quota.capacity().get()) - 1, quota.rate()) {
                prop_assert!(replayed(&recorded, less) > 0);
            }
            let minutes = (0..recorded.len()).map(|from| {
                let within = recorded[from..].iter().take_while(|(second, _)| *second < recorded[from].0 + 60);
                within.map(|(_, requests)| f64::from(*requests)).sum::<f64>() / 60.0
            });
            let busiest = minutes.fold(0.0, f64::max);
            let rate = quota.rate().to_f64();
            prop_assert!(rate >= busiest - 1e-9 && rate < busiest + 0.001 + 1e-9, "{} for {}", rate, busiest);
        }
    }
}
