//! Which of many rules a request meets, by its host, path, method and headers.
//!
//! The problem: a request may meet any number of a thousand rules, and one that meets none should pay for none.
//!
//! The rule: rules lie where requests find them. A request goes by the names that cover its host (itself, those it is
//! below, any), there by the prefixes of its path that any rule has, there by its method or any, and there by what it
//! says in the headers that rules there ask for: a hash or two for each of these, however many rules there are. What is
//! left to look at is the further headers of a rule that asks for several. A rule with several hosts, paths or methods
//! lies in several places, and is met once.
//!
//! Hosts and paths compare as those of [routes](super) do. Methods compare as they are, and a header with its
//! whole value: of several lines of one name any may be it.
//!
//! Refused: all rules in a row, which is fast with ten and a thousand times slower with ten thousand; a set of
//! expressions, which knows no headers.

use std::collections::HashMap;

use ahash::RandomState;
use http::HeaderName;

use super::{HostPattern, PathPrefix, host_name};

type HashTable<K, V> = HashMap<Box<K>, V, RandomState>;

/// What a rule asks of a request; of each what is not named counts for all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestMatch {
    /// The host is one of these.
    pub hosts: Vec<HostPattern>,
    /// The path is one of these or below it.
    pub paths: Vec<PathPrefix>,
    /// The method is one of these.
    pub methods: Vec<String>,
    /// All of these are said.
    pub headers: Vec<(HeaderName, String)>,
}

/// What of a request rules go by.
pub trait MatchedRequest {
    /// Its host, with its port when it names one.
    fn host(&self) -> &str;
    /// Its path, without a query.
    fn path(&self) -> &str;
    /// Its method.
    fn method(&self) -> &str;
    /// Gives `each` what it says under `name`, line by line.
    fn values(&self, name: &HeaderName, each: &mut dyn FnMut(&[u8]));
}

/// Rules, ready to be met. They are known by their numbers, from 0 on in their order.
#[derive(Debug, Default)]
pub struct MatchTable {
    exact: HashTable<str, PathPlaces>,
    below: HashTable<str, PathPlaces>,
    any: PathPlaces,
    /// What is left to look at, by rule: the second header and those behind it.
    further: Vec<Vec<(HeaderName, Box<[u8]>)>>,
}

/// What lies below one host.
#[derive(Debug, Default)]
struct PathPlaces {
    places: HashTable<str, MethodPlaces>,
    /// The lengths of these paths, a bit for each below 63, and that one for the others.
    lengths: u64,
    longest: usize,
}

/// What lies at one path.
#[derive(Debug, Default)]
struct MethodPlaces {
    any: HeaderPlaces,
    each: HashTable<str, HeaderPlaces>,
}

/// The numbers of rules by the value of a header.
type ByValue = HashTable<[u8], Vec<u32>>;

/// What lies at one method.
#[derive(Debug, Default)]
struct HeaderPlaces {
    /// The rules that ask for no header.
    plain: Vec<u32>,
    /// The others by what they ask for first.
    first: Vec<(HeaderName, ByValue)>,
}

impl MatchTable {
    /// A table of these rules.
    pub fn new<'r>(rules: impl IntoIterator<Item = &'r RequestMatch>) -> Self {
        let mut table = MatchTable::default();
        for (number, rule) in (0..).zip(rules) {
            let further = rule.headers.iter().skip(1);
            table.further.push(further.map(|(name, value)| (name.clone(), value.as_bytes().into())).collect());
            let hosts = if rule.hosts.is_empty() { &[HostPattern::Any][..] } else { &rule.hosts };
            for host in hosts {
                let paths = match host {
                    HostPattern::Any => &mut table.any,
                    HostPattern::Exact(name) => table.exact.entry(name.as_str().into()).or_default(),
                    HostPattern::Below(name) => table.below.entry(name.as_str().into()).or_default(),
                };
                paths.insert(rule, number);
            }
        }
        table
    }

    /// Gives `each` the numbers of the rules that `request` meets, in no order, and one maybe more than once.
    pub fn find(&self, request: &impl MatchedRequest, each: &mut impl FnMut(u32)) {
        let mut met = |number: u32| {
            if self.further[number as usize].iter().all(|(name, wanted)| says(request, name, wanted)) {
                each(number);
            }
        };
        if !(self.exact.is_empty() && self.below.is_empty()) {
            let name = host_name(request.host());
            self.exact.get(name.as_ref()).into_iter().for_each(|paths| paths.find(request, &mut met));
            if !self.below.is_empty() {
                let rest = |name: &&'_ str| -> usize { name.find('.').map_or(name.len(), |dot| dot + 1) };
                let mut name = name.as_ref();
                while !name.is_empty() {
                    name = &name[rest(&name)..];
                    self.below.get(name).into_iter().for_each(|paths| paths.find(request, &mut met));
                }
            }
        }
        self.any.find(request, &mut met);
    }
}

fn says(request: &impl MatchedRequest, name: &HeaderName, wanted: &[u8]) -> bool {
    let mut said = false;
    request.values(name, &mut |value| said |= value == wanted);
    said
}

/// The bit of paths of this length.
fn bit(length: usize) -> u64 {
    1 << length.min(63)
}

impl PathPlaces {
    fn insert(&mut self, rule: &RequestMatch, number: u32) {
        let root = [PathPrefix::root()];
        for path in if rule.paths.is_empty() { &root[..] } else { &rule.paths } {
            self.lengths |= bit(path.0.len());
            self.longest = self.longest.max(path.0.len());
            let methods = self.places.entry(path.0.as_str().into()).or_default();
            if rule.methods.is_empty() {
                methods.any.insert(rule, number);
            }
            for method in &rule.methods {
                methods.each.entry(method.as_str().into()).or_default().insert(rule, number);
            }
        }
    }

    #[inline]
    fn find(&self, request: &impl MatchedRequest, met: &mut impl FnMut(u32)) {
        let path = request.path();
        // None of these lengths: nearly always so where nothing is met.
        let most = path.len().min(self.longest);
        if self.lengths & (u64::MAX >> (63 - most.min(63))) != 0 {
            self.find_below(path, most, request, met);
        }
    }

    fn find_below(&self, path: &str, most: usize, request: &impl MatchedRequest, met: &mut impl FnMut(u32)) {
        let bytes = path.as_bytes();
        for end in (0..=most).rev().filter(|end| self.lengths & bit(*end) != 0) {
            let at_segment_end = end == 0 || end == bytes.len() || bytes[end] == b'/';
            if at_segment_end && let Some(methods) = path.get(..end).and_then(|prefix| self.places.get(prefix)) {
                methods.any.find(request, met);
                if !methods.each.is_empty() {
                    methods.each.get(request.method()).into_iter().for_each(|lines| lines.find(request, met));
                }
            }
        }
    }
}

impl HeaderPlaces {
    fn insert(&mut self, rule: &RequestMatch, number: u32) {
        let Some((name, value)) = rule.headers.first() else { return self.plain.push(number) };
        let at = self.first.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            self.first.push((name.clone(), HashTable::default()));
            self.first.len() - 1
        });
        self.first[at].1.entry(value.as_bytes().into()).or_default().push(number);
    }

    fn find(&self, request: &impl MatchedRequest, met: &mut impl FnMut(u32)) {
        self.plain.iter().for_each(|number| met(*number));
        for (name, values) in &self.first {
            request.values(name, &mut |value| {
                values.get(value).into_iter().flatten().for_each(|number| met(*number));
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    struct Asked {
        host: String,
        path: String,
        method: &'static str,
        headers: Vec<(&'static str, &'static str)>,
    }

    impl MatchedRequest for Asked {
        fn host(&self) -> &str {
            &self.host
        }

        fn path(&self) -> &str {
            &self.path
        }

        fn method(&self) -> &str {
            self.method
        }

        fn values(&self, name: &HeaderName, each: &mut dyn FnMut(&[u8])) {
            self.headers.iter().filter(|(known, _)| known == name).for_each(|(_, value)| each(value.as_bytes()));
        }
    }

    fn met(table: &MatchTable, asked: &Asked) -> BTreeSet<u32> {
        let mut met = BTreeSet::new();
        table.find(asked, &mut |number| {
            met.insert(number);
        });
        met
    }

    fn rules() -> impl Strategy<Value = RequestMatch> {
        let host = "(\\*\\.)?[ab]\\.[ab]".prop_map(|host| HostPattern::parse(&host).unwrap());
        let path = prop_oneof![4 => "(/[ab]{1,2}){0,3}", 1 => Just(format!("/{}", "a".repeat(70)))];
        let path = path.prop_map(|path| PathPrefix::parse(&format!("{path}/")).unwrap());
        let method = prop::sample::select(vec!["GET", "POST", "x"]).prop_map(str::to_owned);
        let header = prop::sample::select(vec![("x-a", "1"), ("x-a", "2"), ("x-b", "1")]);
        let header = header.prop_map(|(name, value)| (HeaderName::from_static(name), value.to_owned()));
        let some = 0..3;
        (
            prop::collection::vec(host, some.clone()),
            prop::collection::vec(path, some.clone()),
            prop::collection::vec(method, some.clone()),
            prop::collection::vec(header, some),
        )
            .prop_map(|(hosts, paths, methods, headers)| RequestMatch { hosts, paths, methods, headers })
    }

    fn is_met(rule: &RequestMatch, asked: &Asked) -> bool {
        let host = |pattern: &HostPattern| match pattern {
            HostPattern::Any => true,
            HostPattern::Below(name) => asked.host.ends_with(&format!(".{name}")),
            HostPattern::Exact(name) => *name == asked.host,
        };
        let path = |path: &PathPrefix| path.strip(asked.path.as_bytes()).is_some();
        let said = |(name, value): &(HeaderName, String)| {
            asked.headers.iter().any(|said| *said == (name.as_str(), value.as_str()))
        };
        (rule.hosts.is_empty() || rule.hosts.iter().any(host))
            && (rule.paths.is_empty() || rule.paths.iter().any(path))
            && (rule.methods.is_empty() || rule.methods.iter().any(|method| method == asked.method))
            && rule.headers.iter().all(said)
    }

    proptest! {
        /// The table agrees with the obvious way: look at every rule.
        #[test]
        fn agrees_with_looking_at_every_rule(
            rules in prop::collection::vec(rules(), 0..12),
            host in "[ab](\\.[ab]){0,3}",
            path in prop_oneof![4 => "(/[ab]{0,2}){1,4}", 1 => Just(format!("/{}/b", "a".repeat(70)))],
            method in prop::sample::select(vec!["GET", "POST", "DELETE"]),
            headers in prop::sample::subsequence(vec![("x-a", "1"), ("x-a", "2"), ("x-b", "1"), ("x-b", "3")], 0..=4),
        ) {
            let asked = Asked { host, path, method, headers };
            let slow: BTreeSet<u32> =
                (0..).zip(&rules).filter(|(_, rule)| is_met(rule, &asked)).map(|(number, _)| number).collect();
            prop_assert_eq!(met(&MatchTable::new(&rules), &asked), slow);
        }
    }
}
