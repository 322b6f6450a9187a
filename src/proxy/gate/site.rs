//! Answers of our own in the words of a site.
//!
//! The problem: a client's library knows the errors of the site it was made for, and takes JSON of another shape for
//! something else; stripe's for Node takes a 429 without a key `error` for a customer. People want a page, and pages of
//! another origin read nothing without `Access-Control-Allow-Origin`.
//!
//! The rule: for each status of ours a site may say the body, its type, and more lines of the header. What is wrong
//! with them is found at the start, so that no answer can be malformed. Nothing of the request gets into one but its
//! id, escaped as the type of the body asks: whatever else a stranger sent would be read by whoever was made to send
//! it. Refused: a template language, files, and bodies by `Accept`; a backend can do that.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::{
    CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, DATE, LOCATION, RETRY_AFTER, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderName, HeaderValue, StatusCode};
use thiserror::Error;

use crate::proxy::gate::rate_headers;

/// The longest body, in bytes.
const LONGEST: usize = 64 << 10;

/// The statuses of our own answers that have a body to replace.
pub const STATUSES: [u16; 13] = [400, 401, 403, 404, 405, 408, 413, 429, 431, 500, 502, 503, 504];

/// What a site says in our place, by status.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SiteAnswers(BTreeMap<u16, Arc<SiteAnswer>>);

impl SiteAnswers {
    /// These, one for a status at most; none when there are none.
    pub fn new(answers: impl IntoIterator<Item = (u16, SiteAnswer)>) -> Option<Self> {
        let answers: BTreeMap<_, _> = answers.into_iter().map(|(status, answer)| (status, Arc::new(answer))).collect();
        (!answers.is_empty()).then_some(SiteAnswers(answers))
    }

    /// What is said for this status.
    pub fn of(&self, status: StatusCode) -> Option<&Arc<SiteAnswer>> {
        self.0.get(&status.as_u16())
    }
}

/// What a site says in place of one of our answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SiteAnswer {
    /// The body and its type; none is the one of ours.
    body: Option<(HeaderValue, Template)>,
    /// Further lines.
    headers: Vec<(HeaderName, String, HeaderValue)>,
}

/// Why an answer cannot be as it is wanted.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SiteAnswerError {
    /// It names something that is not known.
    #[error(
        "has the placeholder {{{0}}}, which means nothing (allowed: {{code}}, {{message}}, {{retry_after}}, \
         {{request_id}}; braces with a blank in them are none)"
    )]
    Placeholder(String),
    /// It says that it is JSON.
    #[error("must be JSON once its placeholders are filled in, as content_type says, but: {0}")]
    NotJson(String),
    /// It is too long.
    #[error("must have 65536 bytes at most, not {0}")]
    TooLong(usize),
    /// Its type is none.
    #[error("must be the type of a body, such as application/json or text/html; charset=utf-8")]
    Type,
    /// A line frames the message or belongs to the connection.
    #[error("frames messages or belongs to one connection; tollgate writes it itself")]
    Framing,
    /// A line has a place of its own, or is tollgate's to say.
    #[error("is said by tollgate itself{0}")]
    Ours(&'static str),
    /// A line is no line.
    #[error("must be the name of a header, such as X-Env, and text without control characters")]
    Line,
}

impl SiteAnswerError {
    /// Whether the type of the body is what is wrong.
    pub fn is_of_type(&self) -> bool {
        *self == SiteAnswerError::Type
    }
}

impl SiteAnswer {
    /// The same with this body of such a type.
    ///
    /// # Errors
    /// Why it cannot have it.
    pub fn with_body(mut self, content_type: &str, body: &str) -> Result<Self, SiteAnswerError> {
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        let is_type = kind.split_once('/').is_some_and(|(kind, sort)| {
            let token = |text: &str| !text.is_empty() && text.parse::<HeaderName>().is_ok();
            token(kind) && token(sort)
        });
        let value = HeaderValue::from_str(content_type).ok().filter(|_| is_type).ok_or(SiteAnswerError::Type)?;
        if body.len() > LONGEST {
            return Err(SiteAnswerError::TooLong(body.len()));
        }
        let template = Template { pieces: pieces(body)?, escaping: BodyEscaping::of(kind) };
        if template.escaping == BodyEscaping::Json {
            for retry_after in [None, Some(7)] {
                let filled = template.fill(429, "message", retry_after, "id");
                let read: Result<serde::de::IgnoredAny, _> = serde_json::from_str(&filled);
                read.map_err(|error| SiteAnswerError::NotJson(error.to_string()))?;
            }
        }
        self.body = Some((value, template));
        Ok(self)
    }

    /// The same with one more line, whose name is spelt so.
    ///
    /// # Errors
    /// Why it cannot have it.
    pub fn with_header(mut self, spelt: &str, value: &str) -> Result<Self, SiteAnswerError> {
        let name: HeaderName = spelt.parse().map_err(|_| SiteAnswerError::Line)?;
        const FRAMING: [HeaderName; 6] = [CONNECTION, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
        if FRAMING.contains(&name) || ["keep-alive", "proxy-connection"].contains(&name.as_str()) {
            return Err(SiteAnswerError::Framing);
        }
        if name == CONTENT_TYPE {
            return Err(SiteAnswerError::Ours(", as content_type"));
        }
        let ours = [CONTENT_ENCODING, DATE, LOCATION, RETRY_AFTER].contains(&name) || name == "x-request-id";
        if ours || rate_headers::NAMES.iter().any(|own| name.as_str().eq_ignore_ascii_case(own)) {
            return Err(SiteAnswerError::Ours(""));
        }
        let value = HeaderValue::from_str(value).map_err(|_| SiteAnswerError::Line)?;
        self.headers.push((name, spelt.to_owned(), value));
        Ok(self)
    }

    /// The type of its body, if it has one; whoever takes only another is not served by it.
    pub(in crate::proxy) fn content_type(&self) -> Option<&HeaderValue> {
        self.body.as_ref().map(|(kind, _)| kind)
    }

    /// Its further lines: as they are spelt, and what they say.
    pub(in crate::proxy) fn headers(&self) -> impl Iterator<Item = (&str, &HeaderValue)> {
        self.headers.iter().map(|(_, spelt, value)| (spelt.as_str(), value))
    }

    /// Whether it says this itself.
    pub(in crate::proxy) fn says(&self, name: &HeaderName) -> bool {
        self.headers.iter().any(|(own, ..)| own == name)
    }

    /// Its body for a request of this id.
    pub(in crate::proxy) fn body(
        &self,
        code: u16,
        message: &str,
        retry_after: Option<u64>,
        request_id: &str,
    ) -> Option<String> {
        self.body.as_ref().map(|(_, template)| template.fill(code, message, retry_after, request_id))
    }
}

/// A body with holes.
#[derive(Clone, Debug, PartialEq)]
struct Template {
    pieces: Vec<BodyPiece>,
    escaping: BodyEscaping,
}

#[derive(Clone, Debug, PartialEq)]
enum BodyPiece {
    Text(String),
    Code,
    Message,
    RetryAfter,
    RequestId,
}

/// What the characters that mean something in a body become in a text that is filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyEscaping {
    Json,
    Markup,
    None,
}

impl BodyEscaping {
    /// Of a body of this type, without parameters.
    fn of(kind: &str) -> Self {
        let kind = kind.to_ascii_lowercase();
        match kind.rsplit_once(['/', '+']) {
            Some((_, "json")) => BodyEscaping::Json,
            Some((_, "html" | "xml")) => BodyEscaping::Markup,
            _ => BodyEscaping::None,
        }
    }

    fn escape(self, text: &str) -> Cow<'_, str> {
        let meant: &[char] = match self {
            BodyEscaping::Json => &['"', '\\'],
            BodyEscaping::Markup => &['&', '<', '>', '"', '\''],
            BodyEscaping::None => &[],
        };
        if !text.contains(meant) {
            return text.into();
        }
        let mut escaped = String::with_capacity(text.len() + 16);
        for character in text.chars() {
            match self {
                _ if !meant.contains(&character) => escaped.push(character),
                BodyEscaping::Json => escaped.extend(['\\', character]),
                _ => escaped.push_str(&format!("&#{};", u32::from(character))),
            }
        }
        escaped.into()
    }
}

impl Template {
    fn fill(&self, code: u16, message: &str, retry_after: Option<u64>, request_id: &str) -> String {
        let mut filled = String::new();
        for piece in &self.pieces {
            match piece {
                BodyPiece::Text(text) => filled.push_str(text),
                BodyPiece::Code => filled.push_str(&code.to_string()),
                BodyPiece::Message => filled.push_str(&self.escaping.escape(message)),
                BodyPiece::RequestId => filled.push_str(&self.escaping.escape(request_id)),
                BodyPiece::RetryAfter => match (retry_after, self.escaping) {
                    (Some(seconds), _) => filled.push_str(&seconds.to_string()),
                    (None, BodyEscaping::Json) => filled.push_str("null"),
                    (None, _) => {}
                },
            }
        }
        filled
    }
}

/// The pieces of a body: a word in braces is a placeholder, all else stands for itself.
fn pieces(body: &str) -> Result<Vec<BodyPiece>, SiteAnswerError> {
    let (mut pieces, mut text, mut rest) = (Vec::new(), String::new(), body);
    while let Some((before, behind)) = rest.split_once('{') {
        text.push_str(before);
        let word = behind.split_once('}').map(|(word, _)| word);
        let is_word =
            |word: &&str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let Some(word) = word.filter(is_word) else {
            text.push('{');
            rest = behind;
            continue;
        };
        pieces.push(BodyPiece::Text(std::mem::take(&mut text)));
        pieces.push(match word {
            "code" => BodyPiece::Code,
            "message" => BodyPiece::Message,
            "retry_after" => BodyPiece::RetryAfter,
            "request_id" => BodyPiece::RequestId,
            other => return Err(SiteAnswerError::Placeholder(other.to_owned())),
        });
        rest = &behind[word.len() + 1..];
    }
    text.push_str(rest);
    pieces.push(BodyPiece::Text(text));
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filled(kind: &str, body: &str, retry_after: Option<u64>, id: &str) -> String {
        let answer = SiteAnswer::default().with_body(kind, body).unwrap();
        answer.body(429, "Rate limit exceeded", retry_after, id).unwrap()
    }

    #[test]
    fn placeholders_are_filled_in_and_escaped_as_the_type_asks() {
        const STRIPE: &str =
            r#"{"error":{"code":{code},"message":"{message}","after":{retry_after},"id":"{request_id}"}}"#;
        let expected = r#"{"error":{"code":429,"message":"Rate limit exceeded","after":7,"id":"a\"\\<b"}}"#;
        assert_eq!(filled("application/json", STRIPE, Some(7), r#"a"\<b"#), expected);
        assert_eq!(filled("application/vnd.api+json; v=1", "{retry_after}", None, "a"), "null");
        let page = "<style>a { b: c }</style><p>{request_id}{retry_after}</p>";
        let expected = "<style>a { b: c }</style><p>&#34;&#39;&#60;&#38;&#62;</p>";
        assert_eq!(filled("text/html; charset=utf-8", page, None, "\"'<&>"), expected);
        assert_eq!(filled("text/plain", "{code}{{code}} {} {", Some(7), "\"<"), "429{429} {} {");
    }

    #[test]
    fn what_is_wrong_with_a_body_is_found_at_once() {
        let error = |kind: &str, body: &str| SiteAnswer::default().with_body(kind, body).unwrap_err();
        assert_eq!(error("text/plain", "{who}"), SiteAnswerError::Placeholder("who".to_owned()));
        for broken in ["{", r#"{"a":{message}}"#, "", r#"{"a":1}}"#] {
            assert!(matches!(error("application/json", broken), SiteAnswerError::NotJson(_)), "{broken}");
        }
        for kind in ["json", "", "/", "a/", "text/html\r\nX: y", "a b/c"] {
            assert_eq!(error(kind, ""), SiteAnswerError::Type, "{kind}");
        }
        assert_eq!(error("text/plain", &"x".repeat(LONGEST + 1)), SiteAnswerError::TooLong(LONGEST + 1));
    }

    #[test]
    fn lines_that_are_tollgates_are_refused() {
        let error = |name: &str| SiteAnswer::default().with_header(name, "x").err();
        for framing in ["Connection", "content-length", "Keep-Alive", "TE", "Trailer", "Transfer-Encoding", "Upgrade"] {
            assert_eq!(error(framing), Some(SiteAnswerError::Framing), "{framing}");
        }
        for ours in
            ["Date", "Retry-After", "X-Request-Id", "ratelimit", "X-RateLimit-Reset", "Location", "Content-Type"]
        {
            assert!(matches!(error(ours), Some(SiteAnswerError::Ours(_))), "{ours}");
        }
        assert_eq!(error("a b"), Some(SiteAnswerError::Line));
        assert_eq!(SiteAnswer::default().with_header("a", "x\r\ny").err(), Some(SiteAnswerError::Line));
        for free in ["Access-Control-Allow-Origin", "Cache-Control", "WWW-Authenticate", "Server"] {
            assert_eq!(error(free), None, "{free}");
        }
    }

    proptest! {
        /// Whatever the id, JSON stays JSON that says it, and markup has no more tags.
        #[test]
        fn an_id_cannot_break_out(id in "[!-~]{1,128}") {
            let json = filled("application/json", r#"{"id":"{request_id}"}"#, None, &id);
            let value: serde_json::Value = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(value["id"].as_str(), Some(id.as_str()));
            let page = filled("text/html", "<a title='{request_id}'>", None, &id);
            prop_assert_eq!(page.matches(['<', '>', '\'', '"']).count(), 4);
        }

        /// Any text is taken or refused, and none of it gets lost.
        #[test]
        fn any_body_gets_an_answer(body in r"[{}a-z_ ]{0,60}") {
            if let Ok(answer) = SiteAnswer::default().with_body("text/plain", &body) {
                let filled = answer.body(429, "{message}", None, "{request_id}").unwrap();
                let expected = body.replace("{code}", "429").replace("{retry_after}", "");
                prop_assert_eq!(filled, expected);
            }
        }
    }
}
