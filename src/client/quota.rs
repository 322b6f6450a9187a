//! What a client may spend: a capacity and a rate.
//!
//! A rate is typed as a decimal number and kept as a whole number of nanotokens per second (10⁻⁹ tokens/s), so that
//! nothing behind it rounds. The decimal is the shortest one that reads back as the given `f64`, that is, the one the
//! user typed: `0.7` is 700,000,000 nanotokens per second and not 699,999,999.99999996. Digits beyond the ninth decimal
//! are rounded to nearest; the error is at most 5·10⁻¹⁰ tokens per second, one part in 2,000 of the slowest rate there
//! is.
//!
//! Refused: `f64` seconds per token (3 tokens/s has no exact period), microtokens (1.5·10⁻⁶ would become 2·10⁻⁶), and
//! multiplying the `f64` by 10⁹ (above 9·10⁶ tokens/s the product no longer holds every integer).

use std::num::{NonZeroU16, NonZeroU32, NonZeroU64};

/// The highest capacity, in tokens.
pub(crate) const MAX_CAPACITY: u64 = 1_000_000_000;
/// The lowest and the highest rate, in tokens per second.
const RATES: std::ops::RangeInclusive<f64> = 1e-6..=1e9;

/// Why a quota was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuotaError {
    /// The capacity is 0 or too high.
    #[error("must be a whole number from 1 to 1000000000")]
    Capacity,
    /// The rate is not a number, or out of bounds.
    #[error("must be a number from 0.000001 to 1000000000")]
    Rate,
}

/// How fast tokens come back: 10⁻⁶ to 10⁹ a second, in steps of 10⁻⁹.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rate(NonZeroU64);

impl Rate {
    /// The rate of `per_sec` tokens a second, to the nearest nanotoken.
    ///
    /// # Errors
    /// [`QuotaError::Rate`] when it is not a number from 10⁻⁶ to 10⁹.
    pub fn per_sec(per_sec: f64) -> Result<Self, QuotaError> {
        if !RATES.contains(&per_sec) {
            return Err(QuotaError::Rate);
        }
        let decimal = per_sec.to_string();
        let (whole, fraction) = decimal.split_once('.').unwrap_or((&decimal, ""));
        let tenths_of_nano = digits(whole.bytes().chain(fraction.bytes().chain(std::iter::repeat(b'0')).take(10)));
        NonZeroU64::new((tenths_of_nano + 5) / 10).map(Rate).ok_or(QuotaError::Rate)
    }

    /// The rate of so many nanotokens a second, if there is one: what [`nanos_per_sec`](Rate::nanos_per_sec) gave.
    pub fn from_nanos_per_sec(nanos: u64) -> Option<Self> {
        let rate = Rate(NonZeroU64::new(nanos)?);
        (1_000..=1_000_000_000_000_000_000).contains(&nanos).then_some(rate)
    }

    /// Nanotokens per second, 1,000 to 10¹⁸. The same number is also the credit of one nanosecond in units of 10⁻¹⁸
    /// tokens.
    pub fn nanos_per_sec(self) -> u64 {
        self.0.get()
    }

    /// Tokens per second, for people: the nearest `f64`. [`per_sec`](Rate::per_sec) makes the same rate of it again.
    pub fn to_f64(self) -> f64 {
        // By its digits: a division of the rounded number would round twice.
        let digits = format!("{}.{:09}", self.0.get() / 1_000_000_000, self.0.get() % 1_000_000_000);
        digits.parse().expect("digits with a point are a number")
    }
}

/// The number that the decimal digits spell; at most 10 + 10 of them, below 1.1·10¹⁹.
fn digits(digits: impl Iterator<Item = u8>) -> u64 {
    digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}

/// What a client may spend: at most `capacity` tokens at once, and `rate` tokens a second in the long run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quota {
    capacity: NonZeroU32,
    rate: Rate,
}

impl Quota {
    /// A quota of `capacity` tokens (1 to 10⁹) that come back at `rate_per_sec` (10⁻⁶ to 10⁹) a second.
    ///
    /// # Errors
    /// Says which of the two is out of bounds, the capacity first.
    pub fn new(capacity: u64, rate_per_sec: f64) -> Result<Self, QuotaError> {
        let rate = Rate::per_sec(rate_per_sec);
        // The capacity is looked at first.
        let quota = Quota::from_parts(capacity, rate.unwrap_or(Rate(NonZeroU64::MIN)))?;
        rate.map(|rate| Quota { rate, ..quota })
    }

    /// A quota of `capacity` tokens (1 to 10⁹) that come back at `rate`.
    ///
    /// # Errors
    /// [`QuotaError::Capacity`] when the capacity is out of bounds.
    pub fn from_parts(capacity: u64, rate: Rate) -> Result<Self, QuotaError> {
        let whole = u32::try_from(capacity).ok().filter(|_| capacity <= MAX_CAPACITY).and_then(NonZeroU32::new);
        Ok(Quota { capacity: whole.ok_or(QuotaError::Capacity)?, rate })
    }

    /// The quota of a capacity and a rate that came out of [`capacity`](Quota::capacity) and [`rate`](Quota::rate).
    pub(crate) fn of(capacity: NonZeroU32, rate: Rate) -> Self {
        Quota { capacity, rate }
    }

    /// One of so many equal parts of it, rounded down; none where that has no token, or is slower than any rate.
    pub fn divided(self, parts: NonZeroU16) -> Option<Quota> {
        let capacity = NonZeroU32::new(self.capacity.get() / u32::from(parts.get()))?;
        let rate = Rate::from_nanos_per_sec(self.rate.nanos_per_sec() / u64::from(parts.get()))?;
        Some(Quota { capacity, rate })
    }

    /// The most tokens it can save up, 1 to 10⁹.
    pub fn capacity(self) -> NonZeroU32 {
        self.capacity
    }

    /// How fast they come back.
    pub fn rate(self) -> Rate {
        self.rate
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_rate_is_the_decimal_that_was_typed() {
        for (typed, nanos) in [
            (0.7, 700_000_000),
            (3.0, 3_000_000_000),
            (1e-6, 1_000),
            (1.5e-6, 1_500),
            (1e9, 1_000_000_000_000_000_000),
            (12_345_678.9, 12_345_678_900_000_000),
            (999_999_999.9, 999_999_999_900_000_000),
            (0.1 + 0.2, 300_000_000),
            (0.000_001_000_5, 1_001),
            (0.000_001_000_49, 1_000),
        ] {
            assert_eq!(Rate::per_sec(typed).unwrap().nanos_per_sec(), nanos, "{typed}");
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        for rate in [0.0, -1.0, 9.99e-7, 1.000_000_1e9, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE] {
            assert_eq!(Quota::new(1, rate), Err(QuotaError::Rate), "{rate}");
        }
        for capacity in [0, 1_000_000_001, 1 << 32, (1 << 32) + 5, u64::MAX] {
            assert_eq!(Quota::new(capacity, 1.0), Err(QuotaError::Capacity), "{capacity}");
        }
        assert!(Quota::new(1_000_000_000, 1e9).is_ok());
    }

    proptest! {
        /// Whatever was typed is what is shown.
        #[test]
        fn what_was_typed_reads_back(typed in 1e-6..1e9_f64, decimals in 0..9_i32) {
            let typed: f64 = format!("{typed:.*}", decimals as usize).parse().unwrap();
            prop_assume!(typed >= 1e-6);
            let rate = Rate::per_sec(typed).unwrap();
            prop_assert_eq!(Rate::per_sec(rate.to_f64()), Ok(rate));
            prop_assert!(decimals > 6 || rate.to_f64() == typed, "{} is shown as {}", typed, rate.to_f64());
        }

        #[test]
        fn a_rate_reads_back(nanos in 1_000_u64..1_000_000_000_000_000) {
            let rate = Rate::per_sec(nanos as f64 / 1e9).unwrap();
            prop_assert_eq!(rate.nanos_per_sec(), nanos);
            prop_assert_eq!(Rate::per_sec(rate.to_f64()), Ok(rate));
        }
    }
}
