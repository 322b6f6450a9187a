//! What a caller is told of itself, when it asks.
//!
//! The problem: a client that wants to pace itself learns how it stands only by a request that costs a token, or takes
//! the work of a backend.
//!
//! The rule: `GET /.well-known/ratelimit` tells it, and takes nothing. Who it is, is found out as for any request; who
//! is blocked is refused so, too. Told are its own bucket and those of all policies that have one for its client or its
//! address, whichever of its requests pay into them; what it shares with others is not its standing, and of policies on
//! trial nobody is told. Whoever shows a key that no client has is let in as any request, or answered so: keys
//! could be guessed without end where that costs nothing. It has the numbers of the admin API, so that an operator and
//! a client talk of the same; while a fleet's store is away, what is left of this node's share, as requests are told it, beside
//! the whole limit.
//! Where nobody is let in meanwhile, nobody is told anything.

use serde::Serialize;

use crate::limit::{Charge, Decision, Nanos, Telling};
use crate::proxy::gate::admit::{Account, Gate};
use crate::proxy::gate::identify::Caller;
use crate::proxy::gate::policy_settings::OWN;

/// Where a caller asks.
pub(in crate::proxy) const PATH: &str = "/.well-known/ratelimit";

/// How a caller stands.
#[derive(Debug, Serialize)]
struct CallerStanding<'a> {
    /// The client; none when nobody knows the caller.
    client_id: Option<&'a str>,
    /// How it was recognised.
    identity: &'static str,
    /// What is done with its requests.
    mode: &'static str,
    /// The buckets that its requests pay into.
    policies: Vec<BucketStanding<'a>>,
}

/// How a bucket stands.
#[derive(Debug, Serialize)]
struct BucketStanding<'a> {
    /// As `RateLimit` calls it.
    name: &'a str,
    capacity: u32,
    rate_per_sec: f64,
    /// The tokens left, with their fraction, cut off after the third place.
    tokens: f64,
    /// The seconds after which a request is let in; 0 when it is now.
    retry_after: u64,
    /// The seconds until it is full.
    full_after: u64,
}

impl<'a> BucketStanding<'a> {
    fn new(name: &'a str, decision: &Decision, telling: Telling) -> Self {
        let standing = decision.standing();
        let quota = standing.quota();
        BucketStanding {
            name,
            capacity: quota.capacity().get(),
            rate_per_sec: quota.rate().to_f64(),
            // Cut off, not rounded: 0.9999 tokens are not one.
            tokens: (standing.tokens().to_f64() * 1000.0).floor() / 1000.0,
            retry_after: if decision.is_allowed() { 0 } else { telling.at_most(standing.retry_after()) },
            full_after: standing.full_after(),
        }
    }
}

impl Gate<'_> {
    /// What `caller` is told at `now`, as JSON; none when it cannot be told.
    pub(in crate::proxy) fn tell_standing(&self, caller: &Caller, telling: Telling, now: Nanos) -> Option<String> {
        let (mode, policies) = match self.account(caller) {
            Account::Blocked => ("blocked", Vec::new()),
            Account::None | Account::Unlimited => ("unlimited", Vec::new()),
            Account::Bucket(limiter, key, quota) => {
                let mut buckets = vec![(OWN, limiter.foresee(&[Charge::one(key, quota).into()], now)[0])];
                if let Some(policies) = self.policies {
                    let client = caller.client.as_ref().map(|(client, _)| &**client);
                    let who = (client, self.payer(caller.address));
                    buckets.extend(policies.standings((limiter, self.keys), who, now));
                }
                if buckets.iter().any(|(_, decision)| decision.is_undecided()) {
                    return None;
                }
                let told = buckets.iter().map(|(name, decision)| BucketStanding::new(name, decision, telling));
                ("limit", told.collect())
            }
        };
        let client_id = caller.client.as_ref().map(|(client, _)| client.id.as_str());
        let told = CallerStanding { client_id, identity: caller.identity(), mode, policies };
        Some(serde_json::to_string(&told).expect("it holds texts and finite numbers"))
    }
}
