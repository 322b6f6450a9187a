//! The name of one request, for matching the log lines of several systems.

use std::fmt;

/// 128 random bits as 32 hexadecimal digits, like nginx's `$request_id`. Not a secret: the generator is fast, not
/// cryptographic.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestId([u8; 32]);

impl RequestId {
    /// A new one.
    pub fn random() -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut bits = fastrand::u128(..);
        RequestId(std::array::from_fn(|_| {
            let digit = DIGITS[(bits & 0xf) as usize];
            bits >>= 4;
            digit
        }))
    }

    /// Its digits.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("hexadecimal digits are ASCII")
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
}
