//! Every answer of our own leaves by this door.
//!
//! One form: `application/json`, `{"code":N,"message":"…"}`, `X-Request-Id`; whoever speaks gRPC is answered in its
//! words ([`grpc`]), whoever asks for [problem details](problem) in those, and everybody else in the words of the
//! [site](crate::proxy::gate::site), where it has some for the status. What answers HEAD has no body, and the length
//! that the answer to a GET would have, also where the request is refused before all of its header is there. The
//! connection stays usable where the client's body lets it: a small body that is announced is read to its end and
//! thrown away. A large or endless one makes the answer the last on its connection, and what still comes is read for a
//! while before the connection is closed, because closing with unread data makes the kernel send a reset that can
//! overtake the answer (RFC 9112 section 9.6). Over HTTP/2 only the stream is at stake, and its session knows how much
//! of the rest is worth reading.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::header::DATE;
use http::{Response, StatusCode, header};
use pingora_core::protocols::http::date::get_cached_date;

use crate::proxy::gate::grpc;
use crate::proxy::gate::grpc::AnswerForm;
use crate::proxy::gate::headers::REQUEST_ID;
use crate::proxy::gate::own_lines::{AnswerLines, OwnLines, OwnName};
use crate::proxy::gate::problem;
use crate::proxy::gate::rate_headers;
use crate::proxy::gate::rate_headers::Standings;
use crate::proxy::gate::request_id::RequestId;
use crate::proxy::gate::site::SiteAnswer;
use crate::proxy::wire::lines::Fields;

/// The type of what we say, if nobody wants it otherwise.
pub(in crate::proxy) const JSON: &[u8] = b"application/json";

static CONTENT_TYPE: OwnName = OwnName::new("Content-Type: ", || header::CONTENT_TYPE);
static CONTENT_LENGTH: OwnName = OwnName::new("Content-Length: ", || header::CONTENT_LENGTH);
static CACHE_CONTROL: OwnName = OwnName::new("Cache-Control: ", || header::CACHE_CONTROL);
static WWW_AUTHENTICATE: OwnName = OwnName::new("WWW-Authenticate: ", || header::WWW_AUTHENTICATE);
static LOCATION: OwnName = OwnName::new("Location: ", || header::LOCATION);
static ALLOW: OwnName = OwnName::new("Allow: ", || header::ALLOW);
/// The whole seconds after which another try is worth it.
pub(in crate::proxy) static RETRY_AFTER: OwnName = OwnName::new("Retry-After: ", || header::RETRY_AFTER);

/// The longest that bytes of no use are read for the sake of an answer.
pub(in crate::proxy) const LINGER: Duration = Duration::from_secs(5);

/// What a 405 names (RFC 9110 section 15.5.6), since it answers nothing but CONNECT: a backend may be asked by any
/// other method, and these are the ones that some backend takes.
const ALLOWED: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// What an answer of our own tells of its request.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::proxy) struct ToldOfRequest<'a> {
    /// How the caller's bucket stands, where headers say so.
    pub(in crate::proxy) standing: Option<Standings<'a>>,
    /// The bucket that has refused it.
    pub(in crate::proxy) refused_by: Option<Standings<'a>>,
    /// Where else to ask; or all that the answer says, when it is no refusal.
    pub(in crate::proxy) said: Option<&'a [u8]>,
    /// What the site says in our place.
    pub(in crate::proxy) site: Option<&'a SiteAnswer>,
}

/// Why a request gets an answer of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// It came to a listener that sends everybody to HTTPS.
    UseHttps,
    /// No refusal: what a certificate authority asked, answered.
    AcmeChallenge,
    /// No refusal: what a caller asked of itself, answered.
    Standing,
    /// A caller asked of itself by another method.
    NotForStanding,
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
    /// As many requests of the caller run as may at once.
    TooManyAtOnce,
    /// What counts over all nodes cannot be asked, and nobody is to be let in meanwhile.
    LimitsUnavailable,
    /// Something in tollgate itself went wrong.
    Internal,
    /// The backend broke the exchange.
    BadGateway,
    /// Every backend is down or already tried; worth another try after these seconds.
    NoHealthyBackend(u64),
    /// Every backend that is left holds as many requests as it may, and none came free in time.
    BackendsBusy,
    /// The backend was too slow.
    GatewayTimeout,
}

impl Rejection {
    /// The status of the answer.
    pub fn status(self) -> StatusCode {
        match self {
            Rejection::UseHttps => StatusCode::PERMANENT_REDIRECT,
            Rejection::AcmeChallenge | Rejection::Standing => StatusCode::OK,
            Rejection::BadRequest(_) => StatusCode::BAD_REQUEST,
            Rejection::UnknownApiKey => StatusCode::UNAUTHORIZED,
            Rejection::Blocked => StatusCode::FORBIDDEN,
            Rejection::NoRoute => StatusCode::NOT_FOUND,
            Rejection::MethodNotAllowed | Rejection::NotForStanding => StatusCode::METHOD_NOT_ALLOWED,
            Rejection::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Rejection::BodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Rejection::HeaderTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Rejection::RateLimited(_) | Rejection::TooManyAtOnce => StatusCode::TOO_MANY_REQUESTS,
            Rejection::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Rejection::BadGateway => StatusCode::BAD_GATEWAY,
            Rejection::NoHealthyBackend(_) | Rejection::BackendsBusy | Rejection::LimitsUnavailable => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Rejection::GatewayTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// Whether it says something of who sent the request.
    pub(in crate::proxy) fn is_of_caller(self) -> bool {
        matches!(self, Rejection::RateLimited(_) | Rejection::Blocked | Rejection::UnknownApiKey)
    }

    /// Whether it is a refusal or a failure.
    pub(in crate::proxy) fn is_error(self) -> bool {
        self.status().is_client_error() || self.status().is_server_error()
    }

    /// The form for whoever sent a request with these lines, to which the site says this.
    pub(in crate::proxy) fn form_for(self, fields: &impl Fields, site: Option<&SiteAnswer>) -> AnswerForm {
        AnswerForm::of(fields, self.content_type(AnswerForm::Json, site))
    }

    /// The status as the answer has it: gRPC has one of its own beside it.
    pub(in crate::proxy) fn told_status(self, form: AnswerForm) -> StatusCode {
        if form == AnswerForm::Grpc { StatusCode::OK } else { self.status() }
    }

    /// What it says.
    pub fn message(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Rejection::BodyTooLarge(limit) => return format!("Request body too large: at most {limit} bytes").into(),
            Rejection::UseHttps => "Use HTTPS",
            Rejection::AcmeChallenge => "an ACME challenge",
            Rejection::Standing => "the caller's standing",
            Rejection::BadRequest(_) => "Bad request",
            Rejection::UnknownApiKey => "Unknown API key",
            Rejection::Blocked => "Client is blocked",
            Rejection::NoRoute => "No route matches",
            Rejection::MethodNotAllowed | Rejection::NotForStanding => "Method not allowed",
            Rejection::RequestTimeout => "Request timeout",
            Rejection::HeaderTooLarge => "Request header fields too large",
            Rejection::RateLimited(_) => "Rate limit exceeded",
            Rejection::TooManyAtOnce => "Too many requests at once",
            Rejection::LimitsUnavailable => "Limits unavailable",
            Rejection::Internal => "Internal server error",
            Rejection::BadGateway => "Bad gateway",
            Rejection::NoHealthyBackend(_) => "No healthy backend",
            Rejection::BackendsBusy => "All backends are busy",
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

    /// The body of the answer. Written out, because a flood of refusals should cost nothing that can be known before.
    fn body(self, form: AnswerForm) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            _ if form == AnswerForm::Grpc => "",
            Rejection::BodyTooLarge(_) => return format!(r#"{{"code":413,"message":"{}"}}"#, self.message()).into(),
            Rejection::AcmeChallenge | Rejection::Standing => "",
            Rejection::UseHttps => r#"{"code":308,"message":"Use HTTPS"}"#,
            Rejection::BadRequest(_) => r#"{"code":400,"message":"Bad request"}"#,
            Rejection::UnknownApiKey => r#"{"code":401,"message":"Unknown API key"}"#,
            Rejection::Blocked => r#"{"code":403,"message":"Client is blocked"}"#,
            Rejection::NoRoute => r#"{"code":404,"message":"No route matches"}"#,
            Rejection::MethodNotAllowed | Rejection::NotForStanding => r#"{"code":405,"message":"Method not allowed"}"#,
            Rejection::RequestTimeout => r#"{"code":408,"message":"Request timeout"}"#,
            Rejection::RateLimited(_) => r#"{"code":429,"message":"Rate limit exceeded"}"#,
            Rejection::TooManyAtOnce => r#"{"code":429,"message":"Too many requests at once"}"#,
            Rejection::HeaderTooLarge => r#"{"code":431,"message":"Request header fields too large"}"#,
            Rejection::Internal => r#"{"code":500,"message":"Internal server error"}"#,
            Rejection::BadGateway => r#"{"code":502,"message":"Bad gateway"}"#,
            Rejection::NoHealthyBackend(_) => r#"{"code":503,"message":"No healthy backend"}"#,
            Rejection::BackendsBusy => r#"{"code":503,"message":"All backends are busy"}"#,
            Rejection::LimitsUnavailable => r#"{"code":503,"message":"Limits unavailable"}"#,
            Rejection::GatewayTimeout => r#"{"code":504,"message":"Gateway timeout"}"#,
        })
    }

    /// The body of the answer to a request of this id, of which this is told.
    pub(in crate::proxy) fn body_of(
        self,
        form: AnswerForm,
        request_id: &RequestId,
        told: ToldOfRequest<'_>,
    ) -> Cow<'static, str> {
        if let (Rejection::AcmeChallenge | Rejection::Standing, Some(answer)) = (self, told.said) {
            return String::from_utf8_lossy(answer).into_owned().into();
        }
        let (status, id) = (self.status(), request_id.as_str());
        match (form, told.site) {
            (AnswerForm::Problem, _) => {
                let violated = told.refused_by.iter().flat_map(Standings::refusing);
                problem::body(status, &self.message(), id, violated).into()
            }
            (AnswerForm::Json, Some(site)) => {
                let body = site.body(status.as_u16(), &self.message(), self.retry_after(), id);
                body.map_or_else(|| self.body(form), Cow::Owned)
            }
            _ => self.body(form),
        }
    }

    /// The seconds after which another try is worth it, where that is known.
    fn retry_after(self) -> Option<u64> {
        match self {
            Rejection::RateLimited(seconds) | Rejection::NoHealthyBackend(seconds) => Some(seconds),
            Rejection::BackendsBusy => Some(1),
            // Nobody knows when one of them ends.
            Rejection::TooManyAtOnce | Rejection::LimitsUnavailable => Some(1),
            _ => None,
        }
    }

    /// The type of the body.
    fn content_type(self, form: AnswerForm, site: Option<&SiteAnswer>) -> &[u8] {
        match (self, form, site.and_then(SiteAnswer::content_type)) {
            (Rejection::AcmeChallenge, ..) => b"application/octet-stream",
            (_, AnswerForm::Problem, _) => problem::TYPE.as_bytes(),
            (_, _, Some(kind)) => kind.as_bytes(),
            _ => JSON,
        }
    }

    /// Says the lines of the answer, but for the date and what becomes of the connection: what its `body` is, and how
    /// the caller's bucket stands. One of gRPC does not say that it has no body, which HTTP/1.1 wants to know.
    #[inline]
    pub(in crate::proxy) fn write(
        self,
        form: AnswerForm,
        lines: &mut impl AnswerLines,
        body: &str,
        request_id: &RequestId,
        ToldOfRequest { standing, said, site, .. }: ToldOfRequest<'_>,
    ) {
        let retry_after = self.retry_after();
        if form == AnswerForm::Grpc {
            grpc::write(lines, self.status().as_u16(), &self.message(), retry_after);
            lines.line(&REQUEST_ID, request_id);
        } else {
            let says = |name| site.is_some_and(|site| site.says(&name));
            lines.line(&CONTENT_TYPE, self.content_type(form, site));
            lines.line(&CONTENT_LENGTH, body.len() as u64);
            if !says(header::CACHE_CONTROL) {
                lines.line(&CACHE_CONTROL, "no-store");
            }
            lines.line(&REQUEST_ID, request_id);
            match self {
                Rejection::UnknownApiKey if says(header::WWW_AUTHENTICATE) => {}
                Rejection::UnknownApiKey => lines.line(&WWW_AUTHENTICATE, "Bearer"),
                Rejection::MethodNotAllowed => lines.line(&ALLOW, ALLOWED),
                Rejection::NotForStanding => lines.line(&ALLOW, "GET, HEAD"),
                _ => retry_after.into_iter().for_each(|seconds| lines.line(&RETRY_AFTER, seconds)),
            }
            for (spelt, value) in site.into_iter().flat_map(SiteAnswer::headers) {
                lines.configured(spelt, value);
            }
        }
        if let Some(location) = said.filter(|_| self == Rejection::UseHttps) {
            lines.line(&LOCATION, location);
        }
        if let Some(standing) = standing {
            rate_headers::write(lines, standing);
        }
    }

    /// The header section of the answer over HTTP/2 whose body is this one.
    pub(in crate::proxy) fn header(
        self,
        form: AnswerForm,
        body: &str,
        request_id: &RequestId,
        told: ToldOfRequest<'_>,
    ) -> Response<()> {
        let mut answer = Response::new(());
        *answer.status_mut() = self.told_status(form);
        self.write(form, answer.headers_mut(), body, request_id, told);
        answer.headers_mut().insert(DATE, get_cached_date());
        answer
    }

    /// Appends the whole answer over HTTP/1.1 to `out`, with what is told of the request. `keeps` says whether the
    /// connection stays, and `with_body` is false in answer to HEAD. How many bytes of a body there are.
    pub(in crate::proxy) fn append(
        self,
        form: AnswerForm,
        out: &mut Vec<u8>,
        request_id: &RequestId,
        told: ToldOfRequest<'_>,
        (keeps, with_body): (bool, bool),
    ) -> usize {
        let (status, body) = (self.told_status(form), self.body_of(form, request_id, told));
        for part in ["HTTP/1.1 ", status.as_str(), " ", status.canonical_reason().unwrap_or_default(), "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
        self.write(form, out, &body, request_id, told);
        if form == AnswerForm::Grpc {
            out.line(&CONTENT_LENGTH, 0);
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
mod tests;
