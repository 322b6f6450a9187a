//! Percent-decoding, strictly.
//!
//! A decoder that lets `%zz` stand, or puts a replacement character for what is not UTF-8, makes two spellings of one
//! name, and an operator edits another client than the one he typed.

/// Why a text cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    /// A `%` that two hexadecimal digits do not follow.
    #[error("has a % that two hexadecimal digits do not follow")]
    Escape,
    /// The bytes are not UTF-8.
    #[error("is not UTF-8")]
    Utf8,
    /// A NUL.
    #[error("has a NUL character")]
    Nul,
}

/// Decodes one segment or path.
///
/// # Errors
/// What is wrong with the escapes in `text`.
pub(super) fn decode(text: &str) -> Result<String, Malformed> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16)).ok_or(Malformed::Escape);
        let (high, low) = (digit()?, digit()?);
        // Two hexadecimal digits fit a byte.
        bytes.push((high * 16 + low) as u8);
    }
    if bytes.contains(&0) {
        return Err(Malformed::Nul);
    }
    String::from_utf8(bytes).map_err(|_| Malformed::Utf8)
}

/// Decodes a name or value of a query, where `+` is a space.
///
/// # Errors
/// What is wrong with the escapes in `text`.
pub(super) fn decode_query(text: &str) -> Result<String, Malformed> {
    decode(&text.replace('+', " "))
}

/// Encodes everything that cannot stand in a path segment as it is.
pub(super) fn encode_segment(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:@".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_read_or_refused() {
        assert_eq!(decode("203.0.113.0%2f24").unwrap(), "203.0.113.0/24");
        assert_eq!(decode("a+b%C3%A4").unwrap(), "a+bä");
        assert_eq!(decode_query("a+b%2B").unwrap(), "a b+");
        for text in ["%", "a%2", "%zz", "%2g", "%+1", "%-1", "% 1"] {
            assert_eq!(decode(text), Err(Malformed::Escape), "{text}");
        }
        assert_eq!((decode("%ff"), decode("%C3"), decode("%00")), {
            (Err(Malformed::Utf8), Err(Malformed::Utf8), Err(Malformed::Nul))
        });
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        assert_eq!(encode_segment("203.0.113.0/24"), "203.0.113.0%2F24");
        for text in ["a b/c%d", "2001:db8::/32", "team@example.com"] {
            assert_eq!(decode(&encode_segment(text)).unwrap(), text);
        }
    }
}
