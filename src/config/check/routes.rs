//! The routes.

use std::collections::{HashMap, HashSet};

use super::{sections, seen_at};
use crate::config::key::{Key, List, Section};
use crate::config::problem::{KeyPath, Report};
use crate::config::raw;
use crate::route::{HostPattern, PathPrefix, Route};

/// The routes of the file, to the upstreams of these `names`; without names, where they lead is not checked.
pub(super) fn of_file(
    report: &mut Report,
    at: &KeyPath,
    key: Key<List<Section<raw::Route>>>,
    names: Option<&[String]>,
) -> Vec<Route> {
    if let (Key::Absent, Some(names)) = (&key, names) {
        if let [name] = names {
            return vec![Route::catch_all(name)];
        }
        report.add(at, format!("is missing, must say which requests go to which upstream ({})", listed(names)));
    }
    let known: Option<HashSet<&String>> = names.map(|names| names.iter().collect());
    let (mut routes, mut seen) = (Vec::new(), HashMap::new());
    for (at, raw) in sections(report, at, key, false).into_iter().flatten() {
        let Some(raw) = raw else { continue };
        let comparable = match (&raw.host, &raw.path) {
            (Key::Absent, Key::Absent) => {
                report.add(&at, "must have a host or a path; path: / stands for every request");
                false
            }
            (host, path) => !matches!(host, Key::Wrong(_)) && !matches!(path, Key::Wrong(_)),
        };
        let host = report.take(&at.key("host"), raw.host).unwrap_or(HostPattern::Any);
        let path = report.take(&at.key("path"), raw.path).unwrap_or_else(PathPrefix::root);
        if comparable && let Some(first) = seen_at(&mut seen, (host.clone(), path.clone()), &at) {
            report.add(&at, format!("must have a host and path of its own, but {host} {path} are those of {first}"));
        }
        let max_body = report.take(&at.key("max_body"), raw.max_body);
        let read_timeout = report.take(&at.key("read_timeout"), raw.read_timeout);
        let Some(upstream) = report.need(&at.key("upstream"), raw.upstream) else { continue };
        if known.as_ref().is_some_and(|known| !known.contains(&upstream)) {
            let names = listed(names.unwrap_or_default());
            report.add(&at.key("upstream"), format!("must be the name of an upstream ({names}), not {upstream:?}"));
        }
        routes.push(Route { host, path, upstream, max_body, read_timeout });
    }
    routes
}

/// The names, but not thousands of them.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 10;
    let rest = if names.len() > SHOWN { " and others" } else { "" };
    names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ") + rest
}
