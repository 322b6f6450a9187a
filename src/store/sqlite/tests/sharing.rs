//! Two processes with the same file, as during an upgrade. Here they are two stores in one process.

use super::super::announce;
use super::*;
use crate::store::Batch;
use crate::store::samples::{batch, client_id, delete, id_of, item, names, set};

#[test]
fn changes_by_either_are_seen_by_both_within_a_second() {
    let (_directory, path) = place();
    let (one, two) = (Sqlite::open(&path).unwrap(), Sqlite::open(&path).unwrap());
    let (told_one, told_two) = (followed(&one), followed(&two));
    let made = create(&one, "a", profile(1, 1.0)).unwrap();
    let changed = one.change(set("a", profile(2, 1.0))).wait_blocking().unwrap();
    let started = SystemClock.now();
    until("the other one is told", || told_two.lock().len() == 2);
    assert!(started.elapsed() < Duration::from_secs(1));
    assert_eq!(*told_two.lock(), [made.clone(), changed.clone()]);
    let deleted = two.change(delete("a")).wait_blocking().unwrap();
    let batch = two.apply(batch(vec![item("b", profile(1, 1.0)), item("c", profile(1, 1.0))], false));
    let batch = batch.wait_blocking().unwrap();
    until("the first one is told", || told_one.lock().len() == 5);
    assert_eq!(one.get(&client_id("c")).unwrap(), batch.changes[1].after);
    let all = [vec![made, changed, deleted], batch.changes].concat();
    assert_eq!((&*told_one.lock(), &*told_two.lock()), (&all, &all));
}

#[test]
fn each_change_is_told_once_and_in_order_while_both_write() {
    let (_directory, path) = place();
    let stores = [Sqlite::open(&path).unwrap(), Sqlite::open(&path).unwrap()];
    let told = [followed(&stores[0]), followed(&stores[1])];
    std::thread::scope(|scope| {
        for writer in 0..8_usize {
            let store = &stores[writer % 2];
            scope.spawn(move || {
                for step in 0..50_u64 {
                    store.change(set("shared", profile(writer as u64 * 100 + step + 1, 1.0))).wait_blocking().unwrap();
                    create(store, &format!("own-{writer}-{step}"), profile(1, 1.0)).unwrap();
                }
            });
        }
    });
    until("both are told of all", || told.iter().all(|told| told.lock().len() >= 800));
    let (first, second) = (told[0].lock().clone(), told[1].lock().clone());
    assert_eq!(first.len(), 800);
    assert!(first == second);
    let versions: Vec<_> = first.iter().filter(|change| id_of(change) == "shared").map(Committed::version).collect();
    assert_eq!(versions, (1..=400).collect::<Vec<_>>());
    assert_eq!((names(&stores[0]).len(), stores[0].errors(), stores[1].errors()), (401, 0, 0));
}

#[test]
fn one_that_ends_leaves_the_other_its_log() {
    let (_directory, path) = place();
    let (one, two) = (Sqlite::open(&path).unwrap(), Sqlite::open(&path).unwrap());
    create(&one, "a", profile(1, 1.0)).unwrap();
    one.close();
    create(&two, "b", profile(1, 1.0)).unwrap();
    assert_eq!((two.fault(), names(&two)), (None, vec!["a".to_owned(), "b".to_owned()]));
    two.close();
    assert_eq!(names(&Sqlite::open(&path).unwrap()), ["a", "b"]);
}

#[test]
fn both_come_back_to_one_file_when_it_is_removed() {
    let (_directory, path) = place();
    let (one, two) = (Sqlite::open(&path).unwrap(), Sqlite::open(&path).unwrap());
    create(&one, "a", profile(1, 1.0)).unwrap();
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(beside(&path, suffix)).unwrap();
    }
    until("both know", || one.fault().is_some() && two.fault().is_some());
    until("both are well", || one.fault().is_none() && two.fault().is_none());
    create(&one, "b", profile(1, 1.0)).unwrap();
    create(&two, "c", profile(1, 1.0)).unwrap();
    assert_eq!((names(&one), names(&two)), (names(&two), ["a", "b", "c"].map(str::to_owned).to_vec()));
}

#[test]
fn a_follower_misses_nothing_since_the_file_was_opened() {
    let (_directory, path) = place();
    let (one, two) = (Sqlite::open(&path).unwrap(), Sqlite::open(&path).unwrap());
    create(&one, "a", profile(1, 1.0)).unwrap();
    // Longer than the time between two looks.
    std::thread::park_timeout(Duration::from_millis(500));
    let told = followed(&two);
    until("it is told", || told.lock().len() == 1);
    assert_eq!(id_of(&told.lock()[0]), "a");
}

#[test]
fn a_lock_that_is_held_for_a_batch_is_waited_for() {
    let (_directory, path) = place();
    let store = Sqlite::open(&path).unwrap();
    let other = stranger(&path);
    announce::begin(&other).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let started = SystemClock.now();
    let waiting = store.change(set("a", profile(1, 1.0)));
    // Longer than a lock is waited for that is not held for a batch.
    until("the batch takes long", || started.elapsed() > Duration::from_secs(8));
    assert_eq!(store.fault(), None);
    announce::end(&other).unwrap();
    other.execute_batch("COMMIT").unwrap();
    waiting.wait_blocking().unwrap();
    assert_eq!((names(&store), store.errors()), (vec!["a".to_owned()], 0));
}

#[test]
fn a_large_batch_is_announced_while_it_lasts() {
    let (_directory, path) = place();
    let store = Sqlite::open(&path).unwrap();
    let other = stranger(&path);
    let announced = || -> i64 {
        let count = "SELECT count(*) FROM meta WHERE name = 'batch_until'";
        other.query_row(count, [], |row| row.get(0)).unwrap()
    };
    for dry_run in [true, false] {
        let items = (0..20_000).map(|number| item(&format!("user{number}"), profile(1, 1.0))).collect();
        let reply = store.apply(Batch { dry_run, ..batch(items, false) });
        until("it is announced", || announced() == 1);
        assert_eq!(reply.wait_blocking().unwrap().changes.len(), 20_000);
        assert_eq!(announced(), 0);
    }
    // A small one takes no time.
    store.apply(batch(vec![item("a", profile(1, 1.0))], false)).wait_blocking().unwrap();
    assert_eq!(names(&store).len(), 20_001);
}
