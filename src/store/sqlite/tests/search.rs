//! Searches while clients come, change and go.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::store::samples::{batch, delete, item, set};
use crate::store::{PageQuery, Profile};

fn noted(note: &str) -> Profile {
    Profile { note: note.to_owned(), ..profile(1, 1.0) }
}

/// The names that a search finds, and how many it says there are.
fn found(store: &Sqlite, search: &str) -> (Vec<String>, u64) {
    let page = store.page(&PageQuery { after: None, limit: 9, search: search.to_owned() }).unwrap();
    (page.items.iter().map(|record| record.id.to_string()).collect(), page.total)
}

/// A store with so many clients that a few changes do not have the text made anew.
fn large(path: &Path) -> Sqlite {
    let store = Sqlite::open(path).unwrap();
    let items = (0..500).map(|number| item(&format!("c-{number:03}"), noted("plain"))).collect();
    store.apply(batch(items, false)).wait_blocking().unwrap();
    assert_eq!(found(&store, "PLAIN").1, 500);
    store
}

#[test]
fn a_search_sees_every_write_that_was_answered() {
    let (_directory, path) = place();
    let (one, two) = (large(&path), Sqlite::open(&path).unwrap());
    for (step, store) in [&one, &two, &one, &two].into_iter().enumerate() {
        let name = format!("c-1{step}x");
        store.change(set(&name, noted("Special"))).wait_blocking().unwrap();
        for reader in [&one, &two] {
            assert_eq!(found(reader, "special"), (vec![name.clone()], 1));
        }
        store.change(set(&name, noted("plain"))).wait_blocking().unwrap();
        assert_eq!((found(&one, "special").1, found(&two, "plain").1), (0, 501));
        store.change(delete(&name)).wait_blocking().unwrap();
        assert_eq!((found(&one, &name).1, found(&two, "plain").1), (0, 500));
    }
}

#[test]
fn a_page_and_its_total_are_of_one_moment() {
    let (_directory, path) = place();
    let store = large(&path);
    let moved = |from: usize, to: usize| {
        let name = |number| format!("c-{number:03}");
        batch(vec![item(&name(from), noted("plain")), item(&name(to), noted("the only one"))], false)
    };
    store.apply(moved(0, 1)).wait_blocking().unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut last = None;
                while !done.load(Ordering::Relaxed) || last.is_none() {
                    let (names, total) = found(&store, "The Only");
                    assert_eq!((names.len(), total), (1, 1));
                    // It only goes on.
                    assert!(last.as_ref() <= names.first());
                    last = names.into_iter().next();
                }
            });
        }
        for step in 1..300 {
            store.apply(moved(step, step + 1)).wait_blocking().unwrap();
            assert_eq!(found(&store, "only").0, [format!("c-{:03}", step + 1)]);
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn what_the_history_forgot_is_not_found_any_more() {
    let (_directory, path) = place();
    let store = large(&path);
    store.change(set("gone", noted("of old"))).wait_blocking().unwrap();
    assert_eq!(found(&store, "of old").1, 1);
    // Nobody has looked when the entry goes.
    stranger(&path)
        .execute_batch(
            "BEGIN IMMEDIATE;
             DELETE FROM clients WHERE client_id IN ('gone', 'c-007');
             UPDATE meta SET value = value - 2 WHERE name = 'clients';
             INSERT INTO history SELECT max(sequence) + 9, 'c-007', 9, changed_at, actor, action, number, created_at,
                 NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM history;
             COMMIT",
        )
        .unwrap();
    assert_eq!((found(&store, "of old").1, found(&store, "plain").1), (0, 499));
}

#[test]
fn notes_too_long_to_be_kept_are_searched_too() {
    let (_directory, path) = place();
    let store = large(&path);
    let long = format!("{}Needle", "x".repeat(1_000));
    let items = (0..2_000).map(|number| item(&format!("c-{number:04}"), noted(&long))).collect();
    store.apply(batch(items, false)).wait_blocking().unwrap();
    assert!(2_000 * long.len() > super::super::search::LEAST.max(2_500 * super::super::search::SHARE));
    assert_eq!((found(&store, "needle").1, found(&store, "plain").1), (2_000, 500));
    store.change(set("c-500", noted("Other"))).wait_blocking().unwrap();
    assert_eq!(found(&store, "other"), (vec!["c-500".to_owned()], 1));
    let none = (0..2_000).map(|number| item(&format!("c-{number:04}"), noted(""))).collect();
    store.apply(batch(none, false)).wait_blocking().unwrap();
    assert_eq!((found(&store, "needle").1, found(&store, "other").1, found(&store, "c-0").1), (0, 1, 1_100));
}

#[test]
fn a_file_that_was_put_back_is_searched_as_it_is() {
    let (directory, path) = place();
    let store = large(&path);
    let other = directory.path().join("other.db");
    filled(&other, 3);
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(beside(&path, suffix));
    }
    std::fs::rename(&other, &path).unwrap();
    until("the other file is used", || store.fault().is_none() && found(&store, "user").1 == 3);
    assert_eq!(found(&store, "plain").1, 0);
}
