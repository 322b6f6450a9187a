//! One request as the access log tells it, and its two written forms.
//!
//! Host and path are whatever a stranger sent. The rule: whatever the bytes, one record is one line, a JSON line parses,
//! and no field can be mistaken for another one or for a second line.
//!
//! - JSON: control characters (those above 127 too) and Unicode's own line ends are written as `\u` escapes, bytes that
//!   are not UTF-8 as U+FFFD. A field that has no value is `null`, never absent, so that a reader can count on the keys.
//! - Text: nginx's `combined` (without user, referer and agent, which are `-`), then `key=value` pairs. As nginx does,
//!   quotes, backslashes and all bytes that are not printable ASCII are written as `\xHH`. No value is `-`.
//!
//! A query string is never written, since keys and tokens travel in it. Fields are not clipped: the longest line is
//! bounded by the longest request head. Serialising through serde was refused, because it cannot take bytes that are not
//! UTF-8 without a copy of each field first. A further field costs one line in the struct and one in each form.

use std::fmt;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use super::AccessLogFormat;
use super::timestamp::{CommonLog, rfc3339};

/// One request, as it is known when its last byte is sent or its client is gone.
#[derive(Clone, Copy, Debug)]
pub struct AccessRecord<'a> {
    /// When the request arrived.
    pub ts: SystemTime,
    /// The request's id, as in `X-Request-Id`.
    pub request_id: &'a str,
    /// The caller's address; an IPv4-mapped one is written as IPv4.
    pub client_ip: IpAddr,
    /// The method.
    pub method: &'a str,
    /// The host that was asked for, as it was sent; empty when none was.
    pub host: &'a [u8],
    /// The path, as it was sent; anything from a `?` on is not written.
    pub path: &'a [u8],
    /// The status of the answer, 0 when none was sent (written as `null` or `-`).
    pub status: u16,
    /// From the request's first byte to the answer's last; written in milliseconds, cut off after three decimals.
    pub duration: Duration,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// The pool that the request was routed to, if it got that far.
    pub upstream: Option<&'a str>,
    /// The backend of the last attempt, if there was one.
    pub backend: Option<SocketAddr>,
    /// How many backends were tried.
    pub attempts: u32,
    /// What went wrong, in words.
    pub error: Option<&'a str>,
}

impl AccessRecord<'_> {
    /// Appends the record to `out` as one line with its line end.
    pub(super) fn write(&self, format: AccessLogFormat, out: &mut Vec<u8>) {
        match format {
            AccessLogFormat::Json => self.write_json(out),
            AccessLogFormat::Text => self.write_text(out),
        }
    }

    /// Keys and their order are a public contract.
    fn write_json(&self, out: &mut Vec<u8>) {
        let mut json = JsonObject::begin(out);
        json.quoted("ts", rfc3339(self.ts));
        json.text("request_id", self.request_id.as_bytes());
        json.quoted("client_ip", self.client_ip.to_canonical());
        json.text("method", self.method.as_bytes());
        json.text("host", self.host);
        json.text("path", self.path());
        json.optional("status", self.status(), JsonObject::bare);
        json.bare("duration_ms", Milliseconds(self.duration));
        json.bare("bytes_in", self.bytes_in);
        json.bare("bytes_out", self.bytes_out);
        json.optional("upstream", self.upstream.map(str::as_bytes), JsonObject::text);
        json.optional("backend", self.backend, JsonObject::quoted);
        json.bare("attempts", self.attempts);
        json.optional("error", self.error.map(str::as_bytes), JsonObject::text);
        json.end();
    }

    fn write_text(&self, out: &mut Vec<u8>) {
        put(out, format_args!("{} - - [{}] \"", self.client_ip.to_canonical(), CommonLog(self.ts)));
        escape_text(self.method.as_bytes(), out);
        out.push(b' ');
        escape_text(self.path(), out);
        put(out, format_args!("\" {} {} \"-\" \"-\"", OrDash(self.status()), self.bytes_out));
        text_pair("host", Some(self.host).filter(|host| !host.is_empty()), out);
        text_pair("request_id", Some(self.request_id.as_bytes()), out);
        put(out, format_args!(" duration_ms={} bytes_in={}", Milliseconds(self.duration), self.bytes_in));
        text_pair("upstream", self.upstream.map(str::as_bytes), out);
        put(out, format_args!(" backend={} attempts={}", OrDash(self.backend), self.attempts));
        text_pair("error", self.error.map(str::as_bytes), out);
        out.push(b'\n');
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

/// A duration in milliseconds with three decimals.
struct Milliseconds(Duration);

impl fmt::Display for Milliseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        write!(f, "{}.{:03}", micros / 1000, micros % 1000)
    }
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

/// Writes the members of one JSON object.
struct JsonObject<'a> {
    out: &'a mut Vec<u8>,
    separator: u8,
}

impl<'a> JsonObject<'a> {
    fn begin(out: &'a mut Vec<u8>) -> Self {
        JsonObject { out, separator: b'{' }
    }

    fn end(self) {
        self.out.extend_from_slice(b"}\n");
    }

    fn key(&mut self, key: &str) {
        self.out.extend_from_slice(&[self.separator, b'"']);
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.separator = b',';
    }

    /// A number.
    fn bare(&mut self, key: &str, value: impl fmt::Display) {
        self.key(key);
        put(self.out, format_args!("{value}"));
    }

    /// A value whose text needs no escapes.
    fn quoted(&mut self, key: &str, value: impl fmt::Display) {
        self.key(key);
        put(self.out, format_args!("\"{value}\""));
    }

    /// Text from outside.
    fn text(&mut self, key: &str, value: &[u8]) {
        self.key(key);
        self.out.push(b'"');
        escape_json(value, self.out);
        self.out.push(b'"');
    }

    /// A value that may be missing, written by `write` when it is there.
    fn optional<T>(&mut self, key: &str, value: Option<T>, write: impl FnOnce(&mut Self, &str, T)) {
        match value {
            Some(value) => write(self, key, value),
            None => self.bare(key, "null"),
        }
    }
}

/// Whether both forms write `value` as it is, which nearly all values are.
fn is_plain(value: &[u8]) -> bool {
    value.iter().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\'))
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
pub(super) mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;

    /// A request that went well.
    pub(in crate::telemetry) const SAMPLE: AccessRecord<'static> = AccessRecord {
        ts: UNIX_EPOCH,
        request_id: "4f9c",
        client_ip: IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 7)),
        method: "GET",
        host: b"api.example.com",
        path: b"/v1/users",
        status: 200,
        duration: Duration::from_nanos(12_345_999),
        bytes_in: 7,
        bytes_out: 1234,
        upstream: Some("app"),
        backend: Some(SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9001)),
        attempts: 1,
        error: None,
    };

    /// A request that its client gave up before anything was known about it.
    const BARE: AccessRecord<'static> = AccessRecord {
        host: b"",
        status: 0,
        upstream: None,
        backend: None,
        attempts: 0,
        error: Some("client gone"),
        ..SAMPLE
    };

    fn line(record: &AccessRecord<'_>, format: AccessLogFormat) -> String {
        let mut out = Vec::new();
        record.write(format, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_json_form_is_the_contract() {
        assert_eq!(
            line(&SAMPLE, AccessLogFormat::Json),
            "{\"ts\":\"1970-01-01T00:00:00.000Z\",\"request_id\":\"4f9c\",\"client_ip\":\"203.0.113.7\",\
             \"method\":\"GET\",\"host\":\"api.example.com\",\"path\":\"/v1/users\",\"status\":200,\
             \"duration_ms\":12.345,\"bytes_in\":7,\"bytes_out\":1234,\"upstream\":\"app\",\
             \"backend\":\"127.0.0.1:9001\",\"attempts\":1,\"error\":null}\n"
        );
        let bare: serde_json::Value = serde_json::from_str(&line(&BARE, AccessLogFormat::Json)).unwrap();
        assert!(["status", "upstream", "backend"].iter().all(|key| bare[key].is_null()), "{bare}");
        assert_eq!(bare["host"], "");
        assert_eq!(bare["error"], "client gone");
    }

    #[test]
    fn the_text_form_is_close_to_combined() {
        assert_eq!(
            line(&SAMPLE, AccessLogFormat::Text),
            "203.0.113.7 - - [01/Jan/1970:00:00:00 +0000] \"GET /v1/users\" 200 1234 \"-\" \"-\" \
             host=\"api.example.com\" request_id=\"4f9c\" duration_ms=12.345 bytes_in=7 \
             upstream=\"app\" backend=127.0.0.1:9001 attempts=1 error=-\n"
        );
        assert_eq!(
            line(&BARE, AccessLogFormat::Text),
            "203.0.113.7 - - [01/Jan/1970:00:00:00 +0000] \"GET /v1/users\" - 1234 \"-\" \"-\" \
             host=- request_id=\"4f9c\" duration_ms=12.345 bytes_in=7 \
             upstream=- backend=- attempts=0 error=\"client gone\"\n"
        );
    }

    #[test]
    fn a_query_string_is_never_written() {
        let record = AccessRecord { path: b"/v1?key=secret?x", ..SAMPLE };
        for format in [AccessLogFormat::Json, AccessLogFormat::Text] {
            let line = line(&record, format);
            assert!(line.contains("/v1\"") && !line.contains("secret"), "{line}");
        }
    }

    #[test]
    fn a_line_cannot_be_forged() {
        let path = "/\"\\\r\n\u{1b}[31m\u{7f}\u{85}\u{2028}\u{e4}".as_bytes();
        let record =
            AccessRecord { path, host: b"a\xff\" 200", client_ip: "::ffff:192.0.2.1".parse().unwrap(), ..SAMPLE };
        let json = line(&record, AccessLogFormat::Json);
        assert!(json.contains(r#""path":"/\"\\\u000d\u000a\u001b[31m\u007f\u0085\u2028ä","#), "{json}");
        assert!(json.contains("\"host\":\"a\u{fffd}\\\" 200\","), "{json}");
        assert!(json.contains("\"client_ip\":\"192.0.2.1\","), "{json}");
        let text = line(&record, AccessLogFormat::Text);
        let escaped = r#""GET /\x22\x5C\x0D\x0A\x1B[31m\x7F\xC2\x85\xE2\x80\xA8\xC3\xA4" 200 1234 "#;
        assert!(text.contains(escaped) && text.contains(r#"host="a\xFF\x22 200" "#), "{text}");
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![prop::collection::vec(any::<u8>(), 0..40), any::<String>().prop_map(String::into_bytes)]
    }

    proptest! {
        #[test]
        fn json_lines_parse_back(host in bytes(), path in bytes(), error in any::<Option<String>>(),
                                 status in any::<u16>(), duration in any::<Duration>(), bytes_out in any::<u64>()) {
            let error = error.as_deref();
            let record = AccessRecord { host: &host, path: &path, error, status, duration, bytes_out, ..SAMPLE };
            let line = line(&record, AccessLogFormat::Json);
            prop_assert!(line.ends_with('\n') && !line.trim_end_matches('\n').contains(char::is_control));
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            let path = String::from_utf8_lossy(path.split(|b| *b == b'?').next().unwrap()).into_owned();
            prop_assert_eq!(value["path"].as_str(), Some(path.as_str()));
            prop_assert_eq!(value["host"].as_str(), Some(&*String::from_utf8_lossy(&host)));
            prop_assert_eq!(value["error"].as_str(), error);
            prop_assert_eq!(value["status"].as_u64(), Some(u64::from(status)).filter(|status| *status != 0));
            prop_assert_eq!(value["bytes_out"].as_u64(), Some(bytes_out));
            prop_assert!((value["duration_ms"].as_f64().unwrap() / 1e3 / duration.as_secs_f64().max(1e-9) - 1.0) < 1e-6);
        }

        #[test]
        fn text_lines_are_one_printable_line(host in bytes(), path in bytes(), error in any::<Option<String>>()) {
            let record = AccessRecord { host: &host, path: &path, error: error.as_deref(), ..SAMPLE };
            let line = line(&record, AccessLogFormat::Text);
            let body = line.strip_suffix('\n').unwrap();
            prop_assert!(body.bytes().all(|b| (b' '..=b'~').contains(&b)), "{}", body);
            // Request, referer, agent, request id and upstream have their quotes, and no quote comes from outside.
            let fields = 5 + usize::from(error.is_some()) + usize::from(!host.is_empty());
            prop_assert_eq!(body.matches('"').count(), 2 * fields);
        }
    }
}
