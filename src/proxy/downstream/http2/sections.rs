//! How much of header sections lies here because a client of HTTP/2 does not take them.
//!
//! The problem: header sections have no window. What backends say in interim answers, in headers and in trailers is
//! kept by the h2 crate until the client reads it, and a client that reads nothing may have asked for a hundred answers
//! over one connection.
//!
//! The rule: those that are not small count, for each connection, until the client has taken all that h2 had for it.
//! While [`MOST`] of them wait, interim answers are dropped, and a stream on which more is to be sent is reset.
//!
//! Refused: to have such a stream wait. It would wait with its header section, which is what there is too much of.

use std::sync::atomic::{AtomicUsize, Ordering};

use http::HeaderMap;

/// What does not count, in bytes: as much of it as a connection may have streams is little.
const SMALL: usize = 2 << 10;
/// What may wait when more is sent, in bytes.
const MOST: usize = 2 << 20;
/// What a field costs beside its value, in bytes.
const FIELD: usize = 160;

/// What waits for the client of one connection. Any thread may use it at any time.
#[derive(Debug, Default)]
pub(in crate::proxy) struct UntakenSections(AtomicUsize);

impl UntakenSections {
    /// Counts a header section, which is to be sent; whether there is room for it.
    pub(in crate::proxy) fn add(&self, fields: &HeaderMap) -> bool {
        let cost = cost(fields);
        cost <= SMALL || self.count(cost)
    }

    /// The same for one of many that a stream may have.
    pub(in crate::proxy) fn add_interim(&self, fields: &HeaderMap) -> bool {
        self.count(cost(fields) + FIELD)
    }

    fn count(&self, cost: usize) -> bool {
        let add = |waiting: usize| (waiting < MOST).then(|| waiting.saturating_add(cost));
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }

    /// What waits now.
    pub(in crate::proxy) fn waiting(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// So much of what waited has been taken.
    pub(in crate::proxy) fn taken(&self, cost: usize) {
        self.0.fetch_sub(cost, Ordering::Relaxed);
    }
}

/// What a section costs while it waits.
fn cost(fields: &HeaderMap) -> usize {
    let values: usize = fields.values().map(|value| value.len()).sum();
    values + fields.len() * FIELD
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn fields(count: usize, value: usize) -> HeaderMap {
        let value = HeaderValue::from_str(&"x".repeat(value)).unwrap();
        (0..count).map(|number| (format!("x-{number}").parse().unwrap(), value.clone())).collect()
    }

    #[test]
    fn what_is_taken_meanwhile_counts_once() {
        let (sections, large) = (UntakenSections::default(), fields(10, 6_400));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| (0..20_000).for_each(|_| _ = sections.add(&large)));
            }
            for _ in 0..20_000 {
                let waiting = sections.waiting();
                assert!(waiting < MOST + 70_000, "{waiting}");
                sections.taken(waiting);
            }
        });
    }

    #[test]
    fn what_is_not_small_counts_until_it_is_taken() {
        let sections = UntakenSections::default();
        let (small, large) = (fields(5, 200), fields(10, 6_400));
        while sections.add(&large) {}
        let waiting = sections.waiting();
        assert!((MOST..MOST + 70_000).contains(&waiting), "{waiting}");
        assert!(sections.add(&small) && !sections.add_interim(&small) && !sections.add(&fields(100, 1)));
        assert_eq!(sections.waiting(), waiting, "what has no room does not count");
        sections.taken(waiting);
        assert!(sections.add_interim(&small) && sections.add(&large));
    }
}
