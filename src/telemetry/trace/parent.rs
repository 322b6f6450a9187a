//! What a `traceparent` says, and what it is made of.

use std::num::{NonZeroU64, NonZeroU128};

/// The name of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(pub(super) NonZeroU128);

/// The name of a part of a trace: what one server did about one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanId(pub(super) NonZeroU64);

impl TraceId {
    /// A new one.
    pub(super) fn random() -> Self {
        TraceId(NonZeroU128::new(fastrand::u128(1..)).unwrap_or(NonZeroU128::MIN))
    }

    /// Its 32 hexadecimal digits.
    pub fn digits(self) -> [u8; 32] {
        digits(self.0.get())
    }

    /// Its bytes.
    pub fn bytes(self) -> [u8; 16] {
        self.0.get().to_be_bytes()
    }
}

impl SpanId {
    /// A new one.
    pub fn random() -> Self {
        SpanId(NonZeroU64::new(fastrand::u64(1..)).unwrap_or(NonZeroU64::MIN))
    }

    /// Its bytes.
    pub fn bytes(self) -> [u8; 8] {
        self.0.get().to_be_bytes()
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
