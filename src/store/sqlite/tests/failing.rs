//! Writes that fail: whom they harm, what is answered, and what is known of them.

use std::fs;

use rusqlite::backup::Backup;

use super::*;
use crate::store::samples::{batch, client_id, edit, item, names, set, snapshot};
use crate::store::{Batch, BucketStore, Refusal};

const UNKNOWN: &str = "; whether the change was kept is not known";

#[test]
fn a_batch_that_fails_harms_nobody() {
    let (_directory, path) = place();
    let store = Sqlite::open(&path).unwrap();
    let told = followed(&store);
    let other = stranger(&path);
    let fails = "CREATE TRIGGER full BEFORE INSERT ON clients WHEN new.client_id = 'bad' \
        BEGIN SELECT RAISE(ROLLBACK, 'no'); END";
    other.execute_batch(fails).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let before = store.change(set("a", profile(1, 1.0)));
    let failing = store.apply(batch(vec![item("bad", profile(1, 1.0)), item("c", profile(1, 1.0))], false));
    let saved = store.save(snapshot(vec![], vec![], 1));
    let after = store.change(set("b", profile(1, 1.0)));
    other.execute_batch("COMMIT").unwrap();
    assert!(before.wait_blocking().is_ok() && after.wait_blocking().is_ok() && saved.wait_blocking().is_ok());
    assert!(matches!(failing.wait_blocking(), Err(WriteError::Unavailable(_))));
    assert_eq!((names(&store), told.lock().len()), (["a", "b"].map(str::to_owned).to_vec(), 2));
}

#[test]
fn a_batch_that_is_undone_follows_others_all_the_same() {
    let (_directory, path) = place();
    let (one, two) = (Sqlite::open(&path).unwrap(), Sqlite::open(&path).unwrap());
    let told = followed(&two);
    for (round, dry_run) in [true, false].into_iter().enumerate() {
        create(&one, &format!("k{round}"), profile(1, 1.0)).unwrap();
        // The second one is refused: its name is the credential of a network that is taken.
        let items = ["10.0.0.0/8", "10.1.1.1/8"].map(|name| item(name, profile(1, 1.0))).to_vec();
        let items = if dry_run { items[..1].to_vec() } else { items };
        let undone = two.apply(Batch { dry_run, ..batch(items, false) }).wait_blocking();
        assert_eq!(matches!(undone, Err(WriteError::Refused(Refusal::AddressTaken { .. }))), !dry_run);
        assert_eq!(told.lock().len(), round + 1);
    }
    // What was undone is not skipped over either: the numbers of the history go on without a gap.
    create(&two, "last", profile(1, 1.0)).unwrap();
    let last: i64 = stranger(&path).query_row("SELECT max(sequence) FROM history", [], |row| row.get(0)).unwrap();
    assert_eq!((last, told.lock().len(), names(&one).len()), (3, 3, 3));
}

#[test]
fn a_writer_that_panics_is_a_fault_that_stays() {
    let (_directory, path) = place();
    let store = Sqlite::open(&path).unwrap();
    store.follow(Box::new(|_| panic!("for the test")));
    let ended = unavailable(&store, "a");
    assert!(ended.ends_with(UNKNOWN), "{ended}");
    until("the fault is known", || store.fault().is_some());
    let fault = format!("{}: the store's writer failed; restart tollgate", path.display());
    until("the writer has ended", || unavailable(&store, "b") == fault && store.errors() >= 2);
    assert_eq!(store.fault(), Some(fault));
    // It was on disk before the follower was told.
    assert_eq!(names(&store), ["a"]);
    let other = store.clone();
    store.close();
    assert!(other.get(&client_id("a")).unwrap_err().to_string().ends_with("is closed"));
    assert_eq!(names(&Sqlite::open(&path).unwrap()), ["a"]);
}

#[test]
fn a_change_committed_to_a_file_that_went_is_not_known_to_be_kept() {
    let (_directory, path) = place();
    let store = Sqlite::open(&path).unwrap();
    let removed = path.clone();
    // The edit runs between the look at the file before the transaction and the one after it.
    let failed = store.change(edit("a", move |_| {
        fs::remove_file(&removed).unwrap();
        Ok(Some(profile(1, 1.0)))
    }));
    let error = failed.wait_blocking().unwrap_err().to_string();
    assert!(error.ends_with(&format!("the file was removed{UNKNOWN}")), "{error}");
    assert!(store.fault().is_none_or(|fault| !fault.contains(UNKNOWN)));
}

#[test]
fn a_commit_that_fails_is_not_known_to_be_kept() {
    let (_directory, path) = place();
    let store = Sqlite::open(&path).unwrap();
    let told = followed(&store);
    let fails = "CREATE TABLE parents (x INTEGER PRIMARY KEY);
        CREATE TABLE children (x REFERENCES parents DEFERRABLE INITIALLY DEFERRED);
        CREATE TRIGGER orphan AFTER INSERT ON clients BEGIN INSERT INTO children VALUES (1); END";
    stranger(&path).execute_batch(fails).unwrap();
    let error = unavailable(&store, "a");
    assert!(error.ends_with(&format!("FOREIGN KEY constraint failed{UNKNOWN}")), "{error}");
    assert!(store.fault().is_none_or(|fault| fault.ends_with("FOREIGN KEY constraint failed")));
    stranger(&path).execute_batch("DROP TRIGGER orphan").unwrap();
    create(&store, "a", profile(1, 1.0)).unwrap();
    assert_eq!((store.fault(), told.lock().len(), store.errors()), (None, 1, 1));
}

#[test]
fn content_put_back_from_outside_is_a_fault_that_stays() {
    let (directory, path) = place();
    let (store, other) = (Sqlite::open(&path).unwrap(), directory.path().join("other.db"));
    create(&store, "a", profile(1, 1.0)).unwrap();
    let mut backup = stranger(&other);
    Backup::new(&stranger(&path), &mut backup).unwrap().step(-1).unwrap();
    for name in ["b", "c"] {
        create(&store, name, profile(1, 1.0)).unwrap();
    }
    let told = followed(&store);
    Backup::new(&backup, &mut stranger(&path)).unwrap().step(-1).unwrap();
    let fault = format!("{}: its content was put back to an earlier state; restart tollgate", path.display());
    until("it is noticed without a write", || store.fault().as_ref() == Some(&fault));
    assert_eq!(unavailable(&store, "d"), fault);
    // Changes by others bring the sequence beyond what was seen, and mend nothing.
    let second = Sqlite::open(&path).unwrap();
    for name in ["e", "f", "g"] {
        create(&second, name, profile(1, 1.0)).unwrap();
    }
    let errors = store.errors();
    let later = SystemClock.now() + Duration::from_millis(2_500);
    until("it was looked at again", || SystemClock.now() > later || store.fault().as_ref() != Some(&fault));
    assert_eq!(store.fault().as_ref(), Some(&fault));
    assert_eq!((unavailable(&store, "d"), store.errors(), told.lock().len()), (fault, errors + 1, 0));
    store.close();
    assert_eq!(names(&Sqlite::open(&path).unwrap()), ["a", "e", "f", "g"]);
}
