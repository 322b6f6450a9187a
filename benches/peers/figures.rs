//! From rounds to figures: medians with the least and the most, and ratios to the first contender.

use serde::{Deserialize, Serialize};

use super::parse::Measured;

/// One round of one contender.
#[derive(Clone, Debug)]
pub(crate) enum Round {
    /// A load.
    Load {
        /// What the load saw.
        measured: Measured,
        /// The proxy's processor time, in seconds.
        cpu: f64,
        /// Which share of its cores that was.
        busy: f64,
        /// Its resident memory after it, in bytes.
        resident: u64,
        /// The ratio to what it is measured beside, if it is.
        beside: Option<f64>,
    },
    /// Idle connections.
    Idle {
        /// Resident bytes of one connection.
        bytes: f64,
        /// The proxy's resident memory with all of them, in bytes.
        resident: u64,
    },
}

/// What a round is measured beside.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Beside {
    /// Seconds for a message.
    Time(f64),
    /// A [cost](Round::cost).
    Cost(f64),
}

impl Round {
    /// The same, measured beside something, or not.
    pub(crate) fn beside(self, other: Option<Beside>) -> Self {
        let own = self.cost();
        match (self, other) {
            (Round::Load { measured, cpu, busy, resident, .. }, Some(other)) => {
                let ratio = match other {
                    Beside::Time(seconds) => measured.seconds / measured.requests.max(1) as f64 / seconds,
                    Beside::Cost(cost) => own / cost,
                };
                Round::Load { measured, cpu, busy, resident, beside: Some(ratio).filter(|ratio| ratio.is_finite()) }
            }
            (round, _) => round,
        }
    }

    /// What is compared with other proxies: CPU seconds of 100,000 requests, or KiB of a connection.
    pub(crate) fn cost(&self) -> f64 {
        match self {
            Round::Load { measured, cpu, .. } => cpu / measured.requests.max(1) as f64 * 1e5,
            Round::Idle { bytes, .. } => bytes / 1024.0,
        }
    }

    fn of_load(&self, value: impl Fn(&Measured) -> f64) -> Option<f64> {
        match self {
            Round::Load { measured, .. } => Some(value(measured)),
            Round::Idle { .. } => None,
        }
    }
}

/// The median of some rounds, and their least and most; in JSON an array of these three, with four digits each.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "[f64; 3]", into = "[f64; 3]")]
pub(crate) struct Spread {
    /// The median.
    pub(crate) median: f64,
    /// The least.
    pub(crate) least: f64,
    /// The most.
    pub(crate) most: f64,
}

impl From<[f64; 3]> for Spread {
    fn from([median, least, most]: [f64; 3]) -> Self {
        Spread { median, least, most }
    }
}

impl From<Spread> for [f64; 3] {
    fn from(spread: Spread) -> Self {
        [spread.median, spread.least, spread.most].map(|value| {
            let digits = if value > 0.0 { 3 - value.log10().floor() as i32 } else { 0 };
            let scale = 10f64.powi(digits.clamp(0, 6));
            (value * scale).round() / scale
        })
    }
}

impl Spread {
    /// That of these values; nothing when there are none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Some(Spread { median, least, most })
    }
}

/// What one contender came to in one case. What a case does not have is missing.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// Requests a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rate: Option<Spread>,
    /// CPU seconds of 100,000 requests; of idle connections, resident KiB of each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cost: Option<Spread>,
    /// The cost of each round divided by that of the first contender in the same round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ratio: Option<Spread>,
    /// The same for HAProxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) haproxy_ratio: Option<Spread>,
    /// What each round came to beside the same without a proxy, or without what the case is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) beside: Option<Spread>,
    /// Milliseconds within which half of the requests are answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) p50: Option<Spread>,
    /// The same for 99 %.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) p99: Option<Spread>,
    /// The same for 99.9 %.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) p999: Option<Spread>,
    /// The 99 % of each round divided by that of the first contender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) p99_ratio: Option<Spread>,
    /// Which share of its cores the proxy used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) busy: Option<Spread>,
    /// Resident MiB after a round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) resident: Option<Spread>,
    /// Requests of all rounds that got no answer.
    pub(crate) failed: u64,
    /// Answers of all rounds with a status of 400 and above.
    pub(crate) refused: u64,
    /// Answers of all rounds.
    pub(crate) requests: u64,
}

impl Figures {
    /// The figures of `rounds`, beside those of the contender that others are compared with.
    pub(crate) fn of(rounds: &[Round], reference: Option<&[Round]>) -> Self {
        let load =
            |value: &dyn Fn(&Measured) -> f64| Spread::of(rounds.iter().filter_map(|round| round.of_load(value)));
        let beside = |value: &dyn Fn(&Round) -> Option<f64>| {
            let pairs = rounds.iter().zip(reference?);
            Spread::of(
                pairs.filter_map(|(own, other)| Some(value(own)? / value(other)?)).filter(|ratio| ratio.is_finite()),
            )
        };
        let sum = |value: fn(&Measured) -> u64| {
            rounds.iter().filter_map(move |round| match round {
                Round::Load { measured, .. } => Some(value(measured)),
                Round::Idle { .. } => None,
            })
        };
        Figures {
            rate: load(&Measured::rate),
            cost: Spread::of(rounds.iter().map(Round::cost)),
            ratio: beside(&|round| Some(round.cost())),
            haproxy_ratio: None,
            beside: Spread::of(rounds.iter().filter_map(|round| match round {
                Round::Load { beside, .. } => *beside,
                Round::Idle { .. } => None,
            })),
            p50: load(&|measured| measured.p50 / 1e3),
            p99: load(&|measured| measured.p99 / 1e3),
            p999: load(&|measured| measured.p999 / 1e3),
            p99_ratio: beside(&|round| round.of_load(|measured| measured.p99)),
            busy: Spread::of(rounds.iter().filter_map(|round| match round {
                Round::Load { busy, .. } => Some(*busy),
                Round::Idle { .. } => None,
            })),
            resident: Spread::of(rounds.iter().map(|round| match round {
                Round::Load { resident, .. } | Round::Idle { resident, .. } => *resident as f64 / 1048576.0,
            })),
            failed: sum(|measured| measured.failed).sum(),
            refused: sum(|measured| measured.refused).sum(),
            requests: sum(|measured| measured.requests).sum(),
        }
    }
}
