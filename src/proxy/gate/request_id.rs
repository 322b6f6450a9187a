//! The name of one request, for matching the log lines of several systems.

use std::fmt;
use std::sync::Arc;

/// The longest id that is taken over from a proxy before us.
const MAX_GIVEN: usize = 128;

/// 128 random bits as 32 hexadecimal digits, like nginx's `$request_id`, or what a trusted proxy has called the
/// request. Not a secret: the generator is fast, not cryptographic.
#[derive(Clone, PartialEq, Eq)]
pub struct RequestId(Repr);

#[derive(Clone, PartialEq, Eq)]
enum Repr {
    Random([u8; 32]),
    Given(Arc<str>),
}

impl RequestId {
    /// A new one.
    pub fn random() -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut bits = fastrand::u128(..);
        RequestId(Repr::Random(std::array::from_fn(|_| {
            let digit = DIGITS[(bits & 0xf) as usize];
            bits >>= 4;
            digit
        })))
    }

    /// The one that a trusted proxy gave, if it is one: 1 to 128 visible ASCII characters.
    pub fn given(text: &[u8]) -> Option<Self> {
        let text = str::from_utf8(text).ok().filter(|text| (1..=MAX_GIVEN).contains(&text.len()))?;
        text.bytes().all(|byte| byte.is_ascii_graphic()).then(|| RequestId(Repr::Given(text.into())))
    }

    /// The same, without a look at whether they are text.
    pub(in crate::proxy) fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Random(digits) => digits,
            Repr::Given(text) => text.as_bytes(),
        }
    }

    /// Its characters.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Repr::Random(digits) => str::from_utf8(digits).expect("hexadecimal digits are ASCII"),
            Repr::Given(text) => text,
        }
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_32_digits_and_new_each_time() {
        let (first, second) = (RequestId::random(), RequestId::random());
        assert!(first.as_str().len() == 32 && first.as_str().bytes().all(|b| b.is_ascii_hexdigit()));
        assert_ne!(first, second);
    }

    #[test]
    fn a_given_one_is_short_and_visible() {
        assert_eq!(RequestId::given(b"req-1/x").unwrap().as_str(), "req-1/x");
        for wrong in [&b""[..], b"a b", b"a\n", b"\xff", &[b'x'; 129]] {
            assert_eq!(RequestId::given(wrong), None);
        }
    }
}
