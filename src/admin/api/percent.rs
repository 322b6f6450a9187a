//! Percent-decoding, strictly.
//!
//! A decoder that lets `%zz` stand, or puts a replacement character for what is not UTF-8, makes two spellings of one
//! name, and an operator edits another client than the one he typed.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Why a text cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::admin) enum BadEscape {
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

/// What stands in a path segment as it is, beside letters and digits.
const SEGMENT: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':').remove(b'@');

/// Decodes one segment or path.
///
/// # Errors
/// What is wrong with the escapes in `text`.
pub(in crate::admin) fn decode(text: &str) -> Result<String, BadEscape> {
    let is_escape = |rest: &str| rest.len() > 1 && rest.bytes().take(2).all(|digit| digit.is_ascii_hexdigit());
    if !text.split('%').skip(1).all(is_escape) {
        return Err(BadEscape::Escape);
    }
    let bytes: Vec<u8> = percent_decode_str(text).collect();
    if bytes.contains(&0) {
        return Err(BadEscape::Nul);
    }
    String::from_utf8(bytes).map_err(|_| BadEscape::Utf8)
}

/// Decodes a name or value of a query, where `+` is a space.
///
/// # Errors
/// What is wrong with the escapes in `text`.
pub(in crate::admin) fn decode_query(text: &str) -> Result<String, BadEscape> {
    decode(&text.replace('+', " "))
}

/// Encodes everything that cannot stand in a path segment as it is.
pub(in crate::admin) fn encode_segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
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
            assert_eq!(decode(text), Err(BadEscape::Escape), "{text}");
        }
        assert_eq!((decode("%ff"), decode("%C3"), decode("%00")), {
            (Err(BadEscape::Utf8), Err(BadEscape::Utf8), Err(BadEscape::Nul))
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
