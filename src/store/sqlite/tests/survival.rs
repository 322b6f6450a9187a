//! What was answered is in the file.

use std::fs;

use super::*;
use crate::store::Action;
use crate::store::samples::{batch, client_id, delete, item, names, set};

/// The file and its log as a process that is killed now leaves them, opened.
fn killed(path: &Path, to: &Path) -> Sqlite {
    fs::copy(path, to).unwrap();
    fs::copy(beside(path, "-wal"), beside(to, "-wal")).unwrap();
    Sqlite::open(to).unwrap()
}

#[test]
fn what_was_answered_survives_a_kill() {
    let (directory, path) = place();
    let store = Sqlite::open(&path).unwrap();
    let mut expected = Vec::new();
    for round in 0..20 {
        let name = format!("user{round:02}");
        create(&store, &name, profile(1, 1.0)).unwrap();
        expected.push(name);
        if round % 5 == 4 {
            let gone = expected.remove(0);
            store.change(delete(&gone)).wait_blocking().unwrap();
        }
        let copy = killed(&path, &directory.path().join(format!("copy{round}.db")));
        assert_eq!(names(&copy), expected);
    }
}

#[test]
fn a_batch_survives_whole_or_not_at_all() {
    let (directory, path) = place();
    let store = Sqlite::open(&path).unwrap();
    // Larger than the cache, so that parts of it are in the log before it is committed.
    let items: Vec<_> = (0..2_000)
        .map(|number| {
            item(&format!("user{number}"), crate::store::Profile { note: "x".repeat(1000), ..profile(1, 1.0) })
        })
        .collect();
    let reply = store.apply(batch(items, false));
    let mut sizes = Vec::new();
    for round in 0..5 {
        let copy = directory.path().join(format!("copy{round}.db"));
        fs::copy(&path, &copy).unwrap();
        fs::copy(beside(&path, "-wal"), beside(&copy, "-wal")).unwrap();
        sizes.push(names(&Sqlite::open(&copy).unwrap()).len());
    }
    assert_eq!(reply.wait_blocking().unwrap().changes.len(), 2_000);
    sizes.push(names(&killed(&path, &directory.path().join("last.db"))).len());
    assert!(sizes.iter().all(|size| [0, 2_000].contains(size)) && sizes.last() == Some(&2_000), "{sizes:?}");
}

#[test]
fn versions_and_numbers_count_on_after_a_restart() {
    let (_directory, path) = place();
    let store = Sqlite::open(&path).unwrap();
    let first = create(&store, "user1", profile(1, 1.0)).unwrap().after.unwrap();
    store.change(delete("user1")).wait_blocking().unwrap();
    store.close();
    let store = Sqlite::open(&path).unwrap();
    let again = create(&store, "user1", profile(1, 1.0)).unwrap().after.unwrap();
    assert_eq!((again.version, again.number), (3, first.number + 1));
    let actions: Vec<_> =
        store.history(&client_id("user1"), None, 9).unwrap().iter().map(|entry| entry.action).collect();
    assert_eq!(actions, [Action::Create, Action::Delete, Action::Create]);
}

#[test]
fn writes_that_wait_are_finished_at_the_end() {
    let (_directory, path) = place();
    let store = Sqlite::open(&path).unwrap();
    let replies: Vec<_> =
        (0..100).map(|number| store.change(set(&format!("user{number:02}"), profile(1, 1.0)))).collect();
    let other = store.clone();
    store.close();
    for reply in replies {
        assert!(reply.wait_blocking().is_ok());
    }
    let error = unavailable(&other, "late");
    assert!(error.ends_with("is closed"), "{error}");
    assert!(other.get(&client_id("user01")).unwrap_err().to_string().ends_with("is closed"));
    assert_eq!(names(&Sqlite::open(&path).unwrap()).len(), 100);
}

#[test]
fn waiting_writes_share_a_transaction() {
    let (_directory, path) = place();
    let store = Sqlite::open(&path).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let follower = Arc::clone(&told);
    store.follow(Box::new(move |changes| follower.lock().push(changes.len())));
    // While the lock is held elsewhere the first one waits for it, and all others for the first.
    let other = stranger(&path);
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let replies: Vec<_> = (0..200).map(|number| store.change(set(&format!("user{number}"), profile(1, 1.0)))).collect();
    other.execute_batch("COMMIT").unwrap();
    for reply in replies {
        reply.wait_blocking().unwrap();
    }
    let told = told.lock();
    assert!(told.len() <= 3 && told.iter().sum::<usize>() == 200, "{told:?}");
}

#[test]
fn a_row_that_makes_no_sense_is_named() {
    let (_directory, path) = place();
    filled(&path, 3);
    stranger(&path).execute_batch("UPDATE clients SET capacity = 0 WHERE client_id = 'user1'").unwrap();
    let store = Sqlite::open(&path).unwrap();
    let error = store.get(&client_id("user1")).unwrap_err().to_string();
    assert!(error.ends_with("the row (\"user1\", 2, …) of table clients makes no sense in column capacity"), "{error}");
    assert!(unavailable(&store, "user1").ends_with("in column capacity"));
    // The others are fine, and so is the file.
    assert!(store.get(&client_id("user2")).unwrap().is_some() && create(&store, "user4", profile(1, 1.0)).is_ok());
    assert_eq!((store.fault(), store.errors()), (None, 0));
}

/// The keys of buckets are the same after a restart, also where the file was made by a version that knew no secret.
#[test]
fn the_secret_is_made_once() {
    let secret = |path: &Path| crate::store::BucketStore::secret(&Sqlite::open(path).unwrap());
    let (_directory, path) = place();
    let (_other, elsewhere) = place();
    let made = secret(&path);
    assert!(made != 0 && secret(&path) == made && secret(&elsewhere) != made);
    Connection::open(&path).unwrap().execute("DELETE FROM meta WHERE name LIKE 'secret%'", []).unwrap();
    let anew = secret(&path);
    assert!(anew != made && secret(&path) == anew);
}
