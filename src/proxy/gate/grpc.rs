//! Answers of our own in the words of gRPC.
//!
//! The problem: a client of gRPC looks for `grpc-status` and takes anything else for a broken server; a 429 in JSON it
//! makes `UNAVAILABLE` of, and tries again at once.
//!
//! The rule: whoever sends `application/grpc` gets 200 with a status of gRPC in a header section that is the whole
//! answer ("Trailers-Only" in its specification of HTTP/2), and with `grpc-retry-pushback-ms` beside
//! `RESOURCE_EXHAUSTED`: when to try again, or -1, not to, where another try would end the same. Logs and metrics keep
//! the status that everybody else gets. What tells of the caller's bucket stays; it is metadata there.
//!
//! So it is over HTTP/1.1, too, as Envoy has it: whoever sends that type there is a bridge or a test, and reads the
//! same words. `application/grpc-web` is another protocol, whose readers understand a status of HTTP; it is no gRPC
//! here, and its bodies are bounded as all are.

use http::header;
use http::header::CONTENT_TYPE;

use crate::proxy::gate::own_lines::{OwnLines, OwnName, OwnValue};
use crate::proxy::gate::problem;
use crate::proxy::wire::lines::Fields;

static TYPE: OwnName = OwnName::new("Content-Type: ", || header::CONTENT_TYPE);
static STATUS: OwnName = OwnName::new("grpc-status: ", || http::HeaderName::from_static("grpc-status"));
static MESSAGE: OwnName = OwnName::new("grpc-message: ", || http::HeaderName::from_static("grpc-message"));
static PUSHBACK: OwnName =
    OwnName::new("grpc-retry-pushback-ms: ", || http::HeaderName::from_static("grpc-retry-pushback-ms"));

/// `RESOURCE_EXHAUSTED`.
const EXHAUSTED: u8 = 8;

/// How an answer of our own is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::proxy) enum AnswerForm {
    /// As JSON, or in the words of the site, with a status of HTTP.
    #[default]
    Json,
    /// As a status of gRPC.
    Grpc,
    /// As problem details.
    Problem,
}

impl AnswerForm {
    /// The form for whoever sent a request with these lines, when the answer is of this type for everybody.
    pub(in crate::proxy) fn of(fields: &impl Fields, kind: &[u8]) -> Self {
        match () {
            () if is_grpc(fields) => AnswerForm::Grpc,
            () if problem::is_wanted(fields, kind) => AnswerForm::Problem,
            () => AnswerForm::Json,
        }
    }
}

/// Whether a request with these lines is one of gRPC, whose body may be a conversation: it is as long and as silent as
/// it likes.
pub(in crate::proxy) fn is_grpc(fields: &impl Fields) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let kind = fields.all_of(&CONTENT_TYPE).next().and_then(|kind| kind.split_at_checked(GRPC.len()));
    kind.is_some_and(|(kind, rest)| {
        kind.eq_ignore_ascii_case(GRPC) && matches!(rest.first(), None | Some(b'+' | b';' | b' ' | b'\t'))
    })
}

/// The status of gRPC for an answer that would have this status of HTTP.
pub(in crate::proxy) fn status_for(status: u16) -> u8 {
    match status {
        401 => 16,
        403 => 7,
        404 | 405 => 12,
        408 | 504 => 4,
        413 | 429 | 431 => EXHAUSTED,
        502 | 503 => 14,
        _ => 13,
    }
}

/// Says into `lines` an answer that would have this status of HTTP and this message; another try is worth it after so
/// many seconds, if it ever is.
pub(in crate::proxy) fn write(lines: &mut impl OwnLines, status: u16, message: &str, retry_after: Option<u64>) {
    let status = status_for(status);
    lines.line(&TYPE, "application/grpc");
    lines.line(&STATUS, u64::from(status));
    lines.line(&MESSAGE, Escaped(message));
    match retry_after {
        Some(seconds) if status == EXHAUSTED => lines.line(&PUSHBACK, seconds.saturating_mul(1000)),
        None if status == EXHAUSTED => lines.line(&PUSHBACK, "-1"),
        _ => {}
    }
}

/// Text in which all that is not printable ASCII is escaped, and the percent sign with it.
struct Escaped<'a>(&'a str);

impl OwnValue for Escaped<'_> {
    fn put(&self, out: &mut Vec<u8>) {
        const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
        for byte in self.0.bytes() {
            match byte {
                b' '..=b'~' if byte != b'%' => out.push(byte),
                _ => out.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    #[test]
    fn grpc_is_known_by_its_type() {
        let is = |kind: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, kind.parse().unwrap());
            AnswerForm::of(&headers, b"application/json") == AnswerForm::Grpc
        };
        for kind in ["application/grpc", "application/grpc+proto", "Application/gRPC; x=y", "application/grpc ;x"] {
            assert!(is(kind), "{kind}");
        }
        for kind in ["application/grpc-web", "application/grpc-web+proto", "application/grpcx", "application/grp", ""] {
            assert!(!is(kind), "{kind}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn a_message_is_escaped_and_a_limit_says_when_to_come_back() {
        let said = |status, message, retry_after| {
            let mut out = Vec::new();
            write(&mut out, status, message, retry_after);
            String::from_utf8(out).unwrap()
        };
        let start = "Content-Type: application/grpc\r\ngrpc-status: ";
        assert_eq!(said(503, "50% ä\n", Some(3)), format!("{start}14\r\ngrpc-message: 50%25 %C3%A4%0A\r\n"));
        assert_eq!(
            said(429, "Slow", Some(3)),
            format!("{start}8\r\ngrpc-message: Slow\r\ngrpc-retry-pushback-ms: 3000\r\n")
        );
        assert_eq!(said(413, "Big", None), format!("{start}8\r\ngrpc-message: Big\r\ngrpc-retry-pushback-ms: -1\r\n"));
    }

    #[test]
    fn every_status_has_one_of_grpc() {
        let statuses = [400, 401, 403, 404, 405, 408, 413, 429, 431, 500, 502, 503, 504];
        assert_eq!(statuses.map(status_for), [13, 16, 7, 12, 12, 4, 8, 8, 8, 13, 14, 14, 4]);
    }
}
