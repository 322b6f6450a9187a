//! What the history of a client says, and for how long.

use super::*;

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
