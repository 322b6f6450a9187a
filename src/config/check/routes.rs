//! The routes.

use std::collections::{HashMap, HashSet};

use super::header_rules;
use super::lists::{sections, seen_at};
use crate::config::report::Level;
use crate::config::shape::RouteKeys;
use crate::config::value::RoutePath;
use crate::config::written::{List, Section, Written};
use crate::route::{HostPattern, PathPrefix, Route, RuleSide};

/// The routes of the file, to the upstreams of these `names`; without names, where they lead is not checked.
pub(super) fn of_file(
    top: &mut Level<'_>,
    key: Written<List<Section<RouteKeys>>>,
    names: Option<&[String]>,
) -> Vec<Route> {
    if let (Written::Absent, Some(names)) = (&key, names) {
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
        let Some(upstream) = at.need("upstream", keys.upstream) else { continue };
        if known.as_ref().is_some_and(|known| !known.contains(&upstream)) {
            let names = listed(names.unwrap_or_default());
            at.add("upstream", format!("must be the name of an upstream ({names}), not {upstream:?}"));
        }
        routes.push(Route {
            host,
            path,
            upstream,
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

/// What backends do not get of the paths below `path`, if it is known.
fn prefix(at: &mut Level<'_>, key: Written<RoutePath>, path: Option<&PathPrefix>) -> Option<PathPrefix> {
    let prefix = at.take("strip_prefix", key)?;
    if let Some(path) = path.filter(|path| !path.is_within(&prefix)) {
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
