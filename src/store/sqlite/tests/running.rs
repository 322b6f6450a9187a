//! Faults while it runs: no write is acknowledged that is not kept, and all is well again when the cause is gone.

use std::fs;
use std::process::Command;

use super::*;
use crate::limit::Payer;
use crate::store::samples::{client_id, names, set, snapshot, spent};
use crate::store::{Action, BucketStore};

#[test]
fn a_lock_held_for_long_is_answered_and_forgotten() {
    let (_directory, path) = place();
    filled(&path, 1);
    let store = Sqlite::open(&path).unwrap();
    let other = stranger(&path);
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let started = SystemClock.now();
    let error = unavailable(&store, "a");
    assert!(error.contains("another process holds it locked"), "{error}");
    assert!(started.elapsed() >= Duration::from_secs(5));
    // The next answers come fast, and reads go on.
    let started = SystemClock.now();
    assert_eq!(unavailable(&store, "b"), error);
    assert!(started.elapsed() < Duration::from_secs(3));
    assert_eq!((store.fault(), store.errors()), (Some(error), 2));
    assert_eq!(names(&store), ["user0"]);
    other.execute_batch("COMMIT").unwrap();
    until("the fault ends without a write", || store.fault().is_none());
    create(&store, "a", profile(1, 1.0)).unwrap();
    assert_eq!((names(&store).len(), store.errors()), (2, 2));
}

#[test]
fn a_removed_file_comes_back_with_all_that_was_acknowledged() {
    let (directory, path) = place();
    let path = directory.path().join("data").join(path.file_name().unwrap());
    let store = Sqlite::open(&path).unwrap();
    for name in ["a", "b"] {
        create(&store, name, profile(1, 1.0)).unwrap();
    }
    let told = followed(&store);
    fs::remove_dir_all(path.parent().unwrap()).unwrap();
    assert!(unavailable(&store, "c").ends_with("the file was removed"));
    assert_eq!(store.get(&client_id("c")), Ok(None));
    assert!(store.get(&client_id("b")).unwrap().is_some());
    until("the file is there again", || path.exists());
    until("the fault ends", || store.fault().is_none());
    create(&store, "c", profile(1, 1.0)).unwrap();
    assert_eq!((names(&store), told.lock().len()), (["a", "b", "c"].map(str::to_owned).to_vec(), 1));
    // It is a whole database of its own, and stays one when the old connection is long closed.
    let copy = directory.path().join("copy.db");
    fs::copy(&path, &copy).unwrap();
    fs::copy(beside(&path, "-wal"), beside(&copy, "-wal")).unwrap();
    assert_eq!(names(&Sqlite::open(&copy).unwrap()), ["a", "b", "c"]);
    store.close();
    assert_eq!(names(&Sqlite::open(&path).unwrap()), ["a", "b", "c"]);
}

#[test]
fn a_removed_file_is_seen_without_a_write() {
    let (_directory, path) = place();
    let store = Sqlite::open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    until("the fault is known", || store.fault().is_some());
    until("the file is there again", || store.fault().is_none() && path.exists());
}

#[test]
fn a_file_that_is_moved_away_and_back_is_the_same() {
    let (_directory, path) = place();
    let store = Sqlite::open(&path).unwrap();
    create(&store, "a", profile(1, 1.0)).unwrap();
    fs::rename(&path, beside(&path, ".away")).unwrap();
    // No change is asked for: one that is refused has the file written anew.
    until("the fault is known", || store.fault().is_some_and(|reason| reason.ends_with("the file was removed")));
    fs::rename(beside(&path, ".away"), &path).unwrap();
    until("the fault ends", || store.fault().is_none());
    create(&store, "b", profile(1, 1.0)).unwrap();
    assert_eq!((names(&store).len(), store.fault()), (2, None));
}

#[test]
fn a_file_that_is_moved_away_for_good_is_whole() {
    let (_directory, path) = place();
    let store = Sqlite::open(&path).unwrap();
    create(&store, "a", profile(1, 1.0)).unwrap();
    let away = beside(&path, ".away");
    fs::rename(&path, &away).unwrap();
    until("the file is written anew", || path.exists());
    until("the fault ends", || store.fault().is_none());
    assert_eq!((names(&store), names(&Sqlite::open(&away).unwrap())), (vec!["a".to_owned()], vec!["a".to_owned()]));
}

#[test]
fn a_log_that_is_removed_costs_nothing() {
    for suffix in ["-wal", "-shm"] {
        let (directory, path) = place();
        let store = Sqlite::open(&path).unwrap();
        create(&store, "a", profile(1, 1.0)).unwrap();
        fs::remove_file(beside(&path, suffix)).unwrap();
        assert!(unavailable(&store, "b").contains("its -wal or -shm file was removed"), "{suffix}");
        until("the fault ends", || store.fault().is_none());
        create(&store, "b", profile(1, 1.0)).unwrap();
        let copy = directory.path().join("copy.db");
        fs::copy(&path, &copy).unwrap();
        fs::copy(beside(&path, "-wal"), beside(&copy, "-wal")).unwrap();
        assert_eq!(names(&Sqlite::open(&copy).unwrap()), ["a", "b"], "{suffix}");
    }
}

#[test]
fn a_sound_file_in_its_place_is_taken_up_and_its_log_stays() {
    let (directory, path) = place();
    let backup = directory.path().join("backup.db");
    let store = Sqlite::open(&backup).unwrap();
    for name in ["x", "same", "changed", "other-number"] {
        create(&store, name, profile(1, 1.0)).unwrap();
    }
    store.close();
    let store = Sqlite::open(&path).unwrap();
    for (name, capacity) in [("gone", 1), ("same", 1), ("changed", 5), ("y", 1), ("other-number", 1)] {
        create(&store, name, profile(capacity, 1.0)).unwrap();
    }
    let told = followed(&store);
    fs::rename(&backup, &path).unwrap();
    until("the file is taken up", || told.lock().len() >= 6);
    until("the fault ends", || store.fault().is_none());
    assert_eq!(names(&store), ["changed", "other-number", "same", "x"]);
    let seen: Vec<_> = told
        .lock()
        .iter()
        .map(|change| {
            let name = |record: &Option<crate::store::Record>| record.as_ref().map(|record| record.id.to_string());
            (name(&change.before).or(name(&change.after)).unwrap(), change.action.unwrap())
        })
        .collect();
    let expected = [
        ("gone", Action::Delete),
        ("other-number", Action::Delete),
        ("y", Action::Delete),
        ("changed", Action::Update),
        ("other-number", Action::Create),
        ("x", Action::Create),
    ];
    assert_eq!(seen, expected.map(|(name, action)| (name.to_owned(), action)));
    // What is acknowledged from now on is in the new file's log, which closing the old file has left alone.
    create(&store, "z", profile(1, 1.0)).unwrap();
    let copy = directory.path().join("copy.db");
    fs::copy(&path, &copy).unwrap();
    fs::copy(beside(&path, "-wal"), beside(&copy, "-wal")).unwrap();
    assert_eq!(names(&Sqlite::open(&copy).unwrap()), ["changed", "other-number", "same", "x", "z"]);
}

#[test]
fn buckets_come_along_to_a_file_in_its_place() {
    let (directory, path) = place();
    let backup = directory.path().join("backup.db");
    let anonymous = |last: u8| Payer::address(std::net::Ipv4Addr::new(203, 0, 113, last).into(), 64);
    let store = Sqlite::open(&backup).unwrap();
    for name in ["same", "other", "third"] {
        create(&store, name, profile(1, 1.0)).unwrap();
    }
    let stale = [Payer::client(1), Payer::client(3), anonymous(9)].map(|payer| spent(payer, 9));
    store.save(snapshot(stale.to_vec(), vec![], 9)).wait_blocking().unwrap();
    store.close();
    let store = Sqlite::open(&path).unwrap();
    for name in ["same", "gone"] {
        create(&store, name, profile(1, 1.0)).unwrap();
    }
    let told = followed(&store);
    let saved = [anonymous(1), anonymous(2), Payer::client(1), Payer::client(2)].map(|payer| spent(payer, 1));
    store.save(snapshot(saved.to_vec(), vec![], 5)).wait_blocking().unwrap();
    fs::rename(&backup, &path).unwrap();
    until("the file is taken up", || !told.lock().is_empty() && store.fault().is_none());
    let mut kept = Vec::new();
    let moment = store.load(&mut |bucket| kept.push(bucket)).unwrap();
    kept.sort_by_key(|bucket| saved.iter().position(|saved| saved.payer == bucket.payer));
    // Client 2 is another one there.
    assert_eq!((kept, moment), (saved[..3].to_vec(), Some(snapshot(vec![], vec![], 5).at)));
}

#[test]
fn an_unsound_file_in_its_place_is_not_used() {
    let (directory, path) = place();
    let store = Sqlite::open(&path).unwrap();
    create(&store, "a", profile(1, 1.0)).unwrap();
    let rubbish = directory.path().join("rubbish");
    fs::write(&rubbish, [b'x'; 5000]).unwrap();
    fs::rename(&rubbish, &path).unwrap();
    unavailable(&store, "b");
    until("it was looked at", || store.fault().is_some_and(|reason| reason.contains("is no SQLite database")));
    assert!(unavailable(&store, "b").contains("is no SQLite database"));
    assert_eq!((fs::read(&path).unwrap(), names_in_memory(&store)), (vec![b'x'; 5000], Some("a".to_owned())));
    // Whoever put it there takes it away.
    fs::remove_file(&path).unwrap();
    until("the fault ends", || store.fault().is_none());
    assert_eq!(names(&store), ["a"]);
}

/// The one client, by a short read, which needs no new connection.
fn names_in_memory(store: &Sqlite) -> Option<String> {
    store.get(&client_id("a")).unwrap().map(|record| record.id.to_string())
}

#[test]
fn a_write_that_fails_leaves_nothing_of_its_group() {
    let (_directory, path) = place();
    let store = Sqlite::open(&path).unwrap();
    create(&store, "a", profile(1, 1.0)).unwrap();
    let told = followed(&store);
    // A trigger stands in for the disk: SQLite rolls the transaction back in the middle of it.
    let fails = "CREATE TRIGGER full BEFORE INSERT ON clients WHEN new.client_id = 'bad' \
        BEGIN SELECT RAISE(ROLLBACK, 'no'); END";
    let other = stranger(&path);
    other.execute_batch(fails).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let replies: Vec<_> = ["b", "bad", "c"].map(|name| store.change(set(name, profile(1, 1.0)))).into_iter().collect();
    other.execute_batch("COMMIT").unwrap();
    let failed = replies.into_iter().map(|reply| reply.wait_blocking().is_err()).filter(|failed| *failed).count();
    let kept = names(&store).len();
    assert!(failed >= 1 && kept == 1 + 3 - failed && told.lock().len() == 3 - failed, "{failed} {kept}");
    assert!(store.errors() >= 1);
    other.execute_batch("DROP TRIGGER full").unwrap();
    create(&store, "bad", profile(1, 1.0)).unwrap();
    assert_eq!(store.fault(), None);
}

#[test]
fn what_is_cut_short_takes_no_more_writes() {
    for left in [0, 4096 * 3] {
        let (_directory, path) = place();
        filled(&path, 200);
        let store = Sqlite::open(&path).unwrap();
        let backup = beside(&path, "-backup");
        super::super::backup::backup(&path, &backup, &mut |_, _| ()).unwrap();
        create(&store, "a", profile(1, 1.0)).unwrap();
        // By another process: one that closes the file gives up its locks.
        let cut = Command::new("truncate").args(["-s", &left.to_string()]).arg(&path).status().unwrap();
        assert!(cut.success());
        let error = unavailable(&store, "b");
        assert!(error.contains("the file was cut short"), "{error}");
        // It stays so, until another file is there and read.
        until("it is looked at again", || store.errors() > 1 || unavailable(&store, "b") == error);
        assert_eq!(store.fault(), Some(error.clone()));
        // None is written anew from it.
        fs::remove_file(&path).unwrap();
        unavailable(&store, "b");
        until("it is not forgotten", || store.fault().is_some_and(|fault| fault.contains("the file was cut short")));
        assert!(!path.exists());
        fs::rename(&backup, &path).unwrap();
        until("the other is seen", || store.fault().is_some_and(|fault| fault.contains("restart tollgate")));
        assert!(unavailable(&store, "b").contains("restart tollgate"));
        store.close();
        assert_eq!(names(&Sqlite::open(&path).unwrap()).len(), 200, "{left}");
    }
}

#[test]
fn a_file_that_is_tidied_loses_nothing() {
    let (_directory, path) = place();
    filled(&path, 500);
    let store = Sqlite::open(&path).unwrap();
    create(&store, "a", profile(1, 1.0)).unwrap();
    let length = || fs::metadata(&path).unwrap().len();
    let other = stranger(&path);
    other.execute_batch("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (zeroblob(1000000))").unwrap();
    other.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    create(&store, "b", profile(1, 1.0)).unwrap();
    let before = length();
    other.execute_batch("DROP TABLE theirs; VACUUM; PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    assert!(length() < before);
    create(&store, "c", profile(1, 1.0)).unwrap();
    assert_eq!((store.fault(), names(&store).len()), (None, 503));
}
