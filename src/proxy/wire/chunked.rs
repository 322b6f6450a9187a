//! Where a chunked body ends, and whether it is well formed (RFC 9112 section 7.1).
//!
//! Pingora decodes the body and encodes it anew for the backend, but it forgives much: a size without digits, bare line
//! feeds, extensions of any shape. What one parser forgives another reads differently, so a body with any doubt in it
//! is refused here. Knowing the end also keeps a request that was sent ahead from being taken for a part of the body.

/// The longest extensions of one chunk, and the longest trailers, in bytes. What is longer is an attack (CVE-2024-24549
/// and more).
pub(in crate::proxy) const MAX_OVERHEAD: usize = 16 << 10;
/// How long the extensions of a request's chunk may be, beside as much as it has data, without counting against the
/// next one's. Each of them has to have some data, so `limits.max_body` bounds them all; a flood of long ones around
/// single bytes (CVE-2023-39326) is over after some chunks. A signature of each chunk has some hundred bytes.
const FREE_OVERHEAD: usize = 256;

/// The most digits of a size: 60 bits, safe in every integer that it is read into.
const MAX_DIGITS: u32 = 15;

/// Follows a chunked body as its bytes come by.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct Chunked {
    state: ChunkState,
    /// What is left of the present chunk; while its size is being read, the size so far.
    size: u64,
    digits: u32,
    /// Bytes of extensions or trailers that count against [`MAX_OVERHEAD`].
    overhead: usize,
    /// Whether it is an answer's.
    of_answer: bool,
    /// The lines behind the last chunk, as far as they have come.
    trailers: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChunkState {
    /// Before the first digit of a size.
    SizeStart,
    Size,
    /// After a size or an extension, behind a space or tab.
    BeforeExtension,
    /// After `;`.
    NameStart,
    Name,
    AfterName,
    /// After `=`.
    ValueStart,
    Value,
    Quoted,
    Escaped,
    AfterValue,
    /// After the CR that ends the line of a size.
    SizeEnd,
    Data,
    DataCr,
    DataLf,
    /// At the start of a line after the last chunk.
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerEnd,
    /// After the CR of the empty line.
    BodyEnd,
    Done,
}

/// The body is not a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct MalformedChunks;

impl Chunked {
    /// At the start of a body.
    pub(in crate::proxy) fn new() -> Self {
        Chunked {
            state: ChunkState::SizeStart,
            size: 0,
            digits: 0,
            overhead: 0,
            of_answer: false,
            trailers: Vec::new(),
        }
    }

    /// The same for the body of an answer. Some old servers pad a size with spaces, which every proxy forgives; it is
    /// put into chunks anew anyway. However many chunks it has, the extensions of each count for themselves.
    pub(in crate::proxy) fn of_answer() -> Self {
        Chunked { of_answer: true, ..Chunked::new() }
    }

    /// Whether the body is complete.
    pub(in crate::proxy) fn is_done(&self) -> bool {
        self.state == ChunkState::Done
    }

    /// Whether trailers were among what came.
    pub(in crate::proxy) fn has_trailers(&self) -> bool {
        !self.trailers.is_empty()
    }

    /// The trailers that came, each a line that ends in CR LF.
    pub(in crate::proxy) fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    /// Follows `bytes`, and tells how many of them belong to the body.
    ///
    /// # Errors
    /// [`MalformedChunks`], after which nothing it tells is of use.
    pub(in crate::proxy) fn follow(&mut self, bytes: &[u8]) -> Result<usize, MalformedChunks> {
        self.decode(bytes, |_| {})
    }

    /// The same, and gives `data` what of them is in the chunks, piece by piece.
    ///
    /// # Errors
    /// [`MalformedChunks`], after which nothing it tells is of use.
    pub(in crate::proxy) fn decode(
        &mut self,
        bytes: &[u8],
        mut data: impl FnMut(&[u8]),
    ) -> Result<usize, MalformedChunks> {
        let mut at = 0;
        while at < bytes.len() && self.state != ChunkState::Done {
            if self.state == ChunkState::Data {
                let part = (bytes.len() - at).min(usize::try_from(self.size).unwrap_or(usize::MAX));
                self.size -= part as u64;
                data(&bytes[at..at + part]);
                at += part;
                if self.size == 0 {
                    self.state = ChunkState::DataCr;
                }
                continue;
            }
            self.state = self.step(bytes[at])?;
            at += 1;
        }
        Ok(at)
    }

    /// Takes note that a chunk's extensions are over, and that data follows them.
    fn forgive(&mut self) {
        let data = usize::try_from(self.size).unwrap_or(usize::MAX);
        let free = if self.of_answer { self.overhead } else { data.saturating_add(FREE_OVERHEAD) };
        self.overhead = self.overhead.saturating_sub(free);
    }

    fn step(&mut self, byte: u8) -> Result<ChunkState, MalformedChunks> {
        use ChunkState::*;
        if !matches!(self.state, SizeStart | Size | SizeEnd | DataCr | DataLf) {
            self.overhead += 1;
            if self.overhead > MAX_OVERHEAD {
                return Err(MalformedChunks);
            }
        }
        let state = match (self.state, byte) {
            (SizeStart | Size, digit) if digit.is_ascii_hexdigit() => {
                let digit = char::from(digit).to_digit(16).map_or(0, u64::from);
                // No more digits than Pingora's parser takes, leading zeros included: what one takes and the other does
                // not is where a request hides.
                self.digits = if self.state == Size { self.digits + 1 } else { 1 };
                if self.digits > MAX_DIGITS {
                    return Err(MalformedChunks);
                }
                self.size = self.size * 16 + digit;
                Size
            }
            (Size | AfterName | Name | Value | AfterValue, b'\r') => SizeEnd,
            (Size | BeforeExtension | AfterName | Name | Value | AfterValue, b';') => NameStart,
            (Size | BeforeExtension, b' ' | b'\t') => BeforeExtension,
            (BeforeExtension, b'\r') if self.of_answer => SizeEnd,
            (NameStart, b' ' | b'\t') => NameStart,
            (NameStart | Name, byte) if is_token(byte) => Name,
            (Name | AfterName, b'=') => ValueStart,
            (Name | AfterName, b' ' | b'\t') => AfterName,
            (ValueStart, b' ' | b'\t') => ValueStart,
            (ValueStart, b'"') => Quoted,
            (ValueStart | Value, byte) if is_token(byte) => Value,
            (Quoted, b'\\') => Escaped,
            (Quoted, b'"') => AfterValue,
            (Quoted | Escaped, byte) if is_text(byte) => Quoted,
            (Value | AfterValue, b' ' | b'\t') => AfterValue,
            (SizeEnd, b'\n') if self.size == 0 => {
                self.overhead = 0;
                TrailerStart
            }
            (SizeEnd, b'\n') => {
                self.forgive();
                Data
            }
            (DataCr, b'\r') => DataLf,
            (DataLf, b'\n') => SizeStart,
            (TrailerStart, b'\r') => BodyEnd,
            (TrailerStart | TrailerName, byte) if is_token(byte) => TrailerName,
            (TrailerName, b':') => TrailerValue,
            (TrailerValue, b'\r') => TrailerEnd,
            (TrailerValue, byte) if is_text(byte) => TrailerValue,
            (TrailerEnd, b'\n') => TrailerStart,
            (BodyEnd, b'\n') => Done,
            _ => return Err(MalformedChunks),
        };
        if matches!(self.state, TrailerStart | TrailerName | TrailerValue | TrailerEnd) && state != BodyEnd {
            self.trailers.push(byte);
        }
        Ok(state)
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How much of `bytes` is a body, if it is complete, and `None` while it is not.
    fn body(bytes: &[u8]) -> Result<Option<usize>, MalformedChunks> {
        let mut chunked = Chunked::new();
        let length = chunked.follow(bytes)?;
        Ok(chunked.is_done().then_some(length))
    }

    #[test]
    fn well_formed_bodies_end_where_they_end() {
        for whole in [
            "0\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
            "05\r\nhello\r\n000\r\n\r\n",
            "A\r\n0123456789\r\n0\r\n\r\n",
            "5;a\r\nhello\r\n0;b=c\r\n\r\n",
            "5 ; a = \"x;\\\"y\" ;b\r\nhello\r\n0\r\n\r\n",
            "5\r\nhello\r\n0\r\nX-Sum: 1\r\nX-Empty:\r\n\r\n",
        ] {
            let ahead = format!("{whole}GET / HTTP/1.1\r\n");
            assert_eq!(body(ahead.as_bytes()), Ok(Some(whole.len())), "{whole:?}");
            let mut chunked = Chunked::new();
            chunked.follow(whole.as_bytes()).unwrap();
            assert_eq!(chunked.has_trailers(), whole.contains("X-Sum"), "{whole:?}");
            assert_eq!(body(&whole.as_bytes()[..whole.len() - 1]), Ok(None), "{whole:?}");
        }
    }

    #[test]
    fn bodies_with_any_doubt_are_malformed() {
        for wrong in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "0x5\r\n",
            "5 \r\n",
            "5\nhello\r\n",
            "5;\r\n",
            "5;a\n",
            "5;bad[=x\r\n",
            "5;a=\r\n",
            "5;a=\"b\r\n",
            "5;a=\"b\"c\r\n",
            "5\r\nhelloX",
            "5\r\nhello\n",
            "5\r\nhello\r\r",
            "fffffffffffffffff\r\n",
            "0000000000000023\r\n",
            "0\r\nX\r\n",
            "0\r\n X: y\r\n",
            "0\r\nX: y\n",
            "0\r\nX: \0\r\n",
        ] {
            assert_eq!(body(wrong.as_bytes()), Err(MalformedChunks), "{wrong:?}");
        }
        assert_eq!(body(format!("1;{}", "a".repeat(MAX_OVERHEAD + 1)).as_bytes()), Err(MalformedChunks));
    }

    /// How many chunks of so much data with extensions of so many bytes are taken, of a thousand.
    fn taken(mut chunked: Chunked, extension: usize, data: usize) -> usize {
        let chunk = format!("{data:x};{}\r\n{}\r\n", "a".repeat(extension - 1), "b".repeat(data));
        (0..1000).take_while(|_| chunked.follow(chunk.as_bytes()) == Ok(chunk.len())).count()
    }

    #[test]
    fn extensions_count_for_their_chunk_and_in_a_request_against_its_data() {
        for (extension, data) in [(2, 1), (20, 1), (200, 1), (2000, 2000), (MAX_OVERHEAD, MAX_OVERHEAD)] {
            assert_eq!(taken(Chunked::new(), extension, data), 1000, "{extension} {data}");
        }
        for (extension, data) in [(2000, 1), (MAX_OVERHEAD, 1)] {
            assert_eq!(taken(Chunked::of_answer(), extension, data), 1000, "{extension} {data}");
        }
        assert_eq!(taken(Chunked::of_answer(), MAX_OVERHEAD + 1, 1 << 20), 0);
        assert_eq!(taken(Chunked::new(), MAX_OVERHEAD + 1, 1 << 20), 0);
        // A flood around single bytes is over before it has come to much.
        assert!((5..100).contains(&taken(Chunked::new(), 2000, 1)));
        let trailers = |count: usize| format!("0;{}\r\n{}\r\n", "a".repeat(9000), "X: y\r\n".repeat(count));
        assert!(body(trailers(2000).as_bytes()).is_ok_and(|length| length.is_some()));
        assert_eq!(body(trailers(4000).as_bytes()), Err(MalformedChunks));
    }

    #[test]
    fn the_sizes_of_an_answer_may_be_padded() {
        let body = |bytes: &[u8]| {
            let mut chunked = Chunked::of_answer();
            chunked.follow(bytes).map(|length| chunked.is_done().then_some(length))
        };
        let whole = b"5  \r\nhello\r\n0 \t\r\n\r\n";
        assert_eq!(body(whole), Ok(Some(whole.len())));
        for wrong in [&b" 5\r\n"[..], b"5 0\r\n", b"5 \n", b"\t\r\n"] {
            assert_eq!(body(wrong), Err(MalformedChunks), "{}", wrong.escape_ascii());
        }
    }

    proptest! {
        /// Every size that is taken here is the same size to Pingora's parser.
        #[test]
        fn sizes_mean_the_same_to_pingora(line in "[0-9a-fA-F]{0,20}[ \t]?(;[a-z]{0,3}(=[a-z\"]{0,3})?)?\r\n") {
            let mut chunked = Chunked::new();
            if chunked.follow(line.as_bytes()).is_ok() {
                let size = httparse::parse_chunk_size(line.as_bytes()).unwrap();
                prop_assert_eq!(size, httparse::Status::Complete((line.len(), chunked.size)));
            }
        }

        /// However the bytes are cut, the outcome is the same.
        #[test]
        fn cuts_change_nothing(text in "([0-9a-f]{0,2}(;[a=\" ]{0,3})?\r\n[a-z]{0,3}(\r\n)?){0,4}(0\r\n\r\n)?", cut in 0_usize..40) {
            let bytes = text.as_bytes();
            let cut = cut.min(bytes.len());
            let mut chunked = Chunked::new();
            let both = chunked.follow(&bytes[..cut]).and_then(|first| {
                if chunked.is_done() { return Ok(first) }
                Ok(first + chunked.follow(&bytes[cut..])?)
            });
            prop_assert_eq!(both.map(|length| chunked.is_done().then_some(length)), body(bytes));
        }
    }
}
