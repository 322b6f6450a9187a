//! What the history of a client says, and for how long.

use std::num::NonZeroU64;

use super::*;
use crate::clock::{Clock, SystemClock};

#[test]
fn the_history_says_who_when_and_what() {
    over_each(|store| {
        create(store, "user1", profile(1, 1.0)).unwrap();
        store.change(Change { rollback: true, ..set("user1", profile(2, 1.0)) }).wait_blocking().unwrap();
        let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(5_000_000_000_123_456_789);
        store.change(Change { by: "ops".to_owned(), at, ..delete("user1") }).wait_blocking().unwrap();
        let history = store.history(&client_id("user1"), None, 9).unwrap();
        let seen: Vec<_> = history.iter().map(|entry| (entry.version, entry.action, entry.by.as_str())).collect();
        assert_eq!(seen, [(3, Action::Delete, "ops"), (2, Action::Rollback, "test"), (1, Action::Create, "test")]);
        assert_eq!(history[0].at, SystemTime::UNIX_EPOCH + Duration::from_micros(5_000_000_000_123_456));
        let (one, two) = (Some(profile(1, 1.0)), Some(profile(2, 1.0)));
        let profiles: Vec<_> = history.iter().map(|entry| (entry.before.clone(), entry.after.clone())).collect();
        assert_eq!(profiles, [(two.clone(), None), (one.clone(), two), (None, one)]);
    });
}

#[test]
fn the_latest_changes_are_those_of_all_clients() {
    over_each(|store| {
        assert_eq!(store.latest_changes(9).unwrap(), []);
        let later = |seconds: u64, mut change: Change| {
            change.at += Duration::from_secs(seconds);
            store.change(change).wait_blocking().unwrap();
        };
        later(1, set("b", profile(1, 1.0)));
        later(2, set("a", profile(1, 1.0)));
        later(3, set("b", profile(2, 1.0)));
        later(4, delete("a"));
        let latest = |limit| store.latest_changes(limit).unwrap();
        let seen: Vec<_> = latest(9).iter().map(|(id, entry)| (id.to_string(), entry.version, entry.action)).collect();
        let expected =
            [("a", 2, Action::Delete), ("b", 2, Action::Update), ("a", 1, Action::Create), ("b", 1, Action::Create)];
        assert_eq!(seen, expected.map(|(id, version, action)| (id.to_owned(), version, action)));
        assert_eq!(latest(1)[0].1, store.history(&client_id("a"), None, 1).unwrap()[0]);
    });
}

#[test]
fn the_history_keeps_every_change_and_comes_in_pages() {
    over_each(|store| {
        for capacity in 1..=150 {
            let mut later = set("user1", profile(capacity, 1.0));
            later.at += Duration::from_secs(capacity * 3600);
            store.change(later).wait_blocking().unwrap();
        }
        create(store, "user2", profile(1, 1.0)).unwrap();
        let page = |name, before, limit| {
            let page = store.history(&client_id(name), before, limit).unwrap();
            page.iter().map(|entry| entry.version).collect::<Vec<_>>()
        };
        assert_eq!(page("user1", None, usize::MAX), (1..=150).rev().collect::<Vec<_>>());
        assert_eq!(page("user1", None, 2), [150, 149]);
        assert_eq!(page("user1", Some(149), 2), [148, 147]);
        assert_eq!((page("user1", Some(u64::MAX), 1), page("user1", Some(2), 9)), (vec![150], vec![1]));
        assert_eq!(
            (page("user1", Some(1), 9), page("user1", Some(0), 9), page("user1", None, 0)),
            (vec![], vec![], vec![])
        );
        assert_eq!(page("user2", None, 9), [1]);
    });
}

/// Until the background has come round.
fn in_the_end(mut holds: impl FnMut() -> bool) -> bool {
    let end = SystemClock.now() + Duration::from_secs(20);
    while !holds() {
        if SystemClock.now() > end {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    true
}

#[test]
fn what_is_beyond_the_bounds_is_forgotten_and_never_what_a_client_is() {
    over_each(|store| {
        let versions = |name| {
            let history = store.history(&client_id(name), None, usize::MAX).unwrap();
            history.iter().map(|entry| entry.version).collect::<Vec<_>>()
        };
        // The moments of all samples are years ago.
        for capacity in 1..=20 {
            store.change(set("user1", profile(capacity, 1.0))).wait_blocking().unwrap();
        }
        create(store, "old", profile(1, 1.0)).unwrap();
        create(store, "gone", profile(1, 1.0)).unwrap();
        store.change(delete("gone")).wait_blocking().unwrap();
        let lately = Change { at: SystemClock.wall() - Duration::from_secs(60), ..set("user2", profile(1, 1.0)) };
        store.change(lately).wait_blocking().unwrap();
        let rules = |keep| HistoryRules { keep: NonZeroU64::new(keep).unwrap(), age: Duration::MAX };
        store.keep_history(rules(3));
        assert!(in_the_end(|| versions("user1") == [20, 19, 18]), "{:?}", versions("user1"));
        assert_eq!((versions("old"), versions("gone"), versions("user2")), (vec![1], vec![2, 1], vec![1]));
        store.change(set("user1", profile(50, 1.0))).wait_blocking().unwrap();
        assert!(in_the_end(|| versions("user1") == [21, 20, 19]), "{:?}", versions("user1"));
        store.keep_history(HistoryRules { age: Duration::from_secs(24 * 60 * 60), ..rules(3) });
        assert!(in_the_end(|| versions("user1") == [21]), "{:?}", versions("user1"));
        assert!(in_the_end(|| versions("gone").is_empty()), "{:?}", versions("gone"));
        assert_eq!((versions("old"), versions("user2")), (vec![1], vec![1]));
        let again = store.change(set("user1", profile(60, 1.0))).wait_blocking().unwrap();
        assert_eq!(again.after.unwrap().version, 22, "versions count on");
    });
}
