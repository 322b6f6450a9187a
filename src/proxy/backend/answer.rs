//! A backend's answer: what its header says of it, and the header that the client gets.
//!
//! An answer whose end is in doubt is no answer. What RFC 9112 section 6.3 lets a proxy repair is repaired: a length
//! beside `Transfer-Encoding: chunked` does not count, and a length that is repeated is one. Everything else that two
//! readers could understand differently is refused: lengths that differ, another transfer coding, a line that goes on
//! in the next one. Both ways read answers by these rules.

use std::mem::MaybeUninit;
use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode};
use httparse::{ParserConfig, Response, Status};

use crate::decimal::put_number;
use crate::proxy::backend::body::AnswerBody;
use crate::proxy::gate::changes::Rewriting;
use crate::proxy::gate::rate_headers;
use crate::proxy::gate::rate_headers::Standings;
use crate::proxy::wire::chunked::Chunked;
use crate::proxy::wire::keep_alive;
use crate::proxy::wire::lines::{ByteSpan, Lines, LinesOf, MAX_HEADERS, is, length_of, line};
use crate::upstream::spoken;

/// The longest header section of an answer, in bytes, by whichever way it goes; what a request may have, too.
pub(in crate::proxy) const MAX_ANSWER_HEAD: usize = 64 << 10;

/// What the header of an answer says.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct Answer {
    /// Where it ends.
    pub(in crate::proxy) end: usize,
    /// The status.
    pub(in crate::proxy) status: u16,
    reason: ByteSpan,
    /// The body that follows.
    pub(in crate::proxy) body: AnswerBody,
    /// What it says of its length, which for an answer without a body is what it would be.
    length: Option<u64>,
    /// Whether its connection may have another request after it.
    pub(in crate::proxy) keeps: bool,
    /// How long the backend says that it keeps the connection while it is idle.
    pub(in crate::proxy) keep_alive: Option<Duration>,
}

/// Reads the header section at the start of `bytes`, and notes where its lines are in `lines`. `None` when it is not
/// complete. `to_head` says that it answers a HEAD request.
///
/// # Errors
/// When it is no answer; says why not.
pub(in crate::proxy) fn parse(bytes: &[u8], lines: &mut Lines, to_head: bool) -> Result<Option<Answer>, &'static str> {
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut response = Response::new(&mut []);
    let mut parser = ParserConfig::default();
    // RFC 9112 section 5.1: a proxy takes such spaces away.
    parser.allow_spaces_after_header_name_in_responses(true);
    let end = match parser.parse_response_with_uninit_headers(&mut response, bytes, &mut headers) {
        Ok(Status::Complete(end)) => end,
        Ok(Status::Partial) if bytes.len() > MAX_ANSWER_HEAD => return Err("its header is too large"),
        Ok(Status::Partial) => return Ok(None),
        Err(_) => return Err(spoken(bytes)),
    };
    if end > MAX_ANSWER_HEAD {
        return Err("its header is too large");
    }
    lines.fill(bytes, response.headers);
    let status = response.code.filter(|code| (100..1000).contains(code)).ok_or("its status is none")?;
    let reason = ByteSpan::of(bytes, response.reason.unwrap_or_default().as_bytes());
    let said = Said::by(lines.of(bytes).iter())?;
    if status == 101 && response.version != Some(1) {
        return Err("a 101 in HTTP/1.0");
    }
    let bodiless = to_head || matches!(status, 100..200 | 204 | 304);
    let body = match (bodiless, said.chunked, said.length) {
        (true, ..) => AnswerBody::Length(0),
        (_, true, _) => AnswerBody::Chunked(Chunked::of_answer()),
        (_, _, Some(length)) => AnswerBody::Length(length),
        (_, _, None) => AnswerBody::until_end(false, false),
    };
    let persistent = !said.close && (response.version == Some(1) || (said.keep_alive && !said.chunked));
    let keeps = persistent && !matches!(body, AnswerBody::UntilEnd(_)) && !(said.chunked && said.length.is_some());
    Ok(Some(Answer { end, status, reason, body, length: said.length, keeps, keep_alive: said.timeout }))
}

/// The same for a header section that has come in `fields`; frames say where the body ends, which that may have done
/// already if it `is_over`.
///
/// # Errors
/// When it is no answer; says why not.
pub(in crate::proxy) fn of_fields(
    status: StatusCode,
    fields: &HeaderMap,
    (to_head, is_over): (bool, bool),
) -> Result<Answer, &'static str> {
    if fields.len() > MAX_HEADERS {
        return Err("its header is too large");
    }
    let said = Said::by(fields.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())))?;
    let status = status.as_u16();
    let body = match (to_head, status, said.length) {
        (true, ..) | (_, 100..200 | 204 | 304, _) | (.., Some(0)) => AnswerBody::Length(0),
        (.., length) => AnswerBody::until_end(length.is_some(), is_over),
    };
    let reason = ByteSpan::default();
    Ok(Answer { end: 0, status, reason, body, length: said.length, keeps: false, keep_alive: None })
}

/// What the lines say of the body and of the connection.
#[derive(Default)]
struct Said {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    timeout: Option<Duration>,
}

impl Said {
    fn by<'h>(lines: impl Iterator<Item = (&'h [u8], &'h [u8])>) -> Result<Self, &'static str> {
        let mut said = Said::default();
        for (name, value) in lines {
            match name.len() {
                14 if is(name, b"content-length") => {
                    for length in value.split(|byte| *byte == b',') {
                        let length = length_of(length.trim_ascii()).ok_or("its length is none")?;
                        if said.length.replace(length).is_some_and(|other| other != length) {
                            return Err("it has two lengths");
                        }
                    }
                }
                17 if is(name, b"transfer-encoding") => {
                    if said.chunked || !is(value, b"chunked") {
                        return Err("it has a transfer coding that is not chunked");
                    }
                    said.chunked = true;
                }
                10 if is(name, b"connection") => {
                    for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                        said.close |= is(option, b"close");
                        said.keep_alive |= is(option, b"keep-alive");
                    }
                }
                10 if is(name, b"keep-alive") => said.timeout = keep_alive::timeout(value).or(said.timeout),
                _ => {}
            }
        }
        Ok(said)
    }
}

/// An answer with the lines that rules have made of its own.
pub(in crate::proxy) struct ChangedAnswer {
    /// The answer, of `bytes`.
    pub(in crate::proxy) answer: Answer,
    /// What it says.
    pub(in crate::proxy) bytes: Vec<u8>,
    lines: Lines,
}

impl ChangedAnswer {
    /// Its lines.
    pub(in crate::proxy) fn lines(&self) -> LinesOf<'_> {
        self.lines.of(&self.bytes)
    }
}

/// What the client is told beside what the backend says.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Added<'a> {
    /// How its bucket stands.
    pub(in crate::proxy) standing: Option<Standings<'a>>,
    /// The value of `Date`.
    pub(in crate::proxy) date: &'a [u8],
    /// Whether its connection stays.
    pub(in crate::proxy) keeps: bool,
    /// Whether it speaks HTTP/1.0, which knows no chunks.
    pub(in crate::proxy) bare: bool,
}

impl Answer {
    /// Whether a final answer follows this one.
    pub(in crate::proxy) fn is_interim(&self) -> bool {
        self.status < 200 && !self.switches()
    }

    /// Takes note that frames say where its body ends, which that may have done already.
    pub(in crate::proxy) fn comes_in_frames(&mut self, is_over: bool) {
        self.keeps = false;
        // One to a HEAD, or of a status that has none, has no body in any protocol.
        if !matches!(self.body, AnswerBody::Length(0)) {
            self.body = AnswerBody::until_end(self.length.is_some(), is_over);
        }
    }

    /// Whether what follows is no HTTP any more.
    pub(in crate::proxy) fn switches(&self) -> bool {
        self.status == 101
    }

    /// The lines that are passed on to a client, who is told how its bucket stands when it is `limited`.
    pub(in crate::proxy) fn lines<'h>(
        &self,
        lines: LinesOf<'h>,
        limited: bool,
    ) -> impl Iterator<Item = (&'h [u8], &'h [u8])> {
        // Asked once: nearly no answer names any.
        let names = lines.iter().any(|(name, value)| names_others(name, value));
        lines.iter().filter(move |(name, _)| !(is_own(name, limited) || names && is_named(name, lines)))
    }

    /// Takes those that are not from `fields`; but for those that are written anew behind a final answer.
    pub(in crate::proxy) fn pass_fields(&self, fields: &mut HeaderMap, limited: bool) {
        let anew = |name: &[u8]| !self.is_interim() && (is(name, b"date") || limited && is_of_rates(name));
        let told = |name: &[u8]| !self.is_interim() && is(name, b"content-length") && self.told_length().is_some();
        let ends_here = |name: &&HeaderName| {
            let name = name.as_str().as_bytes();
            is_own(name, limited) && !anew(name) && !told(name)
        };
        // Nearly always none, which takes no memory.
        let own: Vec<_> = fields.keys().filter(ends_here).cloned().collect();
        for name in own {
            fields.remove(name);
        }
    }

    /// The same with what `rewriting` makes of its `lines`; none where nothing is changed, as in interim answers and in
    /// a 101. What frames it is known by now, and is no line any more.
    pub(in crate::proxy) fn changed(
        &self,
        lines: LinesOf<'_>,
        bytes: &[u8],
        rewriting: Option<&Rewriting>,
    ) -> Option<ChangedAnswer> {
        let rewriting = rewriting.filter(|rewriting| rewriting.changes_answers() && self.status >= 200)?;
        let (mut out, mut all) = (self.reason.of_bytes(bytes).to_vec(), Lines::default());
        let reason = ByteSpan::of(&out, &out);
        rewriting.answer(self.lines(lines, false), |name, value| all.append(&mut out, name, value));
        Some(ChangedAnswer { answer: Answer { reason, ..self.clone() }, bytes: out, lines: all })
    }

    /// The length that the client is told, where it is told one. Where no body follows it is what the body's would be,
    /// and that is kept even beside a transfer coding, which is taken away.
    pub(in crate::proxy) fn told_length(&self) -> Option<u64> {
        self.length.filter(|_| !(self.body.is_unmeasured() || self.status == 204))
    }

    /// Appends the start of the header section that the client gets to `out`: the status, the lines that are passed on
    /// to one who is `limited`, and what frames the body, unless that goes to a client as `bare` bytes.
    pub(in crate::proxy) fn begin(
        &self,
        out: &mut Vec<u8>,
        bytes: &[u8],
        lines: LinesOf<'_>,
        (limited, bare): (bool, bool),
    ) {
        out.extend_from_slice(b"HTTP/1.1 ");
        put_number(self.status.into(), out);
        out.push(b' ');
        out.extend_from_slice(self.reason.of_bytes(bytes));
        out.extend_from_slice(b"\r\n");
        for (name, value) in self.lines(lines, limited) {
            line(out, name, value);
        }
        if self.is_interim() {
            return;
        }
        if self.switches() {
            // To what, is the backend's to say.
            for (name, value) in lines.iter().filter(|(name, _)| is(name, b"upgrade")) {
                line(out, name, value);
            }
        } else if let Some(length) = self.told_length() {
            out.extend_from_slice(b"Content-Length: ");
            put_number(length, out);
            out.extend_from_slice(b"\r\n");
        } else if self.body.is_unmeasured() && !bare {
            line(out, b"Transfer-Encoding", b"chunked");
        }
    }

    /// Appends the header section that the client gets to `out`. An interim answer is told nothing more.
    pub(in crate::proxy) fn write(&self, out: &mut Vec<u8>, bytes: &[u8], lines: LinesOf<'_>, added: Added<'_>) {
        self.begin(out, bytes, lines, (added.standing.is_some(), added.bare));
        if self.is_interim() {
            return out.extend_from_slice(b"\r\n");
        }
        if let Some(standing) = added.standing {
            rate_headers::write(out, standing);
        }
        line(out, b"Date", added.date);
        let connection: &[u8] = match (self.switches(), added.keeps) {
            (true, _) => b"Upgrade",
            (_, true) => b"keep-alive",
            (_, false) => b"close",
        };
        line(out, b"Connection", connection);
        out.extend_from_slice(b"\r\n");
    }
}

/// Whether a line counts for the backend's connection only, or is one that tollgate writes itself.
fn is_own(name: &[u8], limited: bool) -> bool {
    let own: &[&[u8]] = match name.len() {
        2 => &[b"te"],
        4 => &[b"date"],
        7 => &[b"upgrade"],
        10 => &[b"connection", b"keep-alive"],
        14 => &[b"content-length"],
        16 => &[b"proxy-connection"],
        17 => &[b"transfer-encoding"],
        18 => &[b"proxy-authenticate"],
        _ => &[],
    };
    own.iter().any(|own| is(name, own)) || (limited && is_of_rates(name))
}

/// Whether a line is one of those that tell how a bucket stands.
fn is_of_rates(name: &[u8]) -> bool {
    // So begin few others.
    matches!(name.first(), Some(b'R' | b'r' | b'X' | b'x')) && rate_headers::NAMES.iter().any(|own| is_like(name, own))
}

fn is_like(name: &[u8], other: &str) -> bool {
    name.eq_ignore_ascii_case(other.as_bytes())
}

/// Whether a line is a `Connection` that may name other lines. What nearly all of them say names none.
fn names_others(name: &[u8], value: &[u8]) -> bool {
    is(name, b"connection") && !is(value, b"keep-alive") && !is(value, b"close")
}

/// Whether `Connection` names the line, which it may not do with those that say what the message is.
fn is_named(name: &[u8], lines: LinesOf<'_>) -> bool {
    const END_TO_END: [&[u8]; 4] = [b"cache-control", b"content-encoding", b"content-type", b"set-cookie"];
    lines.iter().filter(|(other, value)| names_others(other, value)).any(|(_, value)| {
        value.split(|byte| *byte == b',').any(|option| option.trim_ascii().eq_ignore_ascii_case(name))
            && !END_TO_END.iter().any(|known| is(name, known))
    })
}

#[cfg(test)]
mod tests;
