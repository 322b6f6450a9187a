//! The routes.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;

use super::header_rules;
use super::lists::{sections, seen_at};
use crate::config::report::Level;
use crate::config::shape::{RouteKeys, ShareKeys};
use crate::config::value::{PoolName, RoutePath};
use crate::config::written::{List, Section, Written};
use crate::route::{HostPattern, PathPrefix, Route, RuleSide};

/// The routes of the file, to the upstreams of these `names`; without names, where they lead is not checked.
pub(super) fn of_file(
    top: &mut Level<'_>,
    key: Written<List<Section<RouteKeys>, 0>>,
    names: Option<&[String]>,
) -> Vec<Route> {
    let is_none = matches!(&key, Written::Absent) || matches!(&key, Written::Given(list) if list.is_empty());
    if let (true, Some(names)) = (is_none, names) {
        if let [name] = names {
            return vec![Route::catch_all(name)];
        }
        top.add("routes", format!("is missing, must say which requests go to which upstream ({})", listed(names)));
    }
    let known: Option<HashSet<&String>> = names.map(|names| names.iter().collect());
    let (mut routes, mut seen) = (Vec::new(), HashMap::new());
    for (at, keys) in sections(top, "routes", key, false).into_iter().flatten() {
        let Some(keys) = keys else { continue };
        let mut at = Level { report: top.report, at };
        let comparable = match (&keys.host, &keys.path) {
            (Written::Absent, Written::Absent) => {
                at.report.add(&at.at, "must have a host or a path; path: / stands for every request");
                false
            }
            (host, path) => !matches!(host, Written::Wrong(_)) && !matches!(path, Written::Wrong(_)),
        };
        let host = at.or("host", keys.host, HostPattern::Any);
        let path = at.or("path", keys.path, PathPrefix::root());
        if comparable && let Some(first) = seen_at(&mut seen, (host.clone(), path.clone()), &at.at) {
            at.report
                .add(&at.at, format!("must have a host and path of its own, but {host} {path} are those of {first}"));
        }
        let max_body = at.take("max_body", keys.max_body);
        let read_timeout = at.take("read_timeout", keys.read_timeout);
        let strip_prefix = prefix(&mut at, keys.strip_prefix, comparable.then_some(&path));
        let limit = at.or("limit", keys.limit, true);
        let request_headers =
            header_rules::of_route(&mut at, "request_headers", keys.request_headers, RuleSide::Request);
        let response_headers =
            header_rules::of_route(&mut at, "response_headers", keys.response_headers, RuleSide::Answer);
        let is_known = |name: &String| match &known {
            Some(known) if !known.contains(name) => Err(unknown(names.unwrap_or_default(), name)),
            _ => Ok(()),
        };
        let Some((upstream, split)) = upstreams(&mut at, (keys.upstream, keys.upstreams), is_known) else { continue };
        routes.push(Route {
            host,
            path,
            upstream,
            split,
            max_body,
            read_timeout,
            strip_prefix,
            limit,
            request_headers,
            response_headers,
        });
    }
    routes
}

/// Where a route leads: to one upstream, or to several with their weights.
fn upstreams(
    at: &mut Level<'_>,
    (one, several): (Written<PoolName>, Written<List<Section<ShareKeys>>>),
    is_known: impl Fn(&String) -> Result<(), String>,
) -> Option<(String, Vec<(String, NonZeroU32)>)> {
    if matches!(several, Written::Absent) {
        let name = at.need("upstream", one)?;
        is_known(&name).unwrap_or_else(|wrong| at.add("upstream", wrong));
        return Some((name, Vec::new()));
    }
    if !matches!(one, Written::Absent) {
        at.add("upstream", "must not stand beside `upstreams`, which says where the requests go");
    }
    let (mut split, mut seen) = (Vec::new(), HashMap::new());
    for (item, keys) in sections(at, "upstreams", several, true)? {
        let Some(keys) = keys else { continue };
        let mut at = Level { report: at.report, at: item };
        let weight = at.or("weight", keys.weight, NonZeroU32::MIN);
        let Some(name) = at.need("name", keys.name) else { continue };
        is_known(&name).unwrap_or_else(|wrong| at.add("name", wrong));
        if let Some(first) = seen_at(&mut seen, name.clone(), &at.at) {
            at.add("name", format!("must be another upstream, but {name:?} is that of {first}"));
        }
        split.push((name, weight));
    }
    Some((split.first()?.0.clone(), split))
}

fn unknown(names: &[String], name: &str) -> String {
    format!("must be the name of an upstream ({}), not {name:?}", listed(names))
}

/// What backends do not get of the paths below it: of all paths of the route, whose `path` is below it if it is known, or
/// of those that are where the route is for every path.
fn prefix(at: &mut Level<'_>, key: Written<RoutePath>, path: Option<&PathPrefix>) -> Option<PathPrefix> {
    let prefix = at.take("strip_prefix", key)?;
    if let Some(path) = path.filter(|path| **path != PathPrefix::root() && !path.is_within(&prefix)) {
        let message =
            format!("must be the start of the route's path by whole segments, and {path} is not below {prefix}");
        at.add("strip_prefix", message);
    }
    Some(prefix)
}

/// The names, but not thousands of them.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 10;
    let rest = if names.len() > SHOWN { " and others" } else { "" };
    names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ") + rest
}
