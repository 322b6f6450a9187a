//! What an answer says about the buckets that its request pays into: its caller's own, and those of policies.
//!
//! `RateLimit-Policy` and `RateLimit` as draft-ietf-httpapi-ratelimit-headers-11 has them, and the older
//! `X-RateLimit-*` that most clients read. What the backend says under these names is replaced: it does not know the
//! bucket. The older ones know one bucket: the one that refused, or else lets the fewest requests in.
//!
//! `X-RateLimit-Reset` has no standard. Where it is a time (GitHub's), clients subtract their own from it; where it is
//! seconds, they take it as it is, and those that expect a time find one in 1970 and come back at once. So a time is
//! the default: clients that expect seconds mostly read `Retry-After` before it. On a refusal it says what
//! `Retry-After` says, for clients that read it alone; else when the bucket is full.

use std::time::SystemTime;

use http::HeaderName;

use crate::decimal::put_number;
use crate::limit::{ResetHeader, Standing, Telling};
use crate::proxy::gate::own_lines::{OwnLines, OwnName, OwnValue};
use crate::proxy::gate::policies::PaidPolicies;
use crate::proxy::gate::policy_settings::{OWN, put_terms};

static POLICY: OwnName = OwnName::new("RateLimit-Policy: ", || HeaderName::from_static("ratelimit-policy"));
static STATE: OwnName = OwnName::new("RateLimit: ", || HeaderName::from_static("ratelimit"));
static LIMIT: OwnName = OwnName::new("X-RateLimit-Limit: ", || HeaderName::from_static("x-ratelimit-limit"));
static REMAINING: OwnName =
    OwnName::new("X-RateLimit-Remaining: ", || HeaderName::from_static("x-ratelimit-remaining"));
static RESET: OwnName = OwnName::new("X-RateLimit-Reset: ", || HeaderName::from_static("x-ratelimit-reset"));

/// The names of the headers.
pub(in crate::proxy) const NAMES: [&str; 5] =
    ["RateLimit-Policy", "RateLimit", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"];

/// How the buckets stand that a request pays into.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Standings<'a> {
    /// Its caller's own.
    pub(in crate::proxy) own: &'a Standing,
    /// Those of policies.
    pub(in crate::proxy) paid: Option<&'a PaidPolicies>,
    /// Whether one of them has refused it.
    pub(in crate::proxy) refused: bool,
    /// What is told of time.
    pub(in crate::proxy) telling: Telling,
    /// When they stood so.
    pub(in crate::proxy) at: SystemTime,
}

impl<'a> From<&'a Standing> for Standings<'a> {
    /// Of a request that pays into its caller's own bucket and was let in.
    fn from(own: &'a Standing) -> Self {
        Standings { own, paid: None, refused: false, telling: Telling::default(), at: SystemTime::UNIX_EPOCH }
    }
}

impl<'a> Standings<'a> {
    /// The bucket that has refused the request, and waits longest of those; with its name.
    pub(in crate::proxy) fn refused_by(&self) -> Option<(&'a str, &'a Standing)> {
        if !self.refused {
            return None;
        }
        let own = Some((OWN, self.own)).filter(|(_, own)| !own.is_enough());
        let policy = self.paid.and_then(PaidPolicies::refused);
        // An own one that is the same is told.
        match (own, policy) {
            (Some(own), Some(policy)) if policy.1.retry_at() > own.1.retry_at() => Some(policy),
            (own, policy) => own.or(policy),
        }
    }

    /// For `Retry-After`, when the request was refused: the longest of those who refused it.
    pub(in crate::proxy) fn retry_after(&self) -> u64 {
        self.telling.at_most(self.refused_by().map_or(self.own, |(_, standing)| standing).retry_after())
    }

    /// The names of those that have refused it.
    pub(in crate::proxy) fn refusing(&self) -> impl Iterator<Item = &'a str> {
        let own = (self.refused && !self.own.is_enough()).then_some(OWN);
        own.into_iter().chain(self.paid.into_iter().flat_map(PaidPolicies::refusing))
    }

    /// Each with its name, the caller's own first.
    fn all(&self) -> impl Iterator<Item = (&'a str, &'a Standing)> + Clone {
        let policies = self.paid.into_iter().flat_map(PaidPolicies::enforced);
        std::iter::once((OWN, self.own)).chain(policies)
    }

    /// The one that the older headers are about: that which has refused, or else lets the fewest more requests in.
    fn tightest(&self) -> &'a Standing {
        let fewest = || self.all().map(|(_, standing)| standing).min_by_key(|standing| standing.affordable());
        self.refused_by().map(|(_, standing)| standing).or_else(fewest).unwrap_or(self.own)
    }
}

/// Says into `lines` how the buckets stand.
#[inline]
pub(in crate::proxy) fn write(lines: &mut impl OwnLines, standings: Standings<'_>) {
    let (standing, remaining) = match standings.paid {
        None => {
            let own = standings.own;
            let capacity = u64::from(own.quota().capacity().get());
            let (remaining, reset) = own.remaining_and_reset();
            let next = if standings.refused { standings.retry_after() } else { standings.telling.at_most(reset) };
            lines.line(&POLICY, Parameters("\"default\";q=", capacity, ";w=", own.window()));
            lines.line(&STATE, Parameters("\"default\";r=", remaining.into(), ";t=", next));
            (own, remaining)
        }
        Some(_) => {
            lines.line(&POLICY, PolicyList(standings));
            lines.line(&STATE, StateList(standings));
            let tightest = standings.tightest();
            (tightest, tightest.remaining())
        }
    };
    lines.line(&LIMIT, u64::from(standing.quota().capacity().get()));
    lines.line(&REMAINING, u64::from(remaining));
    let reset = if standings.refused { standings.retry_after() } else { standing.full_after() };
    match standings.telling.reset {
        ResetHeader::Epoch => lines.line(&RESET, epoch(standings.at, reset)),
        ResetHeader::Seconds => lines.line(&RESET, reset),
        ResetHeader::Off => {}
    }
}

/// The moment so many seconds after that time, in seconds since the Unix epoch. Rounded up, so that nobody comes too
/// early who waits for it.
fn epoch(at: SystemTime, seconds: u64) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_secs() + u64::from(since.subsec_nanos() > 0) + seconds
}

/// What all of them allow, as a list.
struct PolicyList<'a>(Standings<'a>);

impl OwnValue for PolicyList<'_> {
    fn put(&self, out: &mut Vec<u8>) {
        put_terms(OWN, self.0.own, out);
        self.0.paid.into_iter().for_each(|paid| paid.put_terms(out));
    }
}

/// How all of them stand, as a list. On a refusal none says less than `Retry-After`: some clients read the first one
/// alone, and obey it before anything else. Those that refused say that, though they may have tokens left, fewer than
/// the request costs.
struct StateList<'a>(Standings<'a>);

impl OwnValue for StateList<'_> {
    fn put(&self, out: &mut Vec<u8>) {
        let least = if self.0.refused { self.0.retry_after() } else { 1 };
        for (index, (name, standing)) in self.0.all().enumerate() {
            let refused = self.0.refused && !standing.is_enough();
            let (remaining, reset) = standing.remaining_and_reset();
            let next = if refused { least } else { self.0.telling.at_most(reset.max(least)) };
            // A name has no character that a string would have to escape.
            out.extend_from_slice(if index == 0 { b"\"" } else { b", \"" });
            out.extend_from_slice(name.as_bytes());
            Parameters("\";r=", remaining.into(), ";t=", next).put(out);
        }
    }
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
    use std::num::NonZeroU64;
    use std::time::Duration;

    use http::HeaderMap;
    use pingora_http::ResponseHeader;

    use super::*;
    use crate::client::Quota;
    use crate::limit::Bucket;

    fn standings(own: &Standing, refused: bool, telling: Telling) -> Standings<'_> {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_001);
        Standings { refused, telling, at, ..own.into() }
    }

    fn headers(capacity: u64, rate: f64, takes: u32) -> Vec<String> {
        let quota = Quota::new(capacity, rate).unwrap();
        let mut bucket = Bucket::full(quota, 0);
        assert!((0..takes).all(|_| bucket.take(quota, 0)));
        let mut answer = ResponseHeader::build(200, None).unwrap();
        answer.append_header("ratelimit", "the backend's").unwrap();
        answer.append_header("X-RateLimit-Limit", "1").unwrap();
        let standing = Standing::new(bucket, quota, 0);
        let told = standings(&standing, false, Telling { reset: ResetHeader::Seconds, ..Telling::default() });
        write(&mut answer, told);
        let all = |name: &str| answer.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
        let values: Vec<_> = NAMES.iter().map(|name| all(name).join("|")).collect();
        let mut lines = Vec::new();
        write(&mut lines, told);
        let expected: String = NAMES.iter().zip(&values).map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        assert_eq!(String::from_utf8(lines).unwrap(), expected);
        let mut map = HeaderMap::new();
        write(&mut map, told);
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

    #[test]
    fn the_reset_is_a_time_or_seconds_or_none_and_waits_are_capped() {
        let quota = Quota::new(5, 0.1).unwrap();
        let mut bucket = Bucket::full(quota, 0);
        let told = |bucket, refused, reset, longest| {
            let telling = Telling { reset, longest: NonZeroU64::new(longest) };
            let (standing, mut lines) = (Standing::new(bucket, quota, 0), Vec::new());
            write(&mut lines, standings(&standing, refused, telling));
            let text = String::from_utf8(lines).unwrap();
            let value = |name: &str| text.lines().find_map(|line| Some(line.strip_prefix(name)?.to_owned()));
            (value("RateLimit: ").unwrap(), value("X-RateLimit-Reset: "))
        };
        let of = |state: &str, reset: &str| (state.to_owned(), Some(reset.to_owned()));
        assert!(bucket.take(quota, 0));
        // Ten seconds until it is full; the second has begun.
        assert_eq!(told(bucket, false, ResetHeader::Epoch, 0), of("\"default\";r=4;t=40", "1700000011"));
        assert_eq!(told(bucket, false, ResetHeader::Seconds, 0), of("\"default\";r=4;t=40", "10"));
        assert_eq!(told(bucket, false, ResetHeader::Off, 0).1, None);
        assert_eq!(told(bucket, false, ResetHeader::Epoch, 2), of("\"default\";r=4;t=2", "1700000011"));
        assert!((0..4).all(|_| bucket.take(quota, 0)));
        assert_eq!(told(bucket, true, ResetHeader::Epoch, 0), of("\"default\";r=0;t=10", "1700000011"));
        assert_eq!(told(bucket, true, ResetHeader::Seconds, 0), of("\"default\";r=0;t=10", "10"));
        assert_eq!(told(bucket, true, ResetHeader::Epoch, 2), of("\"default\";r=0;t=2", "1700000003"));
        assert_eq!(told(bucket, true, ResetHeader::Seconds, 2), of("\"default\";r=0;t=2", "2"));
    }
}
