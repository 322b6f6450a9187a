//! What an answer says about its caller's bucket.
//!
//! `RateLimit-Policy` and `RateLimit` as draft-ietf-httpapi-ratelimit-headers-11 has them, and the older `X-RateLimit-*`
//! that most clients read. What the backend says under these names is replaced: it does not know the bucket.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use pingora_core::Result;
use pingora_http::ResponseHeader;

use crate::decimal::put_number;
use crate::limit::Standing;

/// The names of the headers.
pub(in crate::proxy) const NAMES: [&str; 5] =
    ["RateLimit-Policy", "RateLimit", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"];

/// Appends how the bucket stands to a header section in `out`.
pub(in crate::proxy) fn append(out: &mut Vec<u8>, standing: &Standing) {
    let (capacity, remaining) = (u64::from(standing.quota().capacity().get()), u64::from(standing.remaining()));
    out.extend_from_slice(b"RateLimit-Policy: \"default\";q=");
    put_number(capacity, out);
    out.extend_from_slice(b";w=");
    put_number(standing.window(), out);
    out.extend_from_slice(b"\r\nRateLimit: \"default\";r=");
    put_number(remaining, out);
    out.extend_from_slice(b";t=");
    put_number(standing.reset(), out);
    out.extend_from_slice(b"\r\nX-RateLimit-Limit: ");
    put_number(capacity, out);
    out.extend_from_slice(b"\r\nX-RateLimit-Remaining: ");
    put_number(remaining, out);
    out.extend_from_slice(b"\r\nX-RateLimit-Reset: ");
    put_number(standing.full_after(), out);
    out.extend_from_slice(b"\r\n");
}

/// Writes how the bucket stands into `answer`.
///
/// # Errors
/// Never in practice: every value is a valid one.
pub(in crate::proxy) fn write(answer: &mut ResponseHeader, standing: &Standing) -> Result<()> {
    values(standing).into_iter().zip(NAMES).try_for_each(|(value, name)| answer.insert_header(name, value))
}

/// The same into the header of HTTP/2, where names are in lower case.
pub(in crate::proxy) fn insert(headers: &mut HeaderMap, standing: &Standing) {
    const NAMES: [HeaderName; 5] = [
        HeaderName::from_static("ratelimit-policy"),
        HeaderName::from_static("ratelimit"),
        HeaderName::from_static("x-ratelimit-limit"),
        HeaderName::from_static("x-ratelimit-remaining"),
        HeaderName::from_static("x-ratelimit-reset"),
    ];
    for (value, name) in values(standing).into_iter().zip(NAMES) {
        headers.insert(name, value);
    }
}

/// What is said under [`NAMES`].
fn values(standing: &Standing) -> [HeaderValue; 5] {
    let (capacity, remaining) = (standing.quota().capacity().get(), standing.remaining());
    [
        policy(b"\"default\";q=", capacity, b";w=", standing.window()),
        policy(b"\"default\";r=", remaining, b";t=", standing.reset()),
        HeaderValue::from(capacity),
        HeaderValue::from(remaining),
        HeaderValue::from(standing.full_after()),
    ]
}

fn policy(first: &[u8], count: u32, second: &[u8], seconds: u64) -> HeaderValue {
    let mut text = BytesMut::with_capacity(48);
    text.put_slice(first);
    put_number(count.into(), &mut text);
    text.put_slice(second);
    put_number(seconds, &mut text);
    HeaderValue::from_maybe_shared(Bytes::from(text)).expect("quotes, letters and digits are a header value")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Quota;
    use crate::limit::Bucket;

    fn headers(capacity: u64, rate: f64, takes: u32) -> Vec<String> {
        let quota = Quota::new(capacity, rate).unwrap();
        let mut bucket = Bucket::full(quota, 0);
        assert!((0..takes).all(|_| bucket.take(quota, 0)));
        let mut answer = ResponseHeader::build(200, None).unwrap();
        answer.append_header("ratelimit", "the backend's").unwrap();
        answer.append_header("X-RateLimit-Limit", "1").unwrap();
        let standing = Standing::new(bucket, quota, 0);
        write(&mut answer, &standing).unwrap();
        let all = |name: &str| answer.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
        let values: Vec<_> = NAMES.iter().map(|name| all(name).join("|")).collect();
        let mut lines = Vec::new();
        append(&mut lines, &standing);
        let expected: String = NAMES.iter().zip(&values).map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        assert_eq!(String::from_utf8(lines).unwrap(), expected);
        let mut map = HeaderMap::new();
        insert(&mut map, &standing);
        assert!(map.iter().all(|(name, value)| answer.headers[name] == *value) && map.len() == NAMES.len());
        values
    }

    #[test]
    fn they_say_how_the_bucket_stands() {
        let after_one = ["\"default\";q=100;w=10", "\"default\";r=99;t=10", "100", "99", "1"];
        assert_eq!(headers(100, 10.0, 1), after_one);
        assert_eq!(headers(5, 0.1, 5), ["\"default\";q=5;w=50", "\"default\";r=0;t=10", "5", "0", "50"]);
        let huge = ["\"default\";q=1000000000;w=1", "\"default\";r=1000000000;t=1", "1000000000", "1000000000", "0"];
        assert_eq!(headers(1_000_000_000, 1e9, 0), huge);
        // 15 digits are the most that a structured field has.
        let slow = headers(1_000_000_000, 1e-6, 0);
        assert_eq!(
            slow[..2],
            ["\"default\";q=1000000000;w=999999999999999", "\"default\";r=1000000000;t=999999999999999"]
        );
    }
}
