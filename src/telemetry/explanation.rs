//! What an operator is told who asks how a caller is treated.

use std::fmt;
use std::net::IpAddr;

use crate::client::{ClientId, Mode, Quota};
use crate::limit::Standing;

/// Who a caller would be, and what it would get.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// How that was found out, step by step, in words. No keys.
    pub steps: Vec<String>,
    /// The trusted proxy whose `X-Forwarded-For` was believed, when the connection is from one.
    pub trusted_proxy: Option<IpAddr>,
    /// The address that counts as the caller's.
    pub client_ip: IpAddr,
    /// The header that an API key was read from, when there was one: its name, not its value.
    pub api_key_from: Option<String>,
    /// The client, when the caller is one.
    pub client_id: Option<ClientId>,
    /// The client's network that matched, when it was recognised by address.
    pub network: Option<String>,
    /// `api_key`, `certificate`, `address` or `anonymous`.
    pub identity: &'static str,
    /// The client's mode; none for an anonymous caller.
    pub mode: Option<Mode>,
    /// How its bucket stands; none when it has none.
    pub standing: Option<Standing>,
    /// What the limiter would say: `allowed`, `limited`, `blocked`, `unlimited`, or `unavailable` when it would say
    /// nothing; none when it would not be asked.
    pub decision: Option<&'static str>,
    /// What would refuse it: the name of a policy, `default` for its own bucket, or `max_concurrent`.
    pub limited_by: Option<String>,
    /// The policies that it meets.
    pub policies: Vec<ExplainedPolicy>,
    /// How many of its caller's requests may run at once, and how many do; none where there is no bound.
    pub at_once: Option<(u32, u32)>,
    /// The pool that its route leads to; none when it leads nowhere, or is not known. The first of several, or the one
    /// that its client stays with.
    pub upstream: Option<String>,
    /// All pools that its route leads to, each with its weight.
    pub upstreams: Vec<(String, u32)>,
    /// The status and message of the refusal; none when the request would go on to its route.
    pub refusal: Option<(u16, String)>,
    /// The rate headers and `Retry-After` that the answer would carry: their names and values.
    pub headers: Vec<(String, String)>,
}

/// A policy that a request meets.
#[derive(Clone, Debug, PartialEq)]
pub struct ExplainedPolicy {
    /// Its name.
    pub name: String,
    /// Whose bucket pays, as the configuration says it.
    pub key: String,
    /// The quota of that bucket.
    pub quota: Quota,
    /// The tokens that the request costs; none where its answer says that.
    pub cost: Option<u32>,
    /// The header in which its answer says what it costs, where it does.
    pub cost_header: Option<String>,
    /// Whether it is on trial, and refuses nothing.
    pub shadow: bool,
    /// How the bucket stands for that cost; none when the request lacks the header that the policy goes by, and pays
    /// nothing.
    pub standing: Option<Standing>,
    /// Whether there is enough for it, for this node to give.
    pub enough: bool,
}

impl fmt::Display for ExplainedPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ExplainedPolicy { name, key, quota, .. } = self;
        let on_trial = if self.shadow { ", on trial" } else { "" };
        write!(f, "policy {name}, by {key}{on_trial}: ")?;
        let Some(standing) = self.standing else {
            return f.write_str("the request lacks that header, and pays nothing");
        };
        // Cut off, not rounded: 0.9999 tokens are not one.
        let tokens = (standing.tokens().to_f64() * 1000.0).floor() / 1000.0;
        let shared = if standing.is_overflow() { ", shared with others for want of room" } else { "" };
        let (capacity, rate) = (quota.capacity(), quota.rate().to_f64());
        write!(f, "capacity {capacity}, {rate} tokens a second, {tokens} tokens now{shared}; ")?;
        match (self.cost, &self.cost_header) {
            (Some(cost), _) => write!(f, "the request costs {cost}")?,
            (None, header) => write!(f, "its answer says in {} what it costs", header.as_deref().unwrap_or_default())?,
        }
        match self.enough {
            true => Ok(()),
            false if standing.is_elsewhere() => f.write_str("; it is too small to divide, and another node gives it"),
            false => write!(f, ", for which {} s are missing", standing.retry_after()),
        }
    }
}
