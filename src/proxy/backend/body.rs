//! The body of an answer, from the backend's framing into the client's.
//!
//! A body of known length is passed on as it is. One in chunks is decoded and put into chunks again, one for each read:
//! what nobody asked for (extensions, trailers, odd spellings of a size) ends here. One that ends with its connection
//! is put into chunks, so that the client's connection stays, and so that the client can tell an end from a break.

use std::io::Write;

use bytes::{Buf, Bytes, BytesMut};

use crate::proxy::wire::chunked::{Chunked, MalformedChunks};

/// What of an answer's body is still to come.
#[derive(Clone, Debug)]
pub(in crate::proxy) enum AnswerBody {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunked),
    /// What comes until the backend closes.
    UntilClose,
}

/// The chunk that ends a body.
pub(in crate::proxy) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

impl AnswerBody {
    /// Whether it is complete. One that ends with its connection never is before that.
    pub(in crate::proxy) fn is_done(&self) -> bool {
        match self {
            AnswerBody::Length(left) => *left == 0,
            AnswerBody::Chunked(chunked) => chunked.is_done(),
            AnswerBody::UntilClose => false,
        }
    }

    /// Whether it was sent apart from its header: there is to be one, and behind the header `buffer` has nothing of it.
    pub(in crate::proxy) fn is_apart(&self, buffer: &[u8]) -> bool {
        buffer.is_empty() && !self.is_done()
    }

    /// Whether the client gets it in chunks.
    pub(in crate::proxy) fn is_in_chunks(&self) -> bool {
        !matches!(self, AnswerBody::Length(_))
    }

    /// How many bytes of it, at most, are still to come; `None` when only its end will tell.
    pub(in crate::proxy) fn left(&self) -> Option<usize> {
        match self {
            AnswerBody::Length(left) => Some(usize::try_from(*left).unwrap_or(usize::MAX)),
            AnswerBody::Chunked(_) | AnswerBody::UntilClose => None,
        }
    }

    /// Moves what `buffer` has of it to the end of `out`, as the client gets it; how many bytes of the body that were.
    ///
    /// # Errors
    /// When it is malformed.
    pub(in crate::proxy) fn take(
        &mut self,
        buffer: &mut BytesMut,
        out: &mut Vec<u8>,
    ) -> Result<usize, MalformedChunks> {
        match self {
            AnswerBody::Length(left) => {
                let part = buffer.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= part as u64;
                out.extend_from_slice(&buffer[..part]);
                buffer.advance(part);
                Ok(part)
            }
            AnswerBody::Chunked(chunked) => {
                let mut data = 0;
                chunked.clone().decode(buffer, |piece| data += piece.len())?;
                begin_chunk(out, data);
                let part = chunked.decode(buffer, |piece| out.extend_from_slice(piece))?;
                end_chunk(out, data);
                buffer.advance(part);
                if chunked.is_done() {
                    out.extend_from_slice(LAST_CHUNK);
                }
                Ok(data)
            }
            AnswerBody::UntilClose => {
                let data = buffer.len();
                begin_chunk(out, data);
                out.extend_from_slice(buffer);
                end_chunk(out, data);
                buffer.clear();
                Ok(data)
            }
        }
    }

    /// Drops `part` bytes of `buffer`, which are of it and were passed on.
    pub(in crate::proxy) fn skip(&mut self, buffer: &mut BytesMut, part: usize) {
        if let AnswerBody::Length(left) = self {
            *left -= part as u64;
        }
        buffer.advance(part);
    }

    /// Moves what `buffer` has of it out of it, without any framing.
    ///
    /// # Errors
    /// When it is malformed.
    pub(in crate::proxy) fn take_data(&mut self, buffer: &mut BytesMut) -> Result<Bytes, MalformedChunks> {
        match self {
            AnswerBody::Length(left) => {
                let part = buffer.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= part as u64;
                Ok(buffer.split_to(part).freeze())
            }
            AnswerBody::Chunked(chunked) => {
                let mut data = BytesMut::with_capacity(buffer.len());
                let part = chunked.decode(buffer, |piece| data.extend_from_slice(piece))?;
                buffer.advance(part);
                Ok(data.freeze())
            }
            AnswerBody::UntilClose => Ok(buffer.split().freeze()),
        }
    }

    /// Whether the end of the connection is its end.
    pub(in crate::proxy) fn ends_with_its_connection(&self) -> bool {
        matches!(self, AnswerBody::UntilClose)
    }
}

/// A chunk of no bytes would be the last one, so it is none.
fn begin_chunk(out: &mut Vec<u8>, size: usize) {
    if size > 0 {
        write!(out, "{size:x}\r\n").expect("a Vec takes every write");
    }
}

fn end_chunk(out: &mut Vec<u8>, size: usize) {
    if size > 0 {
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the client gets when the bytes come in `parts`, and what is left over.
    fn pass(mut body: AnswerBody, parts: &[&[u8]]) -> Result<(Vec<u8>, BytesMut), MalformedChunks> {
        let (mut buffer, mut out) = (BytesMut::new(), Vec::new());
        for part in parts {
            buffer.extend_from_slice(part);
            if !body.is_done() {
                body.take(&mut buffer, &mut out)?;
            }
        }
        if !body.is_done() {
            assert!(body.ends_with_its_connection(), "it is complete");
            out.extend_from_slice(LAST_CHUNK);
        }
        Ok((out, buffer))
    }

    #[test]
    fn each_framing_becomes_the_clients() {
        let pass = |body, parts: &[&[u8]]| {
            let (out, left) = pass(body, parts).unwrap();
            (String::from_utf8(out).unwrap(), String::from_utf8(left.to_vec()).unwrap())
        };
        assert_eq!(pass(AnswerBody::Length(5), &[b"he", b"lloX"]), ("hello".into(), "X".into()));
        assert_eq!(pass(AnswerBody::UntilClose, &[b"he", b"", b"llo"]).0, "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n");
        let chunks: &[&[u8]] = &[b"2;x=y\r\nhe\r\n00", b"3\r", b"\nllo\r\n0\r\nTrailer: x\r\n", b"\r\nX"];
        let expected = "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n";
        assert_eq!(pass(AnswerBody::Chunked(Chunked::new()), chunks), (expected.into(), "X".into()));
        let mut buffer = BytesMut::from(&b"2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\n\r\nX"[..]);
        assert_eq!(AnswerBody::Chunked(Chunked::new()).take_data(&mut buffer), Ok(Bytes::from("hello")));
        assert_eq!(AnswerBody::Length(5).take_data(&mut buffer), Ok(Bytes::from("X")));
        assert!(super::tests::pass(AnswerBody::Chunked(Chunked::new()), &[b"x\r\n"]).is_err());
    }

    #[test]
    fn only_a_body_of_which_nothing_came_with_its_header_is_apart() {
        for (body, there, apart) in [
            (AnswerBody::Length(5), "", true),
            (AnswerBody::Length(5), "h", false),
            (AnswerBody::Length(5), "hello", false),
            (AnswerBody::Length(0), "", false),
            (AnswerBody::Chunked(Chunked::new()), "", true),
            (AnswerBody::Chunked(Chunked::new()), "5", false),
            (AnswerBody::UntilClose, "", true),
            (AnswerBody::UntilClose, "h", false),
        ] {
            assert_eq!(body.is_apart(there.as_bytes()), apart, "{body:?} {there:?}");
        }
    }

    proptest! {
        /// However the bytes of a chunked body are cut, the client gets its data, in chunks.
        #[test]
        fn chunks_hold_the_same_data(pieces in prop::collection::vec("[a-z]{1,20}", 0..6), cuts in prop::collection::vec(0_usize..200, 0..5)) {
            let mut bytes = Vec::new();
            for piece in &pieces {
                bytes.extend_from_slice(format!("{:X}\r\n{piece}\r\n", piece.len()).as_bytes());
            }
            bytes.extend_from_slice(LAST_CHUNK);
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut % bytes.len()).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let parts: Vec<_> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            let (out, left) = pass(AnswerBody::Chunked(Chunked::new()), &parts).unwrap();
            let (mut chunked, mut data) = (Chunked::new(), Vec::new());
            prop_assert_eq!(chunked.decode(&out, |piece| data.extend_from_slice(piece)), Ok(out.len()));
            prop_assert!(chunked.is_done() && left.is_empty());
            prop_assert_eq!(String::from_utf8(data).unwrap(), pieces.concat());
        }
    }
}
