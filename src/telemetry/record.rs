//! One request as the access log tells it, and its two written forms.
//!
//! Host and path are whatever a stranger sent. The rule: whatever the bytes, one record is one line, a JSON line
//! parses, and no field can be mistaken for another one or for a second line.
//!
//! - JSON: control characters (those above 127 too) and Unicode's own line ends are written as `\u` escapes, bytes that
//!   are not UTF-8 as U+FFFD. A field that has no value is `null`, never absent, so that a reader can count on the
//!   keys; but for `grpc_status`, `limited_by` and `shadow`, which few lines have anything to say in, and that are
//!   always there only where the configuration chooses them.
//! - Text: nginx's `combined`, with the client's name for a user, then `key=value` pairs. As nginx does, quotes,
//!   backslashes and all bytes that are not printable ASCII are written as `\xHH`. No value is `-`; but where no status
//!   was sent, which what reads `combined` must find, it is nginx's own 499.
//!
//! A query string is never written, since keys and tokens travel in it; nor is that of the page that a request came
//! from. Referer and agent, of which a client may send what it likes, are cut off behind [`LONGEST`] bytes; other fields
//! are bounded by the longest request head. Serialising through serde was refused, because it cannot take bytes that
//! are not UTF-8 without a copy of each field first. A further field costs one line in the struct and one in each form.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use super::access_field::{AccessField, NamedField};
use super::line_text::{OrDash, escape_text, literal, or_null, put, quoted, text, text_pair, word};
use super::settings::{AccessLogFormat, AccessLogSettings};
use super::timestamp::{CommonLog, SecondText};
use super::trace::TraceId;
use crate::decimal::{put_address, put_number, put_socket_address, put_thousandths};
use crate::upstream::ConnectAddress;

/// The most that is written of what a client says of itself, in bytes, before escapes.
const LONGEST: usize = 1024;
/// What nginx logs for a client that went before its answer.
const NOTHING_SENT: u16 = 499;

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
    /// The version of HTTP: `HTTP/1.0`, `HTTP/1.1` or `HTTP/2.0`; none when it is not known.
    pub protocol: Option<&'a str>,
    /// The version of TLS, such as `TLSv1.3`; none without TLS.
    pub tls_version: Option<&'a str>,
    /// `Referer`, as it was sent; none when it was not, or nobody has asked for it. Without its query and fragment.
    pub referer: Option<&'a [u8]>,
    /// `User-Agent`, in the same way.
    pub user_agent: Option<&'a [u8]>,
    /// The status of the answer, 0 when none was sent (written as `null` or 499).
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
    /// The trace that it belongs to; no key of other lines.
    pub trace_id: Option<TraceId>,
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
            protocol: None,
            tls_version: None,
            referer: None,
            user_agent: None,
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
            trace_id: None,
            error: None,
        }
    }
}

impl AccessRecord<'_> {
    /// Appends the record to `out` as one line with its line end.
    pub(super) fn write(&self, settings: &AccessLogSettings, seconds: &mut SecondText, out: &mut Vec<u8>) {
        match (settings.format, &settings.fields) {
            (AccessLogFormat::Json, None) => self.write_json(seconds, out),
            (AccessLogFormat::Json, Some(fields)) => self.write_fields(fields, seconds, out),
            (AccessLogFormat::Text, _) => self.write_text(out),
        }
    }

    /// Keys and their order are a public contract.
    fn write_json(&self, seconds: &mut SecondText, out: &mut Vec<u8>) {
        use AccessField as F;
        self.member(r#"{"ts":"#, F::Ts, seconds, out);
        self.member(r#","request_id":"#, F::RequestId, seconds, out);
        self.member(r#","client_id":"#, F::ClientId, seconds, out);
        self.member(r#","client_ip":"#, F::ClientIp, seconds, out);
        self.member(r#","identity":"#, F::Identity, seconds, out);
        self.member(r#","method":"#, F::Method, seconds, out);
        self.member(r#","host":"#, F::Host, seconds, out);
        self.member(r#","path":"#, F::Path, seconds, out);
        self.member(r#","status":"#, F::Status, seconds, out);
        if self.grpc_status.is_some() {
            self.member(r#","grpc_status":"#, F::GrpcStatus, seconds, out);
        }
        self.member(r#","duration_ms":"#, F::DurationMs, seconds, out);
        self.member(r#","bytes_in":"#, F::BytesIn, seconds, out);
        self.member(r#","bytes_out":"#, F::BytesOut, seconds, out);
        self.member(r#","upstream":"#, F::Upstream, seconds, out);
        self.member(r#","backend":"#, F::Backend, seconds, out);
        self.member(r#","attempts":"#, F::Attempts, seconds, out);
        self.member(r#","limit":"#, F::Limit, seconds, out);
        self.member(r#","tokens":"#, F::Tokens, seconds, out);
        if self.limited_by.is_some() {
            self.member(r#","limited_by":"#, F::LimitedBy, seconds, out);
        }
        if self.shadow.is_some() {
            self.member(r#","shadow":"#, F::Shadow, seconds, out);
        }
        if self.trace_id.is_some() {
            self.member(r#","trace_id":"#, F::TraceId, seconds, out);
        }
        self.member(r#","error":"#, F::Error, seconds, out);
        literal("}\n", out);
    }

    /// What was chosen, and called so.
    fn write_fields(&self, fields: &[NamedField], seconds: &mut SecondText, out: &mut Vec<u8>) {
        let mut before = "{\"";
        for NamedField { field, name } in fields {
            literal(before, out);
            out.extend_from_slice(name.as_bytes());
            literal("\":", out);
            self.value(*field, seconds, out);
            before = ",\"";
        }
        literal("}\n", out);
    }

    /// Appends a value behind what stands before it. Inlined, so that nothing is left of the choice.
    #[inline(always)]
    fn member(&self, before: &str, field: AccessField, seconds: &mut SecondText, out: &mut Vec<u8>) {
        literal(before, out);
        self.value(field, seconds, out);
    }

    #[inline(always)]
    fn value(&self, field: AccessField, seconds: &mut SecondText, out: &mut Vec<u8>) {
        use AccessField as F;
        let number = |number: u32, out: &mut Vec<u8>| put_number(number.into(), out);
        let string = |value: &str, out: &mut Vec<u8>| text(value.as_bytes(), out);
        match field {
            F::Ts => quoted(out, |out| seconds.put(self.ts, out)),
            F::RequestId => string(self.request_id, out),
            F::ClientId => or_null(self.client_id, out, string),
            F::ClientIp => quoted(out, |out| put_address(self.client_ip, out)),
            F::Identity => or_null(self.identity, out, word),
            F::Method => string(self.method, out),
            F::Host => text(self.host, out),
            F::Path => text(self.path(), out),
            F::Protocol => or_null(self.protocol, out, word),
            F::TlsVersion => or_null(self.tls_version, out, word),
            F::Referer => or_null(self.referer(), out, text),
            F::UserAgent => or_null(self.user_agent(), out, text),
            F::Status => or_null(self.status(), out, |status, out| number(status.into(), out)),
            F::GrpcStatus => or_null(self.grpc_status, out, number),
            F::DurationMs => put_thousandths(micros(self.duration), out),
            F::BytesIn => put_number(self.bytes_in, out),
            F::BytesOut => put_number(self.bytes_out, out),
            F::Upstream => or_null(self.upstream, out, string),
            F::Backend => or_null(self.backend, out, |backend, out| {
                quoted(out, |out| match backend {
                    ConnectAddress::Tcp(address) => put_socket_address(*address, out),
                    ConnectAddress::Unix(path) => put(out, format_args!("{path}")),
                });
            }),
            F::Attempts => number(self.attempts, out),
            F::Limit => or_null(self.limit, out, word),
            F::Tokens => or_null(self.tokens, out, put_tokens),
            F::LimitedBy => or_null(self.limited_by, out, word),
            F::Shadow => or_null(self.shadow, out, word),
            F::TraceId => {
                or_null(self.trace_id, out, |trace, out| quoted(out, |out| out.extend_from_slice(&trace.digits())));
            }
            F::Error => or_null(self.error, out, string),
        }
    }

    fn write_text(&self, out: &mut Vec<u8>) {
        let (address, user) = (self.client_ip.to_canonical(), OrDash(self.client_id));
        put(out, format_args!("{address} - {user} [{}] \"", CommonLog(self.ts)));
        escape_text(self.method.as_bytes(), out);
        if !self.path().is_empty() {
            out.push(b' ');
            escape_text(self.path(), out);
        }
        if let Some(protocol) = self.protocol.filter(|_| self.method != "-") {
            put(out, format_args!(" {protocol}"));
        }
        put(out, format_args!("\" {} {}", self.status().unwrap_or(NOTHING_SENT), self.bytes_out));
        for said in [self.referer(), self.user_agent()] {
            out.extend_from_slice(b" \"");
            escape_text(said.unwrap_or(b"-"), out);
            out.push(b'"');
        }
        text_pair("host", Some(self.host).filter(|host| !host.is_empty()), out);
        text_pair("request_id", Some(self.request_id.as_bytes()), out);
        text_pair("client_id", self.client_id.map(str::as_bytes), out);
        put(out, format_args!(" identity={}", OrDash(self.identity)));
        if let Some(status) = self.grpc_status {
            put(out, format_args!(" grpc_status={status}"));
        }
        if let Some(version) = self.tls_version {
            put(out, format_args!(" tls_version={version}"));
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
        if let Some(trace) = self.trace_id {
            out.extend_from_slice(b" trace_id=");
            out.extend_from_slice(&trace.digits());
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

    fn referer(&self) -> Option<&[u8]> {
        self.referer.and_then(|page| page.split(|byte| b"?#".contains(byte)).next()).and_then(bounded)
    }

    fn user_agent(&self) -> Option<&[u8]> {
        self.user_agent.and_then(bounded)
    }
}

/// What is written of a client's words; none when there are none. Ends between two characters.
fn bounded(value: &[u8]) -> Option<&[u8]> {
    let is_start = |end: &usize| value.get(*end).is_none_or(|byte| byte & 0xC0 != 0x80);
    // A character has four bytes at most.
    let end = (LONGEST - 3..=LONGEST).rev().find(is_start).unwrap_or(LONGEST);
    (!value.is_empty()).then_some(&value[..end.min(value.len())])
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

#[cfg(test)]
pub(super) mod tests;
