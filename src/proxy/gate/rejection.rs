//! Every answer of our own leaves by this door.
//!
//! One form: `application/json`, `{"code":N,"message":"…"}`, `X-Request-Id`. What answers HEAD has no body, and the length that
//! the answer to a GET would have, also where the request is refused before all of its header is there. The connection stays usable where the client's
//! body lets it: a small body that is announced is read to its end and thrown away. A large or endless one makes the
//! answer the last on its connection, and what still comes is read for a while before the connection is closed, because
//! closing with unread data makes the kernel send a reset that can overtake the answer (RFC 9112 section 9.6). Over HTTP/2
//! only the stream is at stake, and its session knows how much of the rest is worth reading.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, DATE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use pingora_core::protocols::http::date::get_cached_date;

use crate::decimal::put_number;
use crate::limit::Standing;
use crate::proxy::gate::headers::X_REQUEST_ID;
use crate::proxy::gate::rate_headers;
use crate::proxy::gate::request_id::RequestId;

/// The longest that bytes of no use are read for the sake of an answer.
pub(in crate::proxy) const LINGER: Duration = Duration::from_secs(5);

/// What a 405 names (RFC 9110 section 15.5.6), since it answers nothing but CONNECT: a backend may be asked by any other
/// method, and these are the ones that some backend takes.
const ALLOWED: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Why a request gets an answer of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The request is malformed, or asks for two things at once; this says how, for the log.
    BadRequest(&'static str),
    /// No client has the API key.
    UnknownApiKey,
    /// The client is blocked.
    Blocked,
    /// No route matches.
    NoRoute,
    /// CONNECT, which a gateway does not serve.
    MethodNotAllowed,
    /// The client was too slow.
    RequestTimeout,
    /// The body is larger than so many bytes, which is what counts for its route.
    BodyTooLarge(u64),
    /// The header section is larger than 64 KiB or 256 lines.
    HeaderTooLarge,
    /// The caller's bucket is empty; the next token is there after these seconds.
    RateLimited(u64),
    /// Something in tollgate itself went wrong.
    Internal,
    /// The backend broke the exchange.
    BadGateway,
    /// Every backend is down or already tried; worth another try after these seconds.
    NoHealthyBackend(u64),
    /// The backend was too slow.
    GatewayTimeout,
}

impl Rejection {
    /// The status of the answer.
    pub fn status(self) -> StatusCode {
        match self {
            Rejection::BadRequest(_) => StatusCode::BAD_REQUEST,
            Rejection::UnknownApiKey => StatusCode::UNAUTHORIZED,
            Rejection::Blocked => StatusCode::FORBIDDEN,
            Rejection::NoRoute => StatusCode::NOT_FOUND,
            Rejection::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Rejection::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Rejection::BodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Rejection::HeaderTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Rejection::RateLimited(_) => StatusCode::TOO_MANY_REQUESTS,
            Rejection::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Rejection::BadGateway => StatusCode::BAD_GATEWAY,
            Rejection::NoHealthyBackend(_) => StatusCode::SERVICE_UNAVAILABLE,
            Rejection::GatewayTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// What it says.
    pub fn message(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Rejection::BodyTooLarge(limit) => return format!("Request body too large: at most {limit} bytes").into(),
            Rejection::BadRequest(_) => "Bad request",
            Rejection::UnknownApiKey => "Unknown API key",
            Rejection::Blocked => "Client is blocked",
            Rejection::NoRoute => "No route matches",
            Rejection::MethodNotAllowed => "Method not allowed",
            Rejection::RequestTimeout => "Request timeout",
            Rejection::HeaderTooLarge => "Request header fields too large",
            Rejection::RateLimited(_) => "Rate limit exceeded",
            Rejection::Internal => "Internal server error",
            Rejection::BadGateway => "Bad gateway",
            Rejection::NoHealthyBackend(_) => "No healthy backend",
            Rejection::GatewayTimeout => "Gateway timeout",
        })
    }

    /// What the log says. More than the client is told, who knows what it sent.
    pub fn reason(self) -> Cow<'static, str> {
        match self {
            Rejection::BadRequest(how) => how.into(),
            other => other.message(),
        }
    }

    /// The whole seconds after which another try is worth it.
    pub(in crate::proxy) fn retry_after(self) -> Option<u64> {
        match self {
            Rejection::RateLimited(seconds) | Rejection::NoHealthyBackend(seconds) => Some(seconds),
            _ => None,
        }
    }

    /// What it tells the client to do otherwise: a line of the header, its name as it is written and in lower case.
    pub(in crate::proxy) fn challenge(self) -> Option<(&'static str, HeaderName, &'static str)> {
        match self {
            Rejection::UnknownApiKey => Some(("WWW-Authenticate", WWW_AUTHENTICATE, "Bearer")),
            Rejection::MethodNotAllowed => Some(("Allow", ALLOW, ALLOWED)),
            _ => None,
        }
    }

    /// The body of the answer. Written out, because a flood of refusals should cost nothing that can be known before.
    pub(in crate::proxy) fn body(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Rejection::BodyTooLarge(_) => return format!(r#"{{"code":413,"message":"{}"}}"#, self.message()).into(),
            Rejection::BadRequest(_) => r#"{"code":400,"message":"Bad request"}"#,
            Rejection::UnknownApiKey => r#"{"code":401,"message":"Unknown API key"}"#,
            Rejection::Blocked => r#"{"code":403,"message":"Client is blocked"}"#,
            Rejection::NoRoute => r#"{"code":404,"message":"No route matches"}"#,
            Rejection::MethodNotAllowed => r#"{"code":405,"message":"Method not allowed"}"#,
            Rejection::RequestTimeout => r#"{"code":408,"message":"Request timeout"}"#,
            Rejection::RateLimited(_) => r#"{"code":429,"message":"Rate limit exceeded"}"#,
            Rejection::HeaderTooLarge => r#"{"code":431,"message":"Request header fields too large"}"#,
            Rejection::Internal => r#"{"code":500,"message":"Internal server error"}"#,
            Rejection::BadGateway => r#"{"code":502,"message":"Bad gateway"}"#,
            Rejection::NoHealthyBackend(_) => r#"{"code":503,"message":"No healthy backend"}"#,
            Rejection::GatewayTimeout => r#"{"code":504,"message":"Gateway timeout"}"#,
        })
    }

    /// The header section of the answer over HTTP/2, with how the caller's bucket stands.
    pub(in crate::proxy) fn header(self, request_id: &RequestId, standing: Option<&Standing>) -> Response<()> {
        let mut answer = Response::new(());
        *answer.status_mut() = self.status();
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_LENGTH, self.body().len().into());
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let id = HeaderValue::from_str(request_id.as_str()).expect("its characters are visible");
        headers.insert(X_REQUEST_ID, id);
        if let Some(seconds) = self.retry_after() {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if let Some((_, name, value)) = self.challenge() {
            headers.insert(name, HeaderValue::from_static(value));
        }
        if let Some(standing) = standing {
            rate_headers::insert(headers, standing);
        }
        headers.insert(DATE, get_cached_date());
        answer
    }

    /// Appends the whole answer over HTTP/1.1 to `out`, with how the caller's bucket stands. `keeps` says whether the
    /// connection stays, and `with_body` is false in answer to HEAD. How many bytes of a body there are.
    pub(in crate::proxy) fn append(
        self,
        out: &mut Vec<u8>,
        request_id: &RequestId,
        standing: Option<&Standing>,
        keeps: bool,
        with_body: bool,
    ) -> usize {
        let (status, body) = (self.status(), self.body());
        let reason = status.canonical_reason().unwrap_or_default();
        for part in
            ["HTTP/1.1 ", status.as_str(), " ", reason, "\r\nContent-Type: application/json\r\nContent-Length: "]
        {
            out.extend_from_slice(part.as_bytes());
        }
        put_number(body.len() as u64, out);
        out.extend_from_slice(b"\r\nCache-Control: no-store\r\nX-Request-Id: ");
        out.extend_from_slice(request_id.as_str().as_bytes());
        out.extend_from_slice(b"\r\n");
        if let Some(seconds) = self.retry_after() {
            out.extend_from_slice(b"Retry-After: ");
            put_number(seconds, out);
            out.extend_from_slice(b"\r\n");
        }
        if let Some((title, _, value)) = self.challenge() {
            for part in [title, ": ", value, "\r\n"] {
                out.extend_from_slice(part.as_bytes());
            }
        }
        if let Some(standing) = standing {
            rate_headers::append(out, standing);
        }
        out.extend_from_slice(b"Date: ");
        out.extend_from_slice(get_cached_date().as_bytes());
        out.extend_from_slice(if keeps {
            b"\r\nConnection: keep-alive\r\n\r\n"
        } else {
            b"\r\nConnection: close\r\n\r\n"
        });
        if !with_body {
            return 0;
        }
        out.extend_from_slice(body.as_bytes());
        body.len()
    }
}

/// The body of an answer of our own, as it is sent.
pub(in crate::proxy) fn bytes_of(body: Cow<'static, str>) -> Bytes {
    match body {
        Cow::Borrowed(body) => Bytes::from_static(body.as_bytes()),
        Cow::Owned(body) => Bytes::from(body),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_json_with_their_own_status() {
        let all = [
            Rejection::BadRequest("how"),
            Rejection::UnknownApiKey,
            Rejection::Blocked,
            Rejection::RateLimited(1),
            Rejection::NoRoute,
            Rejection::MethodNotAllowed,
            Rejection::RequestTimeout,
            Rejection::BodyTooLarge(10 << 20),
            Rejection::HeaderTooLarge,
            Rejection::Internal,
            Rejection::BadGateway,
            Rejection::NoHealthyBackend(5),
            Rejection::GatewayTimeout,
        ];
        for rejection in all {
            let body: serde_json::Value = serde_json::from_str(&rejection.body()).unwrap();
            assert_eq!(body["code"], rejection.status().as_u16());
            assert_eq!(body["message"], *rejection.message());
        }
    }

    #[test]
    fn an_answer_on_the_wire_is_whole() {
        let id = RequestId::random();
        let mut answer = Vec::new();
        let length = Rejection::BadRequest("how").append(&mut answer, &id, None, false, true);
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
        assert!(head.contains(&format!("\r\nX-Request-Id: {id}\r\n")), "{head}");
        assert_eq!((body, length), (r#"{"code":400,"message":"Bad request"}"#, body.len()));
        assert!(head.ends_with("\r\nConnection: close"), "{head}");
        let mut bodiless = Vec::new();
        assert_eq!(Rejection::RateLimited(7).append(&mut bodiless, &id, None, true, false), 0);
        let bodiless = String::from_utf8(bodiless).unwrap();
        assert!(bodiless.contains("\r\nRetry-After: 7\r\n"), "{bodiless}");
        assert!(bodiless.ends_with("\r\nConnection: keep-alive\r\n\r\n"), "{bodiless}");
        let mut told = Vec::new();
        Rejection::MethodNotAllowed.append(&mut told, &id, None, false, true);
        assert!(String::from_utf8(told).unwrap().contains("\r\nAllow: GET, HEAD, POST, "));
        assert_eq!(Rejection::MethodNotAllowed.header(&id, None).headers()[ALLOW], ALLOWED);
        assert_eq!(Rejection::UnknownApiKey.header(&id, None).headers()[WWW_AUTHENTICATE], "Bearer");
    }
}
