//! The body of an answer, from the backend's framing into the client's.
//!
//! A body of known length is passed on as it is. One in chunks is decoded and put into chunks again, one for each read:
//! what nobody asked for (extensions, odd spellings of a size) ends here. One that ends when its backend says so, by
//! the end of its connection or of its stream, is put into chunks, so that the client's connection stays, and so that
//! the client can tell an end from a break. A client of HTTP/1.0 knows no chunks, and gets the bytes as they are.
//! Trailers go where there is room for them.

use std::io::Write;

use bytes::{Buf, Bytes, BytesMut};

use crate::proxy::wire::chunked::{Chunked, MalformedChunks};
use crate::proxy::wire::trailers::Trailers;

/// What of an answer's body is still to come.
#[derive(Clone, Debug)]
pub(in crate::proxy) enum AnswerBody {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunked),
    /// What comes until the backend ends it.
    UntilEnd(BodyEnd),
}

/// The end of a body that its backend ends.
#[derive(Clone, Debug, Default)]
pub(in crate::proxy) struct BodyEnd {
    /// Whether the client was told how long it is, so that it gets the bytes as they are.
    told: bool,
    is_over: bool,
    trailers: Trailers,
}

/// How a client gets a body of which nobody says how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Unmeasured {
    /// In chunks, with what trailers there are.
    WithTrailers,
    /// In chunks alone.
    InChunks,
    /// As it is, to the end of the connection.
    Bare,
}

/// The chunk that ends a body.
pub(in crate::proxy) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

impl AnswerBody {
    /// One that ends when its backend says so; which that may have done already. The client may have been `told` its
    /// length.
    pub(in crate::proxy) fn until_end(told: bool, is_over: bool) -> Self {
        AnswerBody::UntilEnd(BodyEnd { told, is_over, trailers: Trailers::default() })
    }

    /// Whether it is complete.
    pub(in crate::proxy) fn is_done(&self) -> bool {
        match self {
            AnswerBody::Length(left) => *left == 0,
            AnswerBody::Chunked(chunked) => chunked.is_done(),
            AnswerBody::UntilEnd(end) => end.is_over,
        }
    }

    /// Whether it was sent apart from its header: there is to be one, and behind the header `buffer` has nothing of it.
    pub(in crate::proxy) fn is_apart(&self, buffer: &[u8]) -> bool {
        buffer.is_empty() && !self.is_done()
    }

    /// Whether only its end tells how long it is.
    pub(in crate::proxy) fn is_unmeasured(&self) -> bool {
        match self {
            AnswerBody::Length(_) => false,
            AnswerBody::Chunked(_) => true,
            AnswerBody::UntilEnd(end) => !end.told,
        }
    }

    /// How many bytes of it, at most, are still to come; `None` when only its end will tell.
    pub(in crate::proxy) fn left(&self) -> Option<usize> {
        match self {
            AnswerBody::Length(left) => Some(usize::try_from(*left).unwrap_or(usize::MAX)),
            AnswerBody::Chunked(_) | AnswerBody::UntilEnd(_) => None,
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
        how: Unmeasured,
    ) -> Result<usize, MalformedChunks> {
        let in_chunks = how != Unmeasured::Bare && self.is_unmeasured();
        match self {
            AnswerBody::Length(left) => {
                let part = buffer.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= part as u64;
                out.extend_from_slice(&buffer[..part]);
                buffer.advance(part);
                return Ok(part);
            }
            AnswerBody::Chunked(chunked) if in_chunks => {
                let mut data = 0;
                chunked.clone().decode(buffer, |piece| data += piece.len())?;
                begin_chunk(out, data);
                let part = chunked.decode(buffer, |piece| out.extend_from_slice(piece))?;
                end_chunk(out, data);
                buffer.advance(part);
                if chunked.is_done() {
                    end_chunks(out, how, || Trailers::of_lines(chunked.trailers()));
                }
                return Ok(data);
            }
            AnswerBody::Chunked(_) | AnswerBody::UntilEnd(_) => {}
        }
        let data = self.take_data(buffer)?;
        if in_chunks {
            begin_chunk(out, data.len());
        }
        out.extend_from_slice(&data);
        if in_chunks {
            end_chunk(out, data.len());
            if self.is_done() {
                end_chunks(out, how, || self.trailers());
            }
        }
        Ok(data.len())
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
            AnswerBody::UntilEnd(_) => Ok(buffer.split().freeze()),
        }
    }

    /// Takes note that its backend has ended it, with these trailers; whether that is its end.
    pub(in crate::proxy) fn end(&mut self, trailers: Trailers) -> bool {
        let AnswerBody::UntilEnd(end) = self else { return false };
        (end.is_over, end.trailers) = (true, trailers);
        true
    }

    /// The trailers behind it, once it is complete.
    pub(in crate::proxy) fn trailers(&self) -> Trailers {
        match self {
            AnswerBody::Length(_) => Trailers::default(),
            AnswerBody::Chunked(chunked) => Trailers::of_lines(chunked.trailers()),
            AnswerBody::UntilEnd(end) => end.trailers.clone(),
        }
    }
}

/// Ends chunks, with the `trailers` behind them where those are wanted.
fn end_chunks(out: &mut Vec<u8>, how: Unmeasured, trailers: impl FnOnce() -> Trailers) {
    let trailers = if how == Unmeasured::WithTrailers { trailers() } else { Trailers::default() };
    out.extend_from_slice(b"0\r\n");
    out.extend_from_slice(trailers.as_bytes());
    out.extend_from_slice(b"\r\n");
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
                body.take(&mut buffer, &mut out, Unmeasured::WithTrailers)?;
            }
        }
        if !body.is_done() {
            assert!(body.end(Trailers::default()), "it is complete");
            body.take(&mut buffer, &mut out, Unmeasured::WithTrailers)?;
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
        assert_eq!(
            pass(AnswerBody::until_end(false, false), &[b"he", b"", b"llo"]).0,
            "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
        );
        let chunks: &[&[u8]] = &[b"2;x=y\r\nhe\r\n00", b"3\r", b"\nllo\r\n0\r\nTrailer: x\r\nX-Sum:1\r\n", b"\r\nX"];
        let expected = "2\r\nhe\r\n3\r\nllo\r\n0\r\nX-Sum: 1\r\n\r\n";
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
            (AnswerBody::until_end(false, false), "", true),
            (AnswerBody::until_end(false, false), "h", false),
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
