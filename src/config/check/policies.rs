//! The policies.

use std::collections::HashMap;
use std::num::{NonZeroU32, NonZeroUsize};

use http::HeaderName;

use super::lists::{sections, seen_at};
use crate::client::Quota;
use crate::config::report::Level;
use crate::config::shape::{MatchKeys, PolicyKeys};
use crate::config::value::{PolicyMode, ValueKind};
use crate::config::written::{List, Section, Written};
use crate::proxy::{PolicyCost, PolicyKey, PolicySettings};
use crate::route::RequestMatch;

/// The most buckets of a policy by default.
const MAX_BUCKETS: usize = 100_000;
/// The most policies there can be.
const MOST: usize = 10_000;

/// The policies of the section `rate_limit`, which is at `top`.
pub(super) fn of_file(top: &mut Level<'_>, key: Written<List<Section<PolicyKeys>, 0>>) -> Vec<PolicySettings> {
    let (mut policies, mut seen) = (Vec::new(), HashMap::new());
    let all = sections(top, "policies", key, false).unwrap_or_default();
    if all.len() > MOST {
        top.add("policies", format!("must be at most {MOST}, not {}", all.len()));
    }
    for (at, keys) in all {
        let Some(keys) = keys else { continue };
        let mut at = Level { report: top.report, at };
        let name = at.need("name", keys.name);
        if let Some(first) = name.clone().and_then(|name| seen_at(&mut seen, name, &at.at.key("name"))) {
            at.add("name", format!("must be the name of no other policy, but is that of {first}"));
        }
        let matches = matches(&mut at, keys.r#match);
        let payer = at.or("key", keys.key, PolicyKey::Client);
        let capacity = at.need("capacity", keys.capacity);
        let rate = at.need("rate_per_sec", keys.rate_per_sec);
        let cost = at.or("cost", keys.cost, PolicyCost::Tokens(NonZeroU32::MIN));
        if let (PolicyCost::Tokens(cost), Some(capacity)) = (&cost, capacity)
            && u64::from(cost.get()) > capacity
        {
            at.add(
                "cost",
                format!("must be at most the capacity {capacity}, or no request is ever let in, not {cost}"),
            );
        }
        let max_buckets = NonZeroUsize::new(MAX_BUCKETS).unwrap_or(NonZeroUsize::MIN);
        let max_buckets = at.or("max_buckets", keys.max_buckets, max_buckets);
        let shadow = at.or("mode", keys.mode, PolicyMode::Enforce) == PolicyMode::Shadow;
        let quota = capacity.zip(rate).and_then(|(capacity, rate)| Quota::from_parts(capacity, rate).ok());
        let (Some(name), Some(quota)) = (name, quota) else { continue };
        policies.push(PolicySettings { name, matches, key: payer, quota, cost, max_buckets, shadow });
    }
    policies
}

fn matches(policy: &mut Level<'_>, key: Written<Section<MatchKeys>>) -> RequestMatch {
    let (keys, mut at) = policy.section("match", key);
    let hosts = list(&mut at, "hosts", keys.hosts);
    let paths = list(&mut at, "paths", keys.paths);
    let methods = list(&mut at, "methods", keys.methods);
    let lines = at.take("headers", keys.headers).unwrap_or_default();
    let (mut at, mut headers, mut seen) = (at.below("headers"), Vec::new(), HashMap::new());
    for (spelt, value) in lines {
        let name = spelt.parse::<HeaderName>();
        match &name {
            Ok(name) => {
                if let Some(first) = seen_at(&mut seen, name.clone(), &at.at.key(&spelt)) {
                    at.add(&spelt, format!("must be asked for once, but is the same header as {first}"));
                }
            }
            Err(_) => at.add(&spelt, "must be the name of a header, such as X-Plan"),
        }
        if let (Ok(name), Some(value)) = (name, at.take(&spelt, value)) {
            headers.push((name, value));
        }
    }
    RequestMatch { hosts, paths, methods, headers }
}

fn list<T: ValueKind>(level: &mut Level<'_>, name: &str, key: Written<List<T, 0>>) -> Vec<T::Checked> {
    let at = level.at.key(name);
    let items = level.take(name, key).unwrap_or_default().into_iter().enumerate();
    items.filter_map(|(index, item)| level.report.take(&at.item(index), item)).collect()
}
