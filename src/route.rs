//! Host and path to pool name.
//!
//! A route names a host (exact, `*.example.com`, or none), a path prefix of whole segments, and a pool. Of all routes
//! that match a request the one with the longest path wins; among equal paths an exact host wins over a wildcard, a
//! longer wildcard over a shorter one, and any host over none. `/v1` matches `/v1`, `/v1/` and `/v1/users`, not `/v10`.
//!
//! Hosts compare without regard to case, port or a final dot. Paths compare byte for byte, as they were sent: percent
//! escapes and dot segments are left to the backend, because a proxy that resolves them differently from its backend
//! lets requests around its own rules.
//!
//! Lookups cost one hash for each label of the host times one for each segment of the path, however many routes there
//! are. Prefixes longer than the longest route are never hashed, so a path of ten thousand slashes costs nothing extra.
//! A linear list sorted by length was refused for its cost at 100,000 routes, a radix tree for its size in code.

mod header_rules;
mod matches;

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

pub use header_rules::{HeaderEdit, HeaderLine, HeaderRules, RuleError, RuleSide, RuleValues, RuleVerb, may};
pub use matches::{MatchTable, MatchedRequest, RequestMatch};

/// One rule: which requests go to which pool.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Which hosts it is for.
    pub host: HostPattern,
    /// Which paths it is for.
    pub path: PathPrefix,
    /// The name of the pool that serves them; of the first where there are several.
    pub upstream: String,
    /// The names of several pools that serve them, each with its weight; empty where there is one.
    pub split: Vec<(String, NonZeroU32)>,
    /// The largest body that they may have, in bytes; `None` is what holds for every request.
    pub max_body: Option<u64>,
    /// For each read from their backend; `None` is what holds for its pool.
    pub read_timeout: Option<Duration>,
    /// What backends do not get of their paths; `path` is this or below it.
    pub strip_prefix: Option<PathPrefix>,
    /// Whether they pay into a bucket.
    pub limit: bool,
    /// What is changed of their headers.
    pub request_headers: HeaderRules,
    /// What is changed of the headers of backends' answers.
    pub response_headers: HeaderRules,
}

impl Route {
    /// A route for every host and every path.
    pub fn catch_all(upstream: impl Into<String>) -> Self {
        Route {
            host: HostPattern::Any,
            path: PathPrefix::root(),
            upstream: upstream.into(),
            split: Vec::new(),
            max_body: None,
            read_timeout: None,
            strip_prefix: None,
            limit: true,
            request_headers: HeaderRules::default(),
            response_headers: HeaderRules::default(),
        }
    }
}

/// Why a host pattern or a path prefix was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// The host is neither a name nor `*.` and a name.
    #[error("must be a host name such as api.example.com, or *.example.com for all names below it, without a port")]
    Host,
    /// The path is not an absolute path.
    #[error("must be a path that starts with /, without spaces, ? or #")]
    Path,
}

/// Which hosts a route is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Every host, and requests without one.
    Any,
    /// This name, in lower case.
    Exact(String),
    /// Every name below this one, in lower case: `*.example.com` is kept as `example.com` and matches
    /// `a.example.com` and `a.b.example.com`, not `example.com`.
    Below(String),
}

impl HostPattern {
    /// Reads `api.example.com`, `192.0.2.1`, `[::1]` or `*.example.com`.
    ///
    /// # Errors
    /// [`RouteError::Host`] for everything else.
    pub fn parse(text: &str) -> Result<Self, RouteError> {
        let (below, name) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        if !(is_host_name(&name) || (!below && is_ipv6_literal(&name))) {
            return Err(RouteError::Host);
        }
        Ok(if below { HostPattern::Below(name) } else { HostPattern::Exact(name) })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Any => f.write_str("*"),
            HostPattern::Exact(name) => f.write_str(name),
            HostPattern::Below(name) => write!(f, "*.{name}"),
        }
    }
}

fn is_host_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| {
            !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

fn is_ipv6_literal(name: &str) -> bool {
    name.strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())
}

/// Which paths a route is for, kept without its final slashes; the root is empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathPrefix(String);

impl PathPrefix {
    /// The prefix of every path.
    pub fn root() -> Self {
        PathPrefix(String::new())
    }

    /// Reads `/`, `/v1` or `/v1/`; the last two are the same.
    ///
    /// # Errors
    /// [`RouteError::Path`] when it does not start with a slash or holds what no path holds.
    pub fn parse(text: &str) -> Result<Self, RouteError> {
        let clean = text.bytes().all(|b| b.is_ascii_graphic() && b != b'?' && b != b'#');
        if !text.starts_with('/') || !clean {
            return Err(RouteError::Path);
        }
        Ok(PathPrefix(text.trim_end_matches('/').to_owned()))
    }

    /// Whether every path of this prefix is also one of `other`.
    pub fn is_within(&self, other: &PathPrefix) -> bool {
        other.strip(self.0.as_bytes()).is_some()
    }

    /// What follows this prefix in `target`, which may go on behind its path; none when it is not one of this prefix.
    pub fn strip<'t>(&self, target: &'t [u8]) -> Option<&'t [u8]> {
        let rest = target.strip_prefix(self.0.as_bytes())?;
        matches!(rest.first(), None | Some(b'/' | b'?' | b' ')).then_some(rest)
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "/" } else { &self.0 })
    }
}

/// All routes, ready to be asked; `T` is what a pool's name was turned into.
#[derive(Debug)]
pub struct RouteTable<T> {
    exact: HashMap<String, PathMap<T>>,
    below: HashMap<String, PathMap<T>>,
    any: PathMap<T>,
}

impl<T> RouteTable<T> {
    /// A table of `routes`; of two with the same host and path the first counts.
    pub fn new(routes: impl IntoIterator<Item = (HostPattern, PathPrefix, T)>) -> Self {
        let mut table = RouteTable { exact: HashMap::new(), below: HashMap::new(), any: PathMap::default() };
        for (host, path, target) in routes {
            let paths = match host {
                HostPattern::Any => &mut table.any,
                HostPattern::Exact(name) => table.exact.entry(name).or_default(),
                HostPattern::Below(name) => table.below.entry(name).or_default(),
            };
            paths.insert(path, target);
        }
        table
    }

    /// The target for a request's `Host` (empty when it has none; a port is ignored) and path (no query).
    pub fn find(&self, host: &str, path: &str) -> Option<&T> {
        // From the most to the least specific host, so that among equal paths the first one wins.
        let mut best = None;
        if !(self.exact.is_empty() && self.below.is_empty()) {
            let name = host_name(host);
            let parents = std::iter::successors(Some(name.as_ref()), |rest| rest.split_once('.').map(|(_, rest)| rest));
            best = longer(best, self.exact.get(name.as_ref()), path);
            for parent in parents.skip(1).filter(|_| !self.below.is_empty()) {
                best = longer(best, self.below.get(parent), path);
            }
        }
        longer(best, Some(&self.any), path).map(|(_, target)| target)
    }
}

/// Of `best` and what `paths` has for `path`, the one whose prefix is longer; `best` when they are equal.
fn longer<'a, T>(best: Option<(usize, &'a T)>, paths: Option<&'a PathMap<T>>, path: &str) -> Option<(usize, &'a T)> {
    match (best, paths.and_then(|paths| paths.longest(path))) {
        (Some(best), Some(found)) if best.0 >= found.0 => Some(best),
        (best, found) => found.or(best),
    }
}

/// The name in a `Host` header: without port and final dot, in lower case.
fn host_name(host: &str) -> std::borrow::Cow<'_, str> {
    let name = match host.rsplit_once(':') {
        // A colon inside brackets belongs to an IPv6 address.
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|b| b.is_ascii_uppercase()) { name.to_ascii_lowercase().into() } else { name.into() }
}

/// The paths of one host.
#[derive(Debug)]
struct PathMap<T> {
    targets: HashMap<String, T>,
    longest: usize,
}

impl<T> Default for PathMap<T> {
    fn default() -> Self {
        PathMap { targets: HashMap::new(), longest: 0 }
    }
}

impl<T> PathMap<T> {
    fn insert(&mut self, path: PathPrefix, target: T) {
        self.longest = self.longest.max(path.0.len());
        self.targets.entry(path.0).or_insert(target);
    }

    /// The longest prefix of `path` that ends at a segment's end, with its length.
    fn longest(&self, path: &str) -> Option<(usize, &T)> {
        let bytes = path.as_bytes();
        let mut end = bytes.len().min(self.longest);
        loop {
            let at_segment_end = end == 0 || end == bytes.len() || bytes[end] == b'/';
            if at_segment_end && let Some(target) = path.get(..end).and_then(|prefix| self.targets.get(prefix)) {
                return Some((end, target));
            }
            end = end.checked_sub(1)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(routes: &[(&str, &str, &'static str)]) -> RouteTable<&'static str> {
        RouteTable::new(routes.iter().map(|&(host, path, target)| {
            let host = if host.is_empty() { HostPattern::Any } else { HostPattern::parse(host).unwrap() };
            (host, PathPrefix::parse(path).unwrap(), target)
        }))
    }

    #[test]
    fn the_longest_path_wins_and_segments_stay_whole() {
        let table = table(&[("", "/", "root"), ("", "/v1", "v1"), ("", "/v1/users/", "users")]);
        for (path, target) in [
            ("/", "root"),
            ("/v1", "v1"),
            ("/v1/", "v1"),
            ("/v10", "root"),
            ("/v1/user", "v1"),
            ("/v1/users", "users"),
            ("/v1/users/7", "users"),
            ("/v1/usersx", "v1"),
            ("*", "root"),
            ("", "root"),
        ] {
            assert_eq!(table.find("any.host", path), Some(&target), "{path}");
        }
    }

    #[test]
    fn among_equal_paths_the_closer_host_wins() {
        let table = table(&[
            ("", "/", "any"),
            ("*.example.com", "/", "below"),
            ("*.eu.example.com", "/", "below eu"),
            ("API.example.com", "/", "api"),
            ("", "/static", "static"),
        ]);
        for (host, path, target) in [
            ("api.example.com", "/", "api"),
            ("Api.Example.COM:8443", "/", "api"),
            ("api.example.com.", "/", "api"),
            ("a.example.com", "/", "below"),
            ("a.b.example.com", "/", "below"),
            ("a.eu.example.com", "/", "below eu"),
            ("example.com", "/", "any"),
            ("badexample.com", "/", "any"),
            ("", "/", "any"),
            ("api.example.com", "/static/x", "static"),
            ("[::1]:80", "/", "any"),
        ] {
            assert_eq!(table.find(host, path), Some(&target), "{host}{path}");
        }
    }

    #[test]
    fn nothing_matches_when_no_route_does() {
        let table = table(&[("api.example.com", "/v1", "api")]);
        assert_eq!(table.find("api.example.com", "/"), None);
        assert_eq!(table.find("other.example.com", "/v1"), None);
        assert_eq!(table.find("[::1]", "/v1"), None);
    }

    #[test]
    fn wrong_hosts_and_paths_are_refused() {
        for host in ["", "*", "*.", "a..b", "a b", "http://a", "a:80", "*.*.a", "a.*", "*.[::1]", "[::1"] {
            assert_eq!(HostPattern::parse(host), Err(RouteError::Host), "{host}");
        }
        for path in ["", "v1", "/a b", "/a?b", "/a#b", "/ä"] {
            assert_eq!(PathPrefix::parse(path), Err(RouteError::Path), "{path}");
        }
        assert_eq!(HostPattern::parse("[::1]"), Ok(HostPattern::Exact("[::1]".into())));
    }

    proptest! {
        /// The table agrees with the obvious way: look at every route, take the longest.
        #[test]
        fn agrees_with_a_linear_search(
            routes in prop::collection::vec(("(\\*\\.)?[ab]\\.[ab]|", "(/[ab]{1,2}){0,3}"), 0..12),
            host in "[ab](\\.[ab]){0,3}",
            path in "(/[ab]{0,2}){1,4}",
        ) {
            let routes: Vec<_> = routes
                .iter()
                .enumerate()
                .map(|(index, (host, path))| {
                    let host = if host.is_empty() { HostPattern::Any } else { HostPattern::parse(host).unwrap() };
                    (host, PathPrefix::parse(&format!("{path}/")).unwrap(), index)
                })
                .collect();
            let rank = |host_pattern: &HostPattern| match host_pattern {
                HostPattern::Any => Some(0),
                HostPattern::Below(name) => host.ends_with(&format!(".{name}")).then_some(name.len()),
                HostPattern::Exact(name) => (*name == host).then_some(usize::MAX),
            };
            let slow = routes
                .iter()
                .filter(|(_, prefix, _)| path == prefix.0 || path.starts_with(&format!("{}/", prefix.0)))
                .filter_map(|(pattern, prefix, index)| {
                    Some((prefix.0.len(), rank(pattern)?, std::cmp::Reverse(*index)))
                })
                .max()
                .map(|(_, _, std::cmp::Reverse(index))| index);
            prop_assert_eq!(RouteTable::new(routes).find(&host, &path).copied(), slow);
        }
    }
}
