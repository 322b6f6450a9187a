//! Which trace a request belongs to, as W3C's Trace Context tells it from one server to the next.
//!
//! The problem: who looks into what one click has set off at five servers needs one name for it at all of them. Anybody
//! can send a `traceparent`, and asks with it that all five write down what they did.
//!
//! The rule: a `traceparent` that is right names the trace, and the backend gets the same trace with a span of ours as
//! the parent of its own; `tracestate` goes with it as it came. One that is absent, wrong, or there several times begins
//! a new trace, and what `tracestate` says of another is dropped. Whether the request is written down says a trusted
//! proxy; of everybody else the flag does not count, or a stranger could have all of its requests written down, and the
//! `sample` of the configuration decides, by chance and not by the trace's id, which a stranger can choose, too.
//!
//! The recommendation of 2020 has one flag, so no other is passed on. A later version is read as far as it is the same,
//! and answered by this one, as it asks.

use std::num::{NonZeroU64, NonZeroU128};

/// What is done about traces.
#[derive(Clone, Debug, PartialEq)]
pub struct TracingSettings {
    /// Whether backends are told of the trace. Otherwise they get what the client says of it.
    pub propagate: bool,
    /// The share of requests that is written down, from 0 to 1, where no trusted proxy has decided.
    pub sample: f64,
}

/// The name of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(NonZeroU128);

/// The name of a part of a trace: what one server did about one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanId(NonZeroU64);

impl TraceId {
    fn random() -> Self {
        TraceId(NonZeroU128::new(fastrand::u128(1..)).unwrap_or(NonZeroU128::MIN))
    }

    /// Its 32 hexadecimal digits.
    pub fn digits(self) -> [u8; 32] {
        digits(self.0.get())
    }
}

impl SpanId {
    /// A new one.
    pub fn random() -> Self {
        SpanId(NonZeroU64::new(fastrand::u64(1..)).unwrap_or(NonZeroU64::MIN))
    }
}

/// What a `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace: TraceId,
    /// Who asks, in it.
    pub span: SpanId,
    /// Whether who asks writes it down.
    pub sampled: bool,
}

impl TraceParent {
    /// How many bytes one of the version that is known has.
    const LENGTH: usize = 55;

    /// Reads one; none when it is wrong.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (known, more) = value.split_at_checked(Self::LENGTH)?;
        let is_right = match number(&known[..2])? {
            0xff => false,
            0 => more.is_empty(),
            _ => more.first().is_none_or(|byte| *byte == b'-'),
        };
        (is_right && [2, 35, 52].iter().all(|place| known[*place] == b'-')).then_some(())?;
        let trace = TraceId(NonZeroU128::new(number(&known[3..35])?)?);
        let span = SpanId(NonZeroU64::new(u64::try_from(number(&known[36..52])?).ok()?)?);
        Some(TraceParent { trace, span, sampled: number(&known[53..])? & 1 == 1 })
    }

    /// Appends it.
    pub fn put(self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"00-");
        out.extend_from_slice(&self.trace.digits());
        out.push(b'-');
        out.extend_from_slice(&digits::<16>(self.span.0.get().into()));
        out.extend_from_slice(if self.sampled { b"-01" } else { b"-00" });
    }
}

/// The number that these hexadecimal digits are, at most 32; none with any other byte, or with capitals.
fn number(text: &[u8]) -> Option<u128> {
    text.iter().try_fold(0, |number, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

fn digits<const N: usize>(number: u128) -> [u8; N] {
    std::array::from_fn(|place| b"0123456789abcdef"[(number >> (4 * (N - 1 - place)) & 0xf) as usize])
}

/// The trace of one request.
#[derive(Debug)]
pub struct RequestTrace {
    /// What backends are told: the trace, our span in it, and whether it is written down.
    pub own: TraceParent,
    /// The span that asks us, in the same trace.
    pub parent: Option<SpanId>,
    /// Whether backends are told.
    pub propagates: bool,
}

impl RequestTrace {
    /// That of a request with these values of `traceparent`, whose sender is `trusted` or not.
    pub fn of<'h>(
        mut sent: impl Iterator<Item = &'h [u8]>,
        trusted: bool,
        TracingSettings { propagate, sample }: &TracingSettings,
    ) -> Self {
        let parent = match (sent.next(), sent.next()) {
            (Some(value), None) => TraceParent::parse(value),
            _ => None,
        };
        let decided = parent.filter(|_| trusted).map(|parent| parent.sampled);
        let own = TraceParent {
            trace: parent.map_or_else(TraceId::random, |parent| parent.trace),
            span: SpanId::random(),
            sampled: decided.unwrap_or_else(|| fastrand::f64() < *sample),
        };
        RequestTrace { own, parent: parent.map(|parent| parent.span), propagates: *propagate }
    }
}

#[cfg(test)]
mod tests;
