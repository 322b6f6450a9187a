//! One request as the access log tells it, and its two written forms.
//!
//! Host and path are whatever a stranger sent. The rule: whatever the bytes, one record is one line, a JSON line
//! parses, and no field can be mistaken for another one or for a second line.
//!
//! - JSON: control characters (those above 127 too) and Unicode's own line ends are written as `\u` escapes, bytes that
//!   are not UTF-8 as U+FFFD. A field that has no value is `null`, never absent, so that a reader can count on the
//!   keys; but for `grpc_status`, which only answers of gRPC have.
//! - Text: nginx's `combined` (without user, referer and agent, which are `-`), then `key=value` pairs. As nginx does,
//!   quotes, backslashes and all bytes that are not printable ASCII are written as `\xHH`. No value is `-`.
//!
//! A query string is never written, since keys and tokens travel in it. Fields are not clipped: the longest line is
//! bounded by the longest request head. Serialising through serde was refused, because it cannot take bytes that are
//! not UTF-8 without a copy of each field first. A further field costs one line in the struct and one in each form.

use std::fmt;
use std::io::Write;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use super::AccessLogFormat;
use super::timestamp::{CommonLog, SecondText};
use crate::decimal::{put_address, put_number, put_socket_address, put_thousandths};
use crate::upstream::ConnectAddress;

/// One request, as it is known when its last byte is sent or its client is gone.
#[derive(Clone, Copy, Debug)]
pub struct AccessRecord<'a> {
    /// When the request arrived.
    pub ts: SystemTime,
    /// The request's id, as in `X-Request-Id`.
    pub request_id: &'a str,
    /// The client's name, when the caller is one. It is written also when the client has no other credential and the
    /// name is its API key: names are public, and a client that needs a secret is given an `api_key`.
    pub client_id: Option<&'a str>,
    /// The caller's address; an IPv4-mapped one is written as IPv4.
    pub client_ip: IpAddr,
    /// How the caller was recognised: `api_key`, `certificate`, `address` or `anonymous`; none when it did not get that
    /// far.
    pub identity: Option<&'a str>,
    /// The method.
    pub method: &'a str,
    /// The host that was asked for, as it was sent; empty when none was.
    pub host: &'a [u8],
    /// The path, as it was sent; anything from a `?` on is not written.
    pub path: &'a [u8],
    /// The status of the answer, 0 when none was sent (written as `null` or `-`).
    pub status: u16,
    /// The status of gRPC that stood in its place, where the caller was told one by tollgate; no key of other lines.
    pub grpc_status: Option<u32>,
    /// From the request's first byte to the answer's last; written in milliseconds, cut off after three decimals.
    pub duration: Duration,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// The pool that the request was routed to, if it got that far.
    pub upstream: Option<&'a str>,
    /// The backend of the last attempt, if there was one.
    pub backend: Option<&'a ConnectAddress>,
    /// How many backends were tried.
    pub attempts: u32,
    /// What the limiter said: `allowed`, `limited`, `blocked` or `unlimited`; none when it was not asked.
    pub limit: Option<&'a str>,
    /// The tokens left in the caller's bucket; written with three decimals.
    pub tokens: Option<f64>,
    /// The bucket that has refused it: the name of a policy, or `default` for the caller's own.
    pub limited_by: Option<&'a str>,
    /// The policies on trial that would have refused it, with commas between them.
    pub shadow: Option<&'a str>,
    /// What went wrong, in words.
    pub error: Option<&'a str>,
}

impl AccessRecord<'static> {
    /// A record of which no more is known than when it arrived, and from where.
    pub fn bare(ts: SystemTime, client_ip: IpAddr) -> Self {
        AccessRecord {
            ts,
            request_id: "",
            client_id: None,
            client_ip,
            identity: None,
            method: "-",
            host: b"",
            path: b"",
            status: 0,
            grpc_status: None,
            duration: Duration::ZERO,
            bytes_in: 0,
            bytes_out: 0,
            upstream: None,
            backend: None,
            attempts: 0,
            limit: None,
            tokens: None,
            limited_by: None,
            shadow: None,
            error: None,
        }
    }
}

impl AccessRecord<'_> {
    /// Appends the record to `out` as one line with its line end.
    pub(super) fn write(&self, format: AccessLogFormat, seconds: &mut SecondText, out: &mut Vec<u8>) {
        match format {
            AccessLogFormat::Json => self.write_json(seconds, out),
            AccessLogFormat::Text => self.write_text(out),
        }
    }

    /// Keys and their order are a public contract.
    fn write_json(&self, seconds: &mut SecondText, out: &mut Vec<u8>) {
        literal(r#"{"ts":""#, out);
        seconds.put(self.ts, out);
        literal(r#"","request_id":""#, out);
        escape_json(self.request_id.as_bytes(), out);
        literal(r#"","client_id":"#, out);
        or_null(self.client_id, out, |id, out| text(id.as_bytes(), out));
        literal(r#","client_ip":""#, out);
        put_address(self.client_ip, out);
        literal(r#"","identity":"#, out);
        or_null(self.identity, out, word);
        literal(r#","method":""#, out);
        escape_json(self.method.as_bytes(), out);
        literal(r#"","host":""#, out);
        escape_json(self.host, out);
        literal(r#"","path":""#, out);
        escape_json(self.path(), out);
        literal(r#"","status":"#, out);
        or_null(self.status(), out, |status, out| put_number(status.into(), out));
        if let Some(status) = self.grpc_status {
            literal(r#","grpc_status":"#, out);
            put_number(status.into(), out);
        }
        literal(r#","duration_ms":"#, out);
        put_thousandths(micros(self.duration), out);
        literal(r#","bytes_in":"#, out);
        put_number(self.bytes_in, out);
        literal(r#","bytes_out":"#, out);
        put_number(self.bytes_out, out);
        literal(r#","upstream":"#, out);
        or_null(self.upstream, out, |name, out| text(name.as_bytes(), out));
        literal(r#","backend":"#, out);
        or_null(self.backend, out, |backend, out| {
            literal("\"", out);
            match backend {
                ConnectAddress::Tcp(address) => put_socket_address(*address, out),
                ConnectAddress::Unix(path) => put(out, format_args!("{path}")),
            }
            literal("\"", out);
        });
        literal(r#","attempts":"#, out);
        put_number(self.attempts.into(), out);
        literal(r#","limit":"#, out);
        or_null(self.limit, out, word);
        literal(r#","tokens":"#, out);
        or_null(self.tokens, out, put_tokens);
        if let Some(policy) = self.limited_by {
            literal(r#","limited_by":"#, out);
            word(policy, out);
        }
        if let Some(policies) = self.shadow {
            literal(r#","shadow":"#, out);
            word(policies, out);
        }
        literal(r#","error":"#, out);
        or_null(self.error, out, |error, out| text(error.as_bytes(), out));
        literal("}\n", out);
    }

    fn write_text(&self, out: &mut Vec<u8>) {
        put(out, format_args!("{} - - [{}] \"", self.client_ip.to_canonical(), CommonLog(self.ts)));
        escape_text(self.method.as_bytes(), out);
        out.push(b' ');
        escape_text(self.path(), out);
        put(out, format_args!("\" {} {} \"-\" \"-\"", OrDash(self.status()), self.bytes_out));
        text_pair("host", Some(self.host).filter(|host| !host.is_empty()), out);
        text_pair("request_id", Some(self.request_id.as_bytes()), out);
        text_pair("client_id", self.client_id.map(str::as_bytes), out);
        put(out, format_args!(" identity={}", OrDash(self.identity)));
        if let Some(status) = self.grpc_status {
            put(out, format_args!(" grpc_status={status}"));
        }
        out.extend_from_slice(b" duration_ms=");
        put_thousandths(micros(self.duration), out);
        put(out, format_args!(" bytes_in={}", self.bytes_in));
        text_pair("upstream", self.upstream.map(str::as_bytes), out);
        put(out, format_args!(" backend={} attempts={}", OrDash(self.backend), self.attempts));
        put(out, format_args!(" limit={} tokens=", OrDash(self.limit)));
        match self.tokens {
            Some(tokens) => put_tokens(tokens, out),
            None => out.push(b'-'),
        }
        if let Some(policy) = self.limited_by {
            put(out, format_args!(" limited_by={policy}"));
        }
        if let Some(policies) = self.shadow {
            put(out, format_args!(" shadow={policies}"));
        }
        text_pair("error", self.error.map(str::as_bytes), out);
        out.push(b'\n');
    }

    /// When the request ended.
    pub(super) fn end(&self) -> SystemTime {
        self.ts.checked_add(self.duration).unwrap_or(self.ts)
    }

    fn status(&self) -> Option<u16> {
        Some(self.status).filter(|status| *status != 0)
    }

    fn path(&self) -> &[u8] {
        self.path.split(|byte| *byte == b'?').next().unwrap_or_default()
    }
}

/// Appends formatted text.
fn put(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a Vec takes every write and nothing formatted here fails");
}

/// A duration in microseconds, cut off.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Appends an amount of tokens with three decimals, cut off, so that 0.9999 does not look like a token.
fn put_tokens(tokens: f64, out: &mut Vec<u8>) {
    // Never below 0 or beyond the largest capacity.
    put_thousandths((tokens * 1000.0) as u64, out);
}

/// A value, or `-` for none.
struct OrDash<T>(Option<T>);

impl<T: fmt::Display> fmt::Display for OrDash<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("-"),
        }
    }
}

/// Appends what is the same in every line. Inlined, so that its length is known where it is copied.
#[inline(always)]
fn literal(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(text.as_bytes());
}

/// Appends a value by `write` when it is there, and `null` when it is not.
#[inline(always)]
fn or_null<T>(value: Option<T>, out: &mut Vec<u8>, write: impl FnOnce(T, &mut Vec<u8>)) {
    match value {
        Some(value) => write(value, out),
        None => literal("null", out),
    }
}

/// Appends a word of our own, which needs no escapes, in quotes.
fn word(value: &str, out: &mut Vec<u8>) {
    literal("\"", out);
    out.extend_from_slice(value.as_bytes());
    literal("\"", out);
}

/// Appends text from outside in quotes.
fn text(value: &[u8], out: &mut Vec<u8>) {
    literal("\"", out);
    escape_json(value, out);
    literal("\"", out);
}

/// Whether both forms write `value` as it is, which nearly all values are.
fn is_plain(value: &[u8]) -> bool {
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') & !matches!(byte, b'"' | b'\\');
    // All of them, since a loop that may end early is not made one over many bytes at a time.
    value.iter().fold(true, |all, byte| all & is_plain(byte))
}

fn escape_json(value: &[u8], out: &mut Vec<u8>) {
    if is_plain(value) {
        return out.extend_from_slice(value);
    }
    for chunk in value.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
                '\u{2028}' | '\u{2029}' => put(out, format_args!("\\u{:04x}", u32::from(c))),
                _ if c.is_control() => put(out, format_args!("\\u{:04x}", u32::from(c))),
                _ => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// Appends ` key="value"`, or ` key=-` for no value.
fn text_pair(key: &str, value: Option<&[u8]>, out: &mut Vec<u8>) {
    put(out, format_args!(" {key}="));
    let Some(value) = value else {
        return out.push(b'-');
    };
    out.push(b'"');
    escape_text(value, out);
    out.push(b'"');
}

fn escape_text(value: &[u8], out: &mut Vec<u8>) {
    if is_plain(value) {
        return out.extend_from_slice(value);
    }
    for byte in value {
        match byte {
            b' '..=b'~' if !matches!(byte, b'"' | b'\\') => out.push(*byte),
            _ => put(out, format_args!("\\x{byte:02X}")),
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
