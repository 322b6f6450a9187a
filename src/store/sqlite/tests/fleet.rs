//! A store of clients in a fleet; a closure stands in for the fleet's store.

use std::time::SystemTime;

use super::*;
use crate::client::Quota;
use crate::store::samples::{batch, client_id, delete, edit, item, names, profile_with, set};
use crate::store::{Action, Adoption, Authored, BucketStore as _, Change, FleetCursor, Profile, Published, Record};

const FLEET: FleetCursor = FleetCursor { lineage: u64::MAX, generation: 7, secret: 1 << 100 | 5, seq: 0, mark: 0 };

/// What the nodes of a fleet share, and whether it is there.
#[derive(Default)]
struct FleetLine {
    log: Vec<Authored>,
    away: Option<Published>,
}

type SharedLine = Arc<Mutex<FleetLine>>;

fn adoption(line: &FleetLine, from: u64) -> Adoption {
    let seq = line.log.len() as u64;
    let changes = (from + 1..).zip(line.log[from as usize..].iter().cloned()).collect();
    Adoption { changes, cursor: FleetCursor { seq, mark: seq, ..FLEET }, anew: false, known: None }
}

/// A node of a fleet.
fn node(line: &SharedLine) -> (TempDir, Sqlite) {
    let (directory, path) = place();
    let store = Sqlite::open(&path).unwrap();
    join(&store, line);
    (directory, store)
}

fn join(store: &Sqlite, line: &SharedLine) {
    let shared = Arc::clone(line);
    store.publish_through(Box::new(move |cursor, changes| {
        let mut line = shared.lock();
        if let Some(away) = &line.away {
            return away.clone();
        }
        if cursor.seq != line.log.len() as u64 {
            return Published::Behind(adoption(&line, cursor.seq));
        }
        line.log.extend(changes);
        let seq = line.log.len() as u64;
        Published::Committed { seq, mark: seq }
    }));
    store.adopt(Adoption { changes: Vec::new(), cursor: FLEET, anew: true, known: None }).wait_blocking().unwrap();
}

/// Takes in what the line has.
fn follow(store: &Sqlite, line: &SharedLine) {
    let seq = store.fleet_cursor().unwrap().unwrap().seq;
    let behind = adoption(&line.lock(), seq);
    store.adopt(behind).wait_blocking().unwrap();
}

fn all(store: &Sqlite) -> Vec<Record> {
    let mut records = Vec::new();
    store
        .for_each(&mut |record| {
            records.push(record);
            true
        })
        .unwrap();
    records
}

fn local(change: Change) -> Change {
    Change { local: true, ..change }
}

#[test]
fn who_came_second_takes_in_what_came_first_and_writes_again() {
    let line = SharedLine::default();
    let ((_a, a), (_b, b)) = (node(&line), node(&line));
    let told = followed(&b);
    create(&a, "x", profile(1, 1.0)).unwrap();
    let double = edit("x", |before| {
        let before = before.ok_or_else(|| crate::store::Refusal::Missing(client_id("x")))?;
        let quota = Quota::new(u64::from(before.profile.quota.capacity().get()) * 2, 1.0).unwrap();
        Ok(Some(Profile { quota, ..before.profile.clone() }))
    });
    let committed = b.change(double).wait_blocking().unwrap();
    assert_eq!(committed.after.as_ref().unwrap().version, 2, "it has seen the other's");
    assert!(matches!(create(&b, "x", profile(1, 1.0)), Err(WriteError::Refused(_))));
    assert_eq!(told.lock().len(), 2, "the followers are told of both");
    follow(&a, &line);
    assert_eq!(all(&a), all(&b));
    assert_eq!(a.history(&client_id("x"), None, 9).unwrap(), b.history(&client_id("x"), None, 9).unwrap());
    assert_eq!(a.fleet_cursor().unwrap(), Some(FleetCursor { seq: 2, mark: 2, ..FLEET }));
    assert!(all(&a)[0].number > 1 << 20, "numbers are drawn, as others draw them too");
    a.change(delete("x")).wait_blocking().unwrap();
    follow(&b, &line);
    assert_eq!(names(&b), Vec::<String>::new());
    assert_eq!(b.page(&crate::store::PageQuery { after: None, limit: 9, search: String::new() }).unwrap().total, 0);
}

#[test]
fn that_nothing_is_to_be_changed_rests_on_what_the_fleet_has() {
    let line = SharedLine::default();
    let ((_a, a), (_b, b)) = (node(&line), node(&line));
    create(&a, "x", profile(1, 1.0)).unwrap();
    follow(&b, &line);
    a.change(set("x", profile(2, 1.0))).wait_blocking().unwrap();
    // What it still has itself is not what the client is to be: so it is changed back.
    let committed = b.change(set("x", profile(1, 1.0))).wait_blocking().unwrap();
    assert_eq!(committed.after.unwrap().version, 3);
    let same = || edit("x", |record| Ok(record.map(|record| record.profile.clone())));
    assert_eq!(a.change(same()).wait_blocking().unwrap().after.unwrap().version, 3);
    let length = line.lock().log.len();
    line.lock().away = Some(Published::Unreachable);
    assert_eq!(a.change(same()).wait_blocking(), Err(WriteError::FleetUnreachable));
    assert_eq!(a.change(local(same())).wait_blocking().unwrap().action, None);
    assert!(a.pending().unwrap().is_empty() && line.lock().log.len() == length, "nothing is published");
}

#[test]
fn a_key_has_one_owner_in_the_fleet() {
    let line = SharedLine::default();
    let ((_a, a), (_b, b)) = (node(&line), node(&line));
    create(&a, "x", profile_with(Some("key"), &["10.0.0.0/8"])).unwrap();
    for taken in [profile_with(Some("key"), &[]), profile_with(None, &["10.0.0.0/8"])] {
        assert!(matches!(create(&b, "y", taken), Err(WriteError::Refused(_))));
    }
    let items = vec![item("y", profile_with(Some("key"), &[]))];
    b.apply(batch(items, true)).wait_blocking().unwrap();
    follow(&a, &line);
    assert_eq!((names(&a), all(&a)), (vec!["y".to_owned()], all(&b)));
}

#[test]
fn without_the_fleet_nothing_is_written_but_what_does_without() {
    let line = SharedLine::default();
    let ((_a, a), (_b, b)) = (node(&line), node(&line));
    create(&a, "x", profile(1, 1.0)).unwrap();
    follow(&b, &line);
    line.lock().away = Some(Published::Unreachable);
    assert_eq!(create(&a, "y", profile(1, 1.0)), Err(WriteError::FleetUnreachable));
    assert_eq!(a.fault(), None, "the file is well");
    line.lock().away = Some(Published::Unknown);
    assert_eq!(create(&a, "y", profile(1, 1.0)), Err(WriteError::FleetUnknown));
    assert_eq!(names(&a), ["x"]);
    line.lock().away = Some(Published::Unreachable);
    a.change(local(set("here", profile(3, 1.0)))).wait_blocking().unwrap();
    a.change(local(set("x", profile(4, 1.0)))).wait_blocking().unwrap();
    b.change(local(delete("x"))).wait_blocking().unwrap();
    assert_eq!((names(&a).len(), names(&b).len(), a.pending().unwrap().len()), (2, 0, 2));
    line.lock().away = None;
    // Of equal versions and moments, the first that is published holds.
    follow(&a, &line);
    assert!(a.pending().unwrap().is_empty());
    follow(&b, &line);
    follow(&b, &line);
    follow(&a, &line);
    assert_eq!((all(&a), names(&a)), (all(&b), vec!["here".to_owned(), "x".to_owned()]));
    assert!(b.pending().unwrap().is_empty());
}

#[test]
fn the_newer_of_two_changes_holds_everywhere() {
    let line = SharedLine::default();
    let ((_a, a), (_b, b)) = (node(&line), node(&line));
    create(&a, "x", profile(1, 1.0)).unwrap();
    follow(&b, &line);
    line.lock().away = Some(Published::Unreachable);
    let later = |change: Change| Change { at: change.at + Duration::from_secs(1), local: true, ..change };
    a.change(later(set("x", profile(5, 1.0)))).wait_blocking().unwrap();
    b.change(local(set("x", profile(6, 1.0)))).wait_blocking().unwrap();
    line.lock().away = None;
    for store in [&b, &a, &b, &a] {
        follow(store, &line);
    }
    assert_eq!((all(&a)[0].profile.clone(), all(&b)), (profile(5, 1.0), all(&a)));
    assert_eq!(all(&a)[0].version, 3, "who has seen either change has not seen what came of both");
    assert!(a.pending().unwrap().is_empty() && b.pending().unwrap().is_empty());
    assert_eq!(a.history(&client_id("x"), None, 9).unwrap(), b.history(&client_id("x"), None, 9).unwrap());
}

#[test]
fn a_client_that_is_made_anew_long_after_its_deletion_is_another_one() {
    let line = SharedLine::default();
    let (_directory, store) = node(&line);
    let (begun, day) = (SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000), Duration::from_secs(24 * 60 * 60));
    let made = |number, at, capacity| {
        let (id, profile) = (client_id("x"), profile(capacity, 1.0));
        let record = Record { number, id, profile, created_at: at, updated_at: at, version: 1 };
        let change = Committed { before: None, after: Some(record), action: Some(Action::Create) };
        Authored { change, by: "test".to_owned(), at }
    };
    let first = made(1, begun, 1);
    let before = first.change.after.clone();
    let deleted = Committed { before, after: None, action: Some(Action::Delete) };
    let deleted = Authored { change: deleted, by: "test".to_owned(), at: begun + day };
    let take = |seq, change: &Authored| {
        let cursor = FleetCursor { seq, mark: seq, ..FLEET };
        let adoption = Adoption { changes: vec![(seq, change.clone())], cursor, anew: false, known: None };
        store.adopt(adoption).wait_blocking().unwrap();
        all(&store).into_iter().map(|record| (record.number, record.version)).collect::<Vec<_>>()
    };
    assert_eq!((take(1, &first), take(2, &deleted)), (vec![(1, 1)], vec![]));
    // What comes late is not taken for what comes again.
    assert_eq!(take(3, &made(1, begun + day + day / 4, 1)), []);
    assert_eq!(take(4, &made(2, begun + 3 * day, 2)), [(2, 1)]);
    assert_eq!(store.history(&client_id("x"), None, 9).unwrap().len(), 1, "what was before is of another client");
}

#[test]
fn a_key_that_was_given_away_twice_stays_with_the_fleet() {
    let line = SharedLine::default();
    let ((_a, a), (_b, b)) = (node(&line), node(&line));
    line.lock().away = Some(Published::Unreachable);
    a.change(local(set("here", profile_with(Some("key"), &["10.0.0.1/32"])))).wait_blocking().unwrap();
    a.change(local(set("only", profile_with(Some("other"), &[])))).wait_blocking().unwrap();
    line.lock().away = None;
    create(&b, "there", profile_with(Some("key"), &[])).unwrap();
    create(&b, "too", profile_with(Some("other"), &[])).unwrap();
    follow(&a, &line);
    follow(&a, &line);
    follow(&b, &line);
    assert_eq!((names(&a), all(&a)), (vec!["here".to_owned(), "there".to_owned(), "too".to_owned()], all(&b)));
    assert_eq!(all(&b)[0].profile, profile_with(None, &["10.0.0.1/32"]));
    let last = b.history(&client_id("only"), None, 1).unwrap();
    assert_eq!((last[0].action, &*last[0].by), (Action::Delete, "fleet"));
}

#[test]
fn what_is_known_already_is_passed_over() {
    let line = SharedLine::default();
    let ((_a, a), (_b, b)) = (node(&line), node(&line));
    create(&a, "x", profile(1, 1.0)).unwrap();
    let whole = adoption(&line.lock(), 0);
    let told = followed(&b);
    for _ in 0..3 {
        b.adopt(whole.clone()).wait_blocking().unwrap();
        b.adopt(Adoption { anew: true, ..whole.clone() }).wait_blocking().unwrap();
    }
    assert_eq!((told.lock().len(), b.history(&client_id("x"), None, 9).unwrap().len()), (1, 1));
    let foreign = FleetCursor { generation: 8, seq: 90, ..FLEET };
    let change = Authored { at: SystemTime::UNIX_EPOCH, ..line.lock().log[0].clone() };
    b.adopt(Adoption { changes: vec![(90, change)], cursor: foreign, anew: false, known: None })
        .wait_blocking()
        .unwrap();
    assert_eq!(b.fleet_cursor().unwrap().unwrap().seq, 1, "another generation's changes are none of its");
    let mut latest = Vec::new();
    b.latest_changes(&mut |change| {
        latest.push(change);
        true
    })
    .unwrap();
    assert_eq!(latest, line.lock().log);
}

#[test]
fn the_fleet_is_remembered_and_its_secret_taken() {
    let (_directory, path) = place();
    let store = Sqlite::open(&path).unwrap();
    create(&store, "before", profile(1, 1.0)).unwrap();
    assert_eq!(store.fleet_cursor().unwrap(), None);
    join(&store, &SharedLine::default());
    store.keep_fleet_note("node", "a").wait_blocking().unwrap();
    store.close();
    let store = Sqlite::open(&path).unwrap();
    assert_eq!(store.fleet_cursor().unwrap(), Some(FLEET));
    assert_eq!((store.secret(), store.fleet_note("node").unwrap().as_deref()), (FLEET.secret, Some("a")));
    // While nobody publishes, what is written is marked for later.
    create(&store, "y", profile(1, 1.0)).unwrap();
    assert_eq!(store.pending().unwrap().len(), 1);
}

#[test]
fn one_that_has_not_joined_yet_writes_nothing() {
    let (_directory, path) = place();
    let store = Sqlite::open(&path).unwrap();
    store.publish_through(Box::new(|_, _| panic!("there is nobody to tell")));
    assert_eq!(create(&store, "x", profile(1, 1.0)), Err(WriteError::FleetUnreachable));
    store.change(local(set("x", profile(1, 1.0)))).wait_blocking().unwrap();
    assert_eq!(names(&store), ["x"]);
}
