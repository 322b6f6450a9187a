//! A file that is not sound ends the start, and stays as it is.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::store::samples::names;

/// Why it cannot be opened; it is as it was.
fn refused(path: &Path) -> String {
    let before = fs::read(path).ok();
    let log = fs::read(beside(path, "-wal")).ok();
    let error = Sqlite::open(path).unwrap_err().to_string();
    assert_eq!(fs::read(path).ok(), before, "{error}");
    if log.is_some() {
        assert_eq!(fs::read(beside(path, "-wal")).ok(), log, "{error}");
    }
    assert!(error.starts_with(&format!("database {} ", path.display())), "{error}");
    error
}

#[test]
fn a_missing_file_is_made_with_its_directories() {
    let (directory, _) = place();
    let path = directory.path().join("a/b/tollgate.db");
    filled(&path, 1);
    let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["tollgate.db"]);
    assert_eq!(names(&Sqlite::open(&path).unwrap()), ["user0"]);
}

#[test]
fn what_is_at_the_path_must_be_a_database_of_ours() {
    let (directory, path) = place();
    for (content, reason) in [
        (&b""[..], "is empty (0 bytes)"),
        (b"SQLite format 3\0", "is no SQLite database"),
        (&[b'x'; 8192], "is no SQLite database"),
    ] {
        fs::write(&path, content).unwrap();
        let error = refused(&path);
        assert!(error.contains(reason) && error.contains("restore it from a backup"), "{error}");
    }
    fs::remove_file(&path).unwrap();
    stranger(&path).execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE theirs (x)").unwrap();
    assert!(refused(&path).contains("another program (application id 0x00000000)"));
    assert!(Sqlite::open(directory.path()).unwrap_err().to_string().contains("is a directory"));
    let below = path.join("tollgate.db");
    assert!(Sqlite::open(&below).unwrap_err().to_string().contains("a part of its path is a file"));
    let link = directory.path().join("link.db");
    std::os::unix::fs::symlink(directory.path().join("nowhere"), &link).unwrap();
    assert!(Sqlite::open(&link).unwrap_err().to_string().contains("a link that leads to nothing"));
}

#[test]
fn a_link_to_the_file_is_followed() {
    let (directory, path) = place();
    filled(&path, 1);
    let link = directory.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let store = Sqlite::open(&link).unwrap();
    create(&store, "user1", profile(1, 1.0)).unwrap();
    store.close();
    assert_eq!(names(&Sqlite::open(&path).unwrap()), ["user0", "user1"]);
}

#[test]
fn a_log_without_its_database_is_not_passed_over() {
    let (_directory, path) = place();
    let store = Sqlite::open(&path).unwrap();
    create(&store, "user0", profile(1, 1.0)).unwrap();
    fs::copy(beside(&path, "-wal"), beside(&path, "-kept")).unwrap();
    store.close();
    fs::remove_file(&path).unwrap();
    fs::rename(beside(&path, "-kept"), beside(&path, "-wal")).unwrap();
    let error = refused(&path);
    assert!(error.contains("is missing, but") && error.contains("-wal is there"), "{error}");
    assert!(!path.exists());
}

#[test]
fn random_bytes_in_any_page_are_found() {
    let (_directory, path) = place();
    filled(&path, 300);
    let store = Sqlite::open(&path).unwrap();
    let saved = (0..500).map(|number| crate::store::samples::spent(crate::limit::Payer::client(number), 1));
    let snapshot = crate::store::samples::snapshot(saved.collect(), vec![], 1);
    crate::store::BucketStore::save(&store, snapshot).wait_blocking().unwrap();
    store.close();
    let sound = fs::read(&path).unwrap();
    let pages = sound.len() / 4096;
    assert!(pages > 20, "{pages}");
    for page in 0..pages {
        let mut broken = sound.clone();
        broken[page * 4096..][..4096].fill_with(|| fastrand::u8(..));
        fs::write(&path, &broken).unwrap();
        let error = refused(&path);
        assert!(error.contains("corrupt") || error.contains("is no SQLite database"), "page {page}: {error}");
        // Half a page from its beginning, too.
        let mut broken = sound.clone();
        broken[page * 4096..][..2048].fill_with(|| fastrand::u8(..));
        fs::write(&path, &broken).unwrap();
        refused(&path);
    }
    fs::write(&path, &sound).unwrap();
    assert_eq!(names(&Sqlite::open(&path).unwrap()).len(), 300);
}

#[test]
fn a_file_that_was_cut_off_is_found() {
    let (_directory, path) = place();
    filled(&path, 100);
    let sound = fs::read(&path).unwrap();
    for length in [50, 100, 4096, sound.len() / 2 + 100, sound.len() - 4096, sound.len() - 1] {
        fs::write(&path, &sound[..length]).unwrap();
        let error = refused(&path);
        assert!(error.contains("corrupt") || error.contains("no SQLite database"), "{length}: {error}");
    }
}

#[test]
fn a_newer_file_is_left_to_a_newer_tollgate() {
    let (_directory, path) = place();
    filled(&path, 1);
    stranger(&path).execute_batch("PRAGMA journal_mode = DELETE; PRAGMA user_version = 99").unwrap();
    let error = refused(&path);
    assert!(
        error.contains("has version 99 of its tables") && error.contains("start the tollgate that wrote it"),
        "{error}"
    );
}

#[test]
fn a_missing_table_is_found() {
    let (_directory, path) = place();
    filled(&path, 1);
    stranger(&path).execute_batch("PRAGMA journal_mode = DELETE; DROP TABLE networks").unwrap();
    assert!(refused(&path).contains("its table networks is missing"));
}

#[test]
fn a_read_only_file_is_refused() {
    let (_directory, path) = place();
    filled(&path, 1);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
    let error = refused(&path);
    assert!(error.contains("is read-only") && error.contains("chmod u+w"), "{error}");
}

#[test]
fn a_locked_file_is_waited_for_and_then_refused() {
    let (_directory, path) = place();
    filled(&path, 1);
    let other = stranger(&path);
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let started = SystemClock.now();
    let error = Sqlite::open(&path).unwrap_err().to_string();
    assert!(error.contains("another process holds it locked"), "{error}");
    assert!(started.elapsed() >= Duration::from_secs(5));
    // Nothing is refused that is free in time.
    let waiting = std::thread::spawn(move || Sqlite::open(&path).map(|store| names(&store)));
    std::thread::park_timeout(Duration::from_millis(300));
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(waiting.join().unwrap().unwrap(), ["user0"]);
}

#[test]
fn a_backup_by_other_means_is_taken_up() {
    let (_directory, path) = place();
    filled(&path, 3);
    let copy = beside(&path, ".copy");
    stranger(&path).execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
    let store = Sqlite::open(&copy).unwrap();
    create(&store, "user3", profile(1, 1.0)).unwrap();
    assert_eq!(names(&store).len(), 4);
}

#[test]
fn nothing_is_put_into_temporary_files() {
    let (_directory, path) = place();
    filled(&path, 1);
    let writer = super::super::open::open(&path, &super::super::patience::LockPatience::new()).unwrap().connection;
    let reader = super::super::reads::connect(&path).unwrap();
    for connection in [writer, reader] {
        let store: i64 = connection.pragma_query_value(None, "temp_store", |row| row.get(0)).unwrap();
        assert_eq!(store, 2, "2 is memory");
    }
}
