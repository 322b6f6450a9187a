//! The lines of a parsed header section, found in its bytes without copying them.
//!
//! The problem: a header map costs an allocation and a hash for each line, and a request is looked at for three names.
//! Here a line is where its name and its value are. One [`Lines`] is kept for a connection, so that it allocates once.

use http::{HeaderMap, HeaderName};
use httparse::Header;

/// The most header lines; Pingora's own bound.
pub(in crate::proxy) const MAX_HEADERS: usize = 256;

/// A part of the bytes of a header section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::proxy) struct ByteSpan {
    start: u32,
    end: u32,
}

impl ByteSpan {
    /// Where `part` is in `whole`, of which it is a part.
    pub(in crate::proxy) fn of(whole: &[u8], part: &[u8]) -> Self {
        let start = part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr());
        debug_assert!(part.is_empty() || start + part.len() <= whole.len());
        // No header section comes near 4 GiB, and what is empty may lie anywhere.
        if part.is_empty() {
            ByteSpan::default()
        } else {
            ByteSpan { start: start as u32, end: (start + part.len()) as u32 }
        }
    }

    /// The part of `whole` that it names.
    pub(in crate::proxy) fn of_bytes(self, whole: &[u8]) -> &[u8] {
        &whole[self.start as usize..self.end as usize]
    }
}

/// One line.
#[derive(Clone, Copy, Debug)]
struct Line {
    name: ByteSpan,
    value: ByteSpan,
}

/// The lines of a header section, in their order.
#[derive(Clone, Debug, Default)]
pub(in crate::proxy) struct Lines(Vec<Line>);

impl Lines {
    /// Takes the lines that `headers` found in `bytes`, in place of what was there.
    pub(in crate::proxy) fn fill(&mut self, bytes: &[u8], headers: &[Header<'_>]) {
        self.0.clear();
        self.0.extend(headers.iter().map(|header| Line {
            name: ByteSpan::of(bytes, header.name.as_bytes()),
            value: ByteSpan::of(bytes, header.value),
        }));
    }

    /// Appends one line to `out`, which holds the lines before it.
    pub(in crate::proxy) fn append(&mut self, out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
        let span = |start: usize, part: &[u8]| ByteSpan { start: start as u32, end: (start + part.len()) as u32 };
        let start = out.len();
        line(out, name, value);
        self.0.push(Line { name: span(start, name), value: span(start + name.len() + 2, value) });
    }

    /// The lines with the bytes that they were found in.
    pub(in crate::proxy) fn of<'h>(&'h self, bytes: &'h [u8]) -> LinesOf<'h> {
        LinesOf { lines: &self.0, bytes }
    }
}

/// Lines with their bytes.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct LinesOf<'h> {
    lines: &'h [Line],
    bytes: &'h [u8],
}

impl<'h> LinesOf<'h> {
    /// Names and values, as they were sent.
    pub(in crate::proxy) fn iter(self) -> impl DoubleEndedIterator<Item = (&'h [u8], &'h [u8])> {
        self.lines.iter().map(move |line| (line.name.of_bytes(self.bytes), line.value.of_bytes(self.bytes)))
    }
}

/// What can be asked for the values of a header: whatever form it was parsed into.
pub trait Fields {
    /// The values under `name`, in the order in which they were sent.
    fn all_of<'h>(&'h self, name: &'h HeaderName) -> impl DoubleEndedIterator<Item = &'h [u8]>;
}

impl Fields for HeaderMap {
    fn all_of<'h>(&'h self, name: &'h HeaderName) -> impl DoubleEndedIterator<Item = &'h [u8]> {
        self.get_all(name).iter().map(http::HeaderValue::as_bytes)
    }
}

impl Fields for LinesOf<'_> {
    fn all_of<'h>(&'h self, name: &'h HeaderName) -> impl DoubleEndedIterator<Item = &'h [u8]> {
        let named = name.as_str().as_bytes();
        self.iter().filter(move |(name, _)| is(name, named)).map(|(_, value)| value)
    }
}

/// Appends one line.
pub(in crate::proxy) fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Whether a name that was sent is `name`, which is in lower case.
pub(in crate::proxy) fn is(sent: &[u8], name: &[u8]) -> bool {
    sent.len() == name.len() && sent.eq_ignore_ascii_case(name)
}

/// Whether two names are the same one.
pub(in crate::proxy) fn is_same(one: &[u8], other: &[u8]) -> bool {
    one.eq_ignore_ascii_case(other)
}

/// The number in a `Content-Length`. At most 18 digits, so that it fits every integer it will be read into.
pub(in crate::proxy) fn length_of(value: &[u8]) -> Option<u64> {
    let digits = value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
    str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use http::header::{HOST, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn parsed(bytes: &[u8]) -> Lines {
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let httparse::Status::Complete((_, headers)) = httparse::parse_headers(bytes, &mut headers).unwrap() else {
            panic!("it is incomplete");
        };
        let mut lines = Lines::default();
        lines.fill(bytes, headers);
        lines
    }

    #[test]
    fn lines_are_found_again_also_when_they_are_empty() {
        let bytes = b"Host: a\r\nX-Empty:\r\nhOST: b\r\n\r\n";
        let lines = parsed(bytes);
        let all: Vec<_> = lines.of(bytes).iter().collect();
        assert_eq!(all, [(&b"Host"[..], &b"a"[..]), (b"X-Empty", b""), (b"hOST", b"b")]);
        assert_eq!(lines.of(bytes).all_of(&HOST).rev().collect::<Vec<_>>(), [b"b", b"a"]);
    }

    proptest! {
        /// Asked for a name, lines and a map say the same.
        #[test]
        fn lines_and_a_map_agree(sent in prop::collection::vec(("[ab]{1,2}|[AB]{1,2}", "[a-c]{0,3}"), 0..10), name in "[ab]{1,2}") {
            let mut bytes = Vec::new();
            let mut map = HeaderMap::new();
            for (name, value) in &sent {
                bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
                map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
            }
            bytes.extend_from_slice(b"\r\n");
            let name: HeaderName = name.parse().unwrap();
            let lines = parsed(&bytes);
            let lines = lines.of(&bytes);
            prop_assert_eq!(lines.all_of(&name).collect::<Vec<_>>(), map.all_of(&name).collect::<Vec<_>>());
        }
    }
}
