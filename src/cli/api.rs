//! Talking to the admin API: plain HTTP/1.1, one request at a time, on the calling thread.
//!
//! No proxy of the environment and no redirect is followed: the API is where the command line says, and its token goes
//! nowhere else.

use std::fmt::Display;
use std::io;
use std::sync::{Arc, Once};
use std::time::Duration;

use http::{Method, Request, Response};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, TcpConnector};
use ureq::{Agent, AsSendBody, Body, Timeout};

use super::connect::{PathConnector, SecureConnector};
use super::endpoint::{AdminPlace, Endpoint};
use super::failure::Failure;
use super::trust::AdminTrust;
use crate::client::ClientId;

/// The longest answer that is read whole: the difference of a bulk apply of millions of clients.
const LARGEST_ANSWER: u64 = 1 << 30;

/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(2);

/// How long a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnswerPatience {
    /// 2 s in all, for whoever asks again soon.
    Probe,
    /// 30 s in all.
    Call,
    /// 300 s in all, which is what the API allows a bulk apply.
    Bulk,
    /// As long as it takes, with 30 s at most between two pieces.
    Stream,
}

/// The admin API.
pub(super) struct ApiClient {
    endpoint: Endpoint,
    /// Whether it was told that figures are not those of all nodes.
    told: Once,
}

/// A body and what it is.
pub(super) struct Content<B> {
    /// Its `Content-Type`.
    pub(super) kind: &'static str,
    /// The body itself.
    pub(super) body: B,
    /// Whether to wait with the body until the API has looked at the rest, as for one that is large.
    pub(super) waits: bool,
}

/// No body, as of a POST that needs none.
pub(super) const EMPTY: Option<Content<&[u8]>> = None;

impl ApiClient {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        ApiClient { endpoint, told: Once::new() }
    }

    /// Sends one request; the answer when it is a success.
    ///
    /// # Errors
    /// The API's own message with one line for each wrong field, or why there is no answer.
    pub(super) fn call<B: AsSendBody>(
        &self,
        patience: AnswerPatience,
        method: Method,
        path: &str,
        content: Option<Content<B>>,
    ) -> Result<Response<Body>, Failure> {
        let mut response = self.answer(patience, method, path, content)?;
        if response.status().is_success() {
            if let Some(missing) = response.headers().get("nodes-missing").and_then(|names| names.to_str().ok()) {
                self.told
                    .call_once(|| eprintln!("tollgate: warning: without the figures of {missing}: no answer in time"));
            }
            return Ok(response);
        }
        let status = response.status().as_u16();
        // An answer that breaks off is still one with a status.
        let body = response.body_mut().with_config().limit(LARGEST_ANSWER).read_to_vec().unwrap_or_default();
        let mut message = refusal(&self.endpoint.address, status, &body);
        if status == 401 {
            message += "\n  (its token comes from TOLLGATE_ADMIN_TOKEN, --token-file FILE or --conf FILE)";
        }
        Err(Failure::ApiClient(message))
    }

    /// As [`call`](ApiClient::call), and reads the answer as JSON: its text, and what it says.
    ///
    /// # Errors
    /// As there, or that the answer is not JSON.
    pub(super) fn json<B: AsSendBody>(
        &self,
        patience: AnswerPatience,
        method: Method,
        path: &str,
        content: Option<Content<B>>,
    ) -> Result<(String, Value), Failure> {
        let mut response = self.call(patience, method, path, content)?;
        let text = response.body_mut().with_config().limit(LARGEST_ANSWER).read_to_string();
        let text = text.map_err(|error| self.failed(error))?;
        match serde_json::from_str::<Value>(&text) {
            Ok(value) => {
                let warnings = value["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
                warnings.for_each(|warning| eprintln!("tollgate: warning: {}", plain(warning)));
                Ok((text, value))
            }
            Err(error) => Err(self.no_such_api(error)),
        }
    }

    /// What to say of an answer that the admin API would not give.
    pub(super) fn no_such_api(&self, reason: impl Display) -> Failure {
        let address = &self.endpoint.address;
        Failure::ApiClient(format!("{address} does not answer as tollgate's admin API does: {reason} (--admin)"))
    }

    /// Sends one request; the answer, whatever it is.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn answer<B: AsSendBody>(
        &self,
        patience: AnswerPatience,
        method: Method,
        path: &str,
        content: Option<Content<B>>,
    ) -> Result<Response<Body>, Failure> {
        let Endpoint { address, secure, .. } = &self.endpoint;
        let (socket, base) = match (address, secure) {
            // Whoever listens there does not ask for whom it is.
            (AdminPlace::Path(path), _) => (Some(path.clone()), "http://localhost".to_owned()),
            (address, None) => (None, format!("http://{address}")),
            (address, Some(_)) => (None, format!("https://{address}")),
        };
        let secure = secure.as_ref().map(AdminTrust::config).transpose().map_err(Failure::Usage)?.map(Arc::new);
        let mut request = Request::builder().method(&method).uri(format!("{base}{path}"));
        if let Some(token) = &self.endpoint.token {
            request = request.header("authorization", format!("Bearer {}", token.secret));
        }
        if let Some(content) = &content {
            request = request.header("content-type", content.kind);
            if content.waits {
                request = request.header("expect", "100-continue");
            }
        }
        let agent = agent(patience, PathConnector(socket), SecureConnector(secure));
        let answer = match content {
            Some(content) => {
                let request = request.body(content.body);
                request.map_err(ureq::Error::from).and_then(|request| agent.run(request))
            }
            None if method == Method::POST => {
                let request = request.body(&[] as &[u8]);
                request.map_err(ureq::Error::from).and_then(|request| agent.run(request))
            }
            None => request.body(()).map_err(ureq::Error::from).and_then(|request| agent.run(request)),
        };
        answer.map_err(|error| self.failed(error))
    }

    /// Says why there is no answer.
    pub(super) fn failed(&self, error: ureq::Error) -> Failure {
        let address = &self.endpoint.address;
        let nobody = |reason: &dyn Display| {
            format!("cannot connect to {address}: {reason}; is tollgate running with its admin API there? (--admin)")
        };
        Failure::ApiClient(match error {
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                format!("TLS with {address} came to nothing: {error} (--ca)")
            }
            ureq::Error::Io(error) if !is_of_a_connection(&error) => nobody(&error),
            ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => nobody(&"no answer within 2 s"),
            ureq::Error::HostNotFound => nobody(&"no such host"),
            ureq::Error::ConnectionFailed => nobody(&"the connection failed"),
            ureq::Error::Timeout(_) => format!("the admin API at {address} took too long"),
            ureq::Error::Io(error) => format!("the connection to {address} broke: {error}"),
            error => return self.no_such_api(error),
        })
    }
}

/// Whether the error is one that only a connection that stands can have; names that cannot be looked up have no kind of
/// their own.
fn is_of_a_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

/// One agent a call, since each has a patience of its own; connections are local and cheap.
fn agent(patience: AnswerPatience, socket: PathConnector, secure: SecureConnector) -> Agent {
    let all = |seconds| Some(Duration::from_secs(seconds));
    let (global, piece) = match patience {
        AnswerPatience::Probe => (all(2), None),
        AnswerPatience::Call => (all(30), None),
        AnswerPatience::Bulk => (all(300), None),
        AnswerPatience::Stream => (None, all(30)),
    };
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .max_redirects(0)
        .user_agent(concat!("tollgate/", env!("CARGO_PKG_VERSION")))
        .timeout_resolve(Some(CONNECT))
        .timeout_connect(Some(CONNECT))
        .timeout_global(global)
        .timeout_per_read(piece)
        .timeout_per_write(piece)
        .build();
    Agent::with_parts(config, socket.chain(TcpConnector::default()).chain(secure), DefaultResolver::default())
}

/// What the API said, with one line for each wrong field; what there is of it, when somebody else answered.
fn refusal(address: &impl Display, status: u16, body: &[u8]) -> String {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let Some(message) = value["message"].as_str() else {
        let text: String = String::from_utf8_lossy(body).trim().chars().take(200).collect();
        let colon = if text.is_empty() { "" } else { ": " };
        return format!("{address} answered {status}{colon}{}", plain(&text));
    };
    let message = plain(message);
    let fields = value["errors"].as_array().into_iter().flatten().map(|error| {
        let part = |name: &str| plain(error[name].as_str().unwrap_or_default());
        format!("{}: {}", part("field"), part("message"))
    });
    match &fields.collect::<Vec<_>>()[..] {
        // The message may say it already.
        [one] if message.contains(one.as_str()) => message,
        all => all.iter().fold(message, |told, field| told + "\n  " + field),
    }
}

/// `text` without what would move the cursor of a terminal.
pub(super) fn plain(text: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_default().collect() } else { String::from(c) };
    text.chars().map(shown).collect()
}

/// The path of one client; a name may hold slashes, and is one segment here.
pub(super) fn client_path(id: &ClientId) -> String {
    format!("/clients/{}", percent_encoded(id.as_str()))
}

/// `text` as it can stand in a path or a query. A dot is unreserved, too, but a segment of nothing but dots is not one
/// that arrives.
pub(super) fn percent_encoded(text: &str) -> String {
    const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~').remove(b'.');
    const NO_DOT: &AsciiSet = &UNRESERVED.add(b'.');
    let escaped = if text.bytes().all(|byte| byte == b'.') { NO_DOT } else { UNRESERVED };
    utf8_percent_encode(text, escaped).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_segment() {
        let path = |id: &str| client_path(&ClientId::parse(id).unwrap());
        assert_eq!(path("user-1_a.b"), "/clients/user-1_a.b");
        assert_eq!(path("203.0.113.0/24"), "/clients/203.0.113.0%2F24");
        assert_eq!(path("2001:db8::/32"), "/clients/2001%3Adb8%3A%3A%2F32");
        assert_eq!(path("team@example.com"), "/clients/team%40example.com");
        assert_eq!(path(".."), "/clients/%2E%2E");
        assert_eq!(percent_encoded("a b&c=ü%"), "a%20b%26c%3D%C3%BC%25");
    }

    #[test]
    fn a_refusal_is_the_message_and_a_line_for_each_field() {
        let body = br#"{"code":422,"message":"Wrong \u001b[31mbody","errors":[
            {"field":"capacity","message":"must be a whole number"},{"field":"mode","message":"must be limit"}]}"#;
        assert_eq!(
            refusal(&"a:1", 422, body),
            "Wrong \\u{1b}[31mbody\n  capacity: must be a whole number\n  mode: must be limit"
        );
        let one =
            br#"{"code":422,"message":"mode: must be limit","errors":[{"field":"mode","message":"must be limit"}]}"#;
        assert_eq!(refusal(&"a:1", 422, one), "mode: must be limit");
        let one = br#"{"code":422,"message":"Wrong body","errors":[{"field":"mode","message":"must be limit"}]}"#;
        assert_eq!(refusal(&"a:1", 422, one), "Wrong body\n  mode: must be limit");
        assert_eq!(refusal(&"a:1", 404, br#"{"code":404,"message":"No such client"}"#), "No such client");
        assert_eq!(refusal(&"a:1", 502, b"<html>\nno"), "a:1 answered 502: <html>\\nno");
        assert_eq!(refusal(&"a:1", 500, b""), "a:1 answered 500");
    }
}
