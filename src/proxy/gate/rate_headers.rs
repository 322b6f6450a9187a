//! What an answer says about its caller's bucket.
//!
//! `RateLimit-Policy` and `RateLimit` as draft-ietf-httpapi-ratelimit-headers-11 has them, and the older
//! `X-RateLimit-*` that most clients read. What the backend says under these names is replaced: it does not know the
//! bucket.

use http::HeaderName;

use crate::decimal::put_number;
use crate::limit::Standing;
use crate::proxy::gate::own_lines::{OwnLines, OwnName, OwnValue};

static POLICY: OwnName = OwnName::new("RateLimit-Policy: ", || HeaderName::from_static("ratelimit-policy"));
static STATE: OwnName = OwnName::new("RateLimit: ", || HeaderName::from_static("ratelimit"));
static LIMIT: OwnName = OwnName::new("X-RateLimit-Limit: ", || HeaderName::from_static("x-ratelimit-limit"));
static REMAINING: OwnName =
    OwnName::new("X-RateLimit-Remaining: ", || HeaderName::from_static("x-ratelimit-remaining"));
static RESET: OwnName = OwnName::new("X-RateLimit-Reset: ", || HeaderName::from_static("x-ratelimit-reset"));

/// The names of the headers.
pub(in crate::proxy) const NAMES: [&str; 5] =
    ["RateLimit-Policy", "RateLimit", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"];

/// Says into `lines` how the bucket stands.
#[inline]
pub(in crate::proxy) fn write(lines: &mut impl OwnLines, standing: &Standing) {
    let (capacity, remaining) = (u64::from(standing.quota().capacity().get()), u64::from(standing.remaining()));
    lines.line(&POLICY, Parameters("\"default\";q=", capacity, ";w=", standing.window()));
    lines.line(&STATE, Parameters("\"default\";r=", remaining, ";t=", standing.reset()));
    lines.line(&LIMIT, capacity);
    lines.line(&REMAINING, remaining);
    lines.line(&RESET, standing.full_after());
}

/// An item with two numbers for parameters.
struct Parameters(&'static str, u64, &'static str, u64);

impl OwnValue for Parameters {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0.as_bytes());
        put_number(self.1, out);
        out.extend_from_slice(self.2.as_bytes());
        put_number(self.3, out);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use pingora_http::ResponseHeader;

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
        write(&mut answer, &standing);
        let all = |name: &str| answer.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
        let values: Vec<_> = NAMES.iter().map(|name| all(name).join("|")).collect();
        let mut lines = Vec::new();
        write(&mut lines, &standing);
        let expected: String = NAMES.iter().zip(&values).map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        assert_eq!(String::from_utf8(lines).unwrap(), expected);
        let mut map = HeaderMap::new();
        write(&mut map, &standing);
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
