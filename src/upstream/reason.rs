//! Pingora's errors in words for operators.

use std::time::Duration;

use pingora_core::{Error, ErrorType};

use crate::tls::refusal;

/// Why an exchange with a backend failed, in a few words that are the same for the same cause, so that repeats of it
/// can be told to be repeats.
pub fn reason(error: &Error) -> String {
    let words = match error.etype() {
        ErrorType::ConnectRefused => "connection refused",
        ErrorType::ConnectTimedout => "connecting timed out",
        ErrorType::ConnectNoRoute => "no route to host",
        ErrorType::ConnectionClosed => "connection closed before the answer was complete",
        ErrorType::ReadTimedout => "no answer in time",
        ErrorType::WriteTimedout => "it did not take the request in time",
        ErrorType::TLSHandshakeTimedout => "the TLS handshake timed out",
        ErrorType::ReadError | ErrorType::WriteError if tls_error(error).is_some() => {
            // A server of TLS 1.3 says what it has against a client certificate when the handshake is long over.
            return tls_error(error).map_or_else(String::new, refusal);
        }
        ErrorType::ReadError => "connection broken while reading",
        ErrorType::WriteError => "connection broken while writing",
        ErrorType::InvalidHTTPHeader => language(error),
        ErrorType::HTTPStatus(_)
        | ErrorType::H2Error
        | ErrorType::InvalidH2
        | ErrorType::InvalidCert
        | ErrorType::TLSHandshakeFailure => {
            return error.context.as_ref().map_or_else(String::new, |c| c.as_str().to_owned());
        }
        ErrorType::ConnectError | ErrorType::SocketError | ErrorType::BindError | ErrorType::InternalError => {
            return system_reason(error);
        }
        other => other.as_str(),
    };
    words.to_owned()
}

/// The same for a backend that fell silent in the middle of its answer, for as long as is waited for it.
pub fn silent_midway(limit: Duration) -> String {
    format!("the backend was silent for {} midway", humantime::format_duration(limit))
}

/// `reason`, given that the connection had been used before and then had nothing to do for so long: whole seconds, or
/// tenths of the first one, so that repeats can be told to be repeats.
pub fn after_rest(reason: &str, idle: Duration) -> String {
    let idle = match idle.as_secs() {
        0 => format!("0.{}s", idle.subsec_millis() / 100),
        seconds => format!("{seconds}s"),
    };
    format!("{reason}, on a reused connection that was idle for {idle}")
}

/// What bytes are that should have been an answer and are no HTTP/1, in the words of [`reason`].
pub fn spoken(bytes: &[u8]) -> &'static str {
    if is_http2(bytes) {
        HTTP2
    } else if is_tls(bytes) {
        TLS
    } else {
        NOT_HTTP
    }
}

const HTTP2: &str = "it answered in HTTP/2 to a plain request in HTTP/1.1";
const TLS: &str = "it answered in TLS to a plain request";
const NOT_HTTP: &str = "it answered something that is not HTTP";

/// Whether they begin with a client's preface, or with a frame that a server sends first: SETTINGS, or GOAWAY, for the
/// whole connection (RFC 9113 sections 3.4 and 4.1).
fn is_http2(bytes: &[u8]) -> bool {
    let stream = bytes.get(5..9).unwrap_or_default();
    let is_frame = matches!(bytes, [0, _, _, 4 | 7, ..]) && stream.iter().all(|byte| *byte == 0);
    is_frame || bytes.starts_with(b"PRI * HTTP/2")
}

/// Whether they begin with a record of TLS that holds an alert or a part of a handshake (RFC 8446 section 5.1).
fn is_tls(bytes: &[u8]) -> bool {
    matches!(bytes, [0x15 | 0x16] | [0x15 | 0x16, 3, ..])
}

/// What the answer of `error` is, which was no HTTP/1. Pingora tells what it read, in escapes; our own way what it
/// found.
fn language(error: &Error) -> &'static str {
    let said = error.context.as_ref().map_or("", |context| context.as_str());
    match said.strip_prefix("buf: ") {
        Some(escaped) => spoken(&unescaped(escaped)),
        None => [HTTP2, TLS].into_iter().find(|words| *words == said).unwrap_or(NOT_HTTP),
    }
}

/// The first bytes of what `[u8]::escape_ascii` made of them.
fn unescaped(text: &str) -> Vec<u8> {
    const ENOUGH: usize = 16;
    let (mut bytes, mut rest) = (Vec::with_capacity(ENOUGH), text.as_bytes());
    while let (Some((first, after)), true) = (rest.split_first(), bytes.len() < ENOUGH) {
        let (byte, after) = match (first, after) {
            (b'\\', [b'x', high, low, after @ ..]) => {
                let digits = [*high, *low];
                let byte = str::from_utf8(&digits).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok());
                (byte.unwrap_or_default(), after)
            }
            (b'\\', [b't', after @ ..]) => (b'\t', after),
            (b'\\', [b'n', after @ ..]) => (b'\n', after),
            (b'\\', [b'r', after @ ..]) => (b'\r', after),
            (b'\\', [itself, after @ ..]) => (*itself, after),
            (itself, after) => (*itself, after),
        };
        bytes.push(byte);
        rest = after;
    }
    bytes
}

/// Whether a failure speaks against the backend. One that this machine met before it got there does not: it has no
/// descriptors or ports left, or no memory.
pub fn is_backends_fault(error: &Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, HostUnreachable, NetworkUnreachable};
    match error.etype() {
        ErrorType::SocketError | ErrorType::BindError | ErrorType::InternalError => false,
        ErrorType::ConnectError => system_error(error).is_some_and(|cause| {
            matches!(cause.kind(), ConnectionAborted | ConnectionReset | HostUnreachable | NetworkUnreachable)
        }),
        _ => true,
    }
}

/// The operating system's own words, where it had some.
fn system_reason(error: &Error) -> String {
    match system_error(error) {
        Some(cause) => format!("connecting failed: {cause}"),
        None => "connecting failed".to_owned(),
    }
}

/// What TLS says that a connection ended by.
fn tls_error(error: &Error) -> Option<&rustls::Error> {
    system_error(error)?.get_ref()?.downcast_ref()
}

fn system_error(error: &Error) -> Option<&std::io::Error> {
    error.root_cause().downcast_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_cause_has_the_same_words() {
        let refused = || Error::explain(ErrorType::ConnectRefused, format!("peer {}", fastrand::u32(..)));
        assert_eq!(reason(&refused()), reason(&refused()));
        assert_eq!(reason(&refused()), "connection refused");
    }

    #[test]
    fn what_is_no_http_is_named_where_it_can_be() {
        let settings = b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x80";
        let goaway = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x01";
        for (bytes, words) in [
            (&settings[..], HTTP2),
            (&settings[..9], HTTP2),
            (goaway, HTTP2),
            (b"\0\0\x0c\x04\0\0\0\0\0\\t\n\r'\"", HTTP2),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", HTTP2),
            (b"\x15\x03\x01\0\x02\x02\x46", TLS),
            (b"\x15\x03\x03\0\x02\x02\x0a", TLS),
            (b"\x16\x03\x03\0\x7a\x02\0\0\x76", TLS),
            (b"\x15", TLS),
            (b"\0\0\0\x04\0\0\0\0\x01", NOT_HTTP),
            (b"\0\0\0\0\0\0\0\0\0", NOT_HTTP),
            (b"\0\x01\x02 this is not HTTP", NOT_HTTP),
            (b"SSH-2.0-OpenSSH_9.2\r\n", NOT_HTTP),
            (b"220 mail.example ESMTP\r\n", NOT_HTTP),
            (b"\x16\x04\x01", NOT_HTTP),
            (b"", NOT_HTTP),
        ] {
            let directly = Error::explain(ErrorType::InvalidHTTPHeader, spoken(bytes));
            let by_pingora = Error::explain(ErrorType::InvalidHTTPHeader, format!("buf: {}", bytes.escape_ascii()));
            assert_eq!([reason(&directly), reason(&by_pingora)], [words, words], "{}", bytes.escape_ascii());
        }
        assert_eq!(reason(&Error::explain(ErrorType::InvalidHTTPHeader, "it has two lengths")), NOT_HTTP);
    }

    #[test]
    fn durations_are_what_they_are_and_few() {
        assert_eq!(silent_midway(Duration::from_secs(30)), "the backend was silent for 30s midway");
        assert_eq!(silent_midway(Duration::from_millis(1_250)), "the backend was silent for 1s 250ms midway");
        let after = |millis| {
            after_rest("why", Duration::from_millis(millis)).replace("why, on a reused connection that was ", "")
        };
        assert_eq!(
            [0, 99, 340, 999, 1_000, 61_999].map(after),
            ["idle for 0.0s", "idle for 0.0s", "idle for 0.3s", "idle for 0.9s", "idle for 1s", "idle for 61s"]
        );
    }

    #[test]
    fn what_this_machine_lacks_is_not_the_backends_fault() {
        let because = |etype, code| Error::because(etype, "", std::io::Error::from_raw_os_error(code));
        assert!(is_backends_fault(&Error::explain(ErrorType::ConnectRefused, "")));
        assert!(is_backends_fault(&because(ErrorType::ConnectError, 104)));
        for (etype, code) in
            [(ErrorType::SocketError, 24), (ErrorType::ConnectError, 99), (ErrorType::InternalError, 24)]
        {
            assert!(!is_backends_fault(&because(etype, code)), "{code}");
        }
    }

    #[test]
    fn the_system_is_quoted() {
        let cause = std::io::Error::from_raw_os_error(101);
        let error = Error::because(ErrorType::ConnectError, "Fail to connect", cause);
        assert_eq!(reason(&error), "connecting failed: Network is unreachable (os error 101)");
    }
}
