//! Several nodes, each with its file and its link, on one real server.

use std::collections::BTreeMap;

use tempfile::TempDir;

use super::*;
use crate::client::{ApiKey, ClientId, KeyDigest, Quota};
use crate::clock::{Clock, SystemClock};
use crate::fleet::link::tests::{settings, start};
use crate::fleet::servers::{Engine, StoreServer};
use crate::store::{
    Adoption, Batch, BatchItem, Change, ClientRepository as _, Committed, FleetCursor, HistoryEntry, KeyChange,
    Profile, Record, WriteError,
};

mod bulks;
mod starts;

const LONG: Duration = Duration::from_secs(20);

struct TestNode {
    registry: ClientRegistry,
    store: Sqlite,
    link: StoreLink,
    stop: watch::Sender<bool>,
    stop_link: watch::Sender<bool>,
    directory: Option<TempDir>,
}

impl TestNode {
    /// One that has not met the fleet.
    fn new(url: &str) -> Self {
        Self::in_directory(url, tempfile::tempdir().unwrap())
    }

    fn in_directory(url: &str, directory: TempDir) -> Self {
        let store = Sqlite::open(&directory.path().join("tollgate.db")).unwrap();
        let (link, stop_link) = start(&settings(url));
        let registry = ClientRegistry::new(link.clone(), store.clone(), "tollgate");
        let stop = watch::channel(false).0;
        TestNode { registry, store, link, stop, stop_link, directory: Some(directory) }
    }

    fn run(&self) {
        self.store.publish_through(self.registry.publisher());
        let (registry, stopping) = (self.registry.clone(), self.stop.subscribe());
        tokio::spawn(async move { registry.run(stopping).await });
    }

    async fn joined(url: &str) -> Self {
        let node = TestNode::new(url);
        let outcome = node.registry.join_at_start(LONG, &mut |_, _| ()).await.unwrap();
        assert!(matches!(outcome, JoinOutcome::Joined { .. }), "{outcome:?}");
        node.run();
        node
    }

    /// Ends it; its directory.
    fn end(mut self) -> TempDir {
        self.stop.send_replace(true);
        self.stop_link.send_replace(true);
        self.directory.take().unwrap()
    }

    async fn write(&self, change: Change) -> Result<Committed, WriteError> {
        self.store.change(change).wait().await
    }

    fn all(&self) -> Vec<Record> {
        let mut records = Vec::new();
        let read = self.store.for_each(&mut |record| {
            records.push(record);
            true
        });
        read.unwrap();
        records
    }

    fn histories(&self, names: &[String]) -> Vec<Vec<HistoryEntry>> {
        names.iter().map(|name| self.store.history(&id(name), None, 1_000).unwrap()).collect()
    }
}

fn id(name: &str) -> ClientId {
    ClientId::parse(name).unwrap()
}

fn profile(capacity: u64) -> Profile {
    Profile::new(Quota::new(capacity, 1.0).unwrap())
}

fn set(name: &str, profile: Option<Profile>) -> Change {
    let edit = Box::new(move |_: Option<&Record>| Ok(profile.clone()));
    Change { id: id(name), by: "test".to_owned(), at: SystemClock.wall(), rollback: false, local: false, edit }
}

/// So many clients, and no others.
fn bulk(count: u64) -> Batch {
    let item =
        |at| BatchItem { id: id(&format!("c{at}")), profile: profile(count), keys: KeyChange::Keep, of_plan: None };
    Batch {
        items: (0..count).map(item).collect(),
        prune: true,
        dry_run: false,
        local: false,
        by: "test".to_owned(),
        at: SystemClock.wall(),
        progress: Default::default(),
    }
}

/// One more note on the client: what was acknowledged is in it.
fn noted(name: &str, note: String) -> Change {
    let edit = Box::new(move |before: Option<&Record>| {
        let before = before.map_or_else(|| profile(1), |before| before.profile.clone());
        Ok(Some(Profile { note: format!("{} {note}", before.note), ..before }))
    });
    Change { edit, ..set(name, None) }
}

/// Polls until it holds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = SystemClock.now() + LONG;
    while !holds() {
        assert!(SystemClock.now() < deadline, "waited for 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn level(nodes: &[&TestNode]) {
    until("all nodes are equal", || {
        let first = nodes[0].all();
        nodes.iter().all(|node| node.all() == first && node.store.pending().unwrap().is_empty())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_writes_all_have_within_a_second() {
    for engine in Engine::all() {
        let server = StoreServer::start(engine);
        let (a, b) = (TestNode::joined(&server.url()).await, TestNode::joined(&server.url()).await);
        assert_eq!(a.store.fleet_cursor().unwrap().unwrap().secret, b.store.fleet_cursor().unwrap().unwrap().secret);
        until("both follow", || *b.registry.state().borrow() == RegistryState::Joined).await;
        let begun = SystemClock.now();
        for round in 0..20 {
            a.write(set("x", Some(profile(round + 1)))).await.unwrap();
            let written = SystemClock.now();
            until("the other has it", || b.all() == a.all()).await;
            assert!(written.elapsed() < Duration::from_secs(1), "{:?}", written.elapsed());
        }
        println!("{engine:?}: 20 changes were on the other node after {:?}", begun.elapsed());
        b.write(set("x", None)).await.unwrap();
        level(&[&a, &b]).await;
        assert!(a.all().is_empty());
        assert_eq!(a.histories(&["x".to_owned()]), b.histories(&["x".to_owned()]));
        // One that comes later has it all, and knows what was deleted.
        a.write(set("y", Some(profile(3)))).await.unwrap();
        let late = TestNode::joined(&server.url()).await;
        level(&[&a, &b, &late]).await;
        assert_eq!(late.histories(&["x".to_owned()]), a.histories(&["x".to_owned()]));
        assert_eq!(late.write(set("x", Some(profile(1)))).await.unwrap().after.unwrap().version, 22);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_on_all_nodes_at_once() {
    for engine in Engine::all() {
        let server = StoreServer::start(engine);
        let (a, b) = (TestNode::joined(&server.url()).await, TestNode::joined(&server.url()).await);
        for count in [3_000, 12_000] {
            a.store.apply(bulk(count)).wait().await.unwrap();
            level(&[&a, &b]).await;
            assert_eq!(b.all().len() as u64, count);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_store_only_what_does_without_is_written() {
    for engine in Engine::all() {
        let mut server = StoreServer::start_with(engine, &["--appendonly", "yes", "--appendfsync", "always"]);
        let (a, b) = (TestNode::joined(&server.url()).await, TestNode::joined(&server.url()).await);
        a.write(set("x", Some(profile(1)))).await.unwrap();
        level(&[&a, &b]).await;
        server.kill();
        crate::fleet::link::tests::until(&a.link, false).await;
        assert_eq!(a.write(set("y", Some(profile(1)))).await, Err(WriteError::FleetUnreachable));
        a.write(Change { local: true, ..set("here", Some(profile(2))) }).await.unwrap();
        b.write(Change { local: true, ..set("x", Some(profile(9))) }).await.unwrap();
        assert_eq!((a.all().len(), b.all()[0].profile.clone()), (2, profile(9)));
        server.restart();
        until("what was written there is here", || a.all() == b.all()).await;
        level(&[&a, &b]).await;
        let names: Vec<_> = a.all().into_iter().map(|record| (record.id.to_string(), record.profile)).collect();
        assert_eq!(names, [("here".to_owned(), profile(2)), ("x".to_owned(), profile(9))]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_lost_everything_is_filled_again_with_the_newest() {
    for engine in Engine::all() {
        let mut server = StoreServer::start(engine);
        let (a, b) = (TestNode::joined(&server.url()).await, TestNode::joined(&server.url()).await);
        for name in ["x", "gone", "z"] {
            a.write(set(name, Some(profile(1)))).await.unwrap();
        }
        level(&[&a, &b]).await;
        let url = server.url();
        // It does not hear of what comes.
        let directory = b.end();
        a.write(set("x", Some(profile(2)))).await.unwrap();
        a.write(set("gone", None)).await.unwrap();
        let before = a.all();
        let directory_a = a.end();
        server.restart();
        // Who is first has the older ones.
        let b = TestNode::in_directory(&url, directory);
        assert!(matches!(b.registry.join_at_start(LONG, &mut |_, _| ()).await.unwrap(), JoinOutcome::Joined { .. }));
        b.run();
        let a = TestNode::in_directory(&url, directory_a);
        a.run();
        until("the newest hold", || b.all() == before).await;
        level(&[&a, &b]).await;
        b.write(set("x", Some(profile(3)))).await.unwrap();
        level(&[&a, &b]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_lost_its_end_is_filled_again() {
    let server = StoreServer::start(Engine::all()[0]);
    let (a, b) = (TestNode::joined(&server.url()).await, TestNode::joined(&server.url()).await);
    a.write(set("x", Some(profile(1)))).await.unwrap();
    level(&[&a, &b]).await;
    let cursor = a.store.fleet_cursor().unwrap().unwrap();
    // As a replica that was promoted without the last change.
    a.write(set("y", Some(profile(1)))).await.unwrap();
    level(&[&a, &b]).await;
    for command in [
        "HDEL tollgate:{clients}:all y".to_owned(),
        format!("XDEL tollgate:{{clients}}:log {}-0", cursor.seq + 1),
        format!("HSET tollgate:{{clients}}:meta seq {} mark {}", cursor.seq, cursor.mark),
    ] {
        server.command(&command);
    }
    until("another generation", || a.store.fleet_cursor().unwrap().unwrap().generation != cursor.generation).await;
    until("another generation", || b.store.fleet_cursor().unwrap().unwrap().generation != cursor.generation).await;
    let late = TestNode::joined(&server.url()).await;
    level(&[&a, &b, &late]).await;
    assert_eq!(late.all().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_clients_of_its_own_stays_apart() {
    let server = StoreServer::start(Engine::all()[0]);
    let stranger = TestNode::new(&server.url());
    stranger.write(set("mine", Some(profile(1)))).await.unwrap();
    // Where there is no fleet yet, its clients are the fleet's.
    let first = TestNode::new(&server.url());
    first.write(set("first", Some(profile(1)))).await.unwrap();
    assert!(matches!(first.registry.join_at_start(LONG, &mut |_, _| ()).await.unwrap(), JoinOutcome::Joined { .. }));
    first.run();
    assert_eq!(stranger.registry.join_at_start(LONG, &mut |_, _| ()).await.unwrap(), JoinOutcome::Foreign);
    stranger.run();
    until("it is known", || *stranger.registry.state().borrow() == RegistryState::Foreign).await;
    assert_eq!(stranger.write(set("more", Some(profile(1)))).await, Err(WriteError::FleetUnreachable));
    assert_eq!((stranger.all().len(), first.all().len()), (1, 1));
    let empty = TestNode::joined(&server.url()).await;
    level(&[&first, &empty]).await;
    // Nobody is there.
    let away = TestNode::new("redis://127.0.0.1:1");
    assert_eq!(
        away.registry.join_at_start(Duration::from_millis(50), &mut |_, _| ()).await.unwrap(),
        JoinOutcome::Unreachable
    );
}

/// What happens in a run of the test below.
struct Turmoil {
    random: fastrand::Rng,
    names: Vec<String>,
    /// What was acknowledged, by client.
    kept: BTreeMap<String, Vec<String>>,
    next: usize,
}

impl Turmoil {
    async fn write(&mut self, nodes: &[TestNode]) {
        let (node, name) =
            (self.random.usize(..nodes.len()), self.names[self.random.usize(..self.names.len())].clone());
        let deadline = SystemClock.now() + LONG;
        loop {
            self.next += 1;
            let note = format!("n{}.", self.next);
            if nodes[node].write(noted(&name, note.clone())).await.is_ok() {
                return self.kept.entry(name).or_default().push(note);
            }
            assert!(SystemClock.now() < deadline, "waited for 20 s: a write is taken");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_acknowledged_is_lost_and_all_end_the_same() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    for engine in Engine::all() {
        let mut server = StoreServer::start_with(engine, &["--appendonly", "yes", "--appendfsync", "always"]);
        let mut nodes = Vec::new();
        for _ in 0..3 {
            nodes.push(TestNode::joined(&server.url()).await);
        }
        let names = (0..5).map(|at| format!("c{at}")).collect();
        let mut turmoil = Turmoil { random: fastrand::Rng::with_seed(seed), names, kept: BTreeMap::new(), next: 0 };
        for round in 0..12 {
            for _ in 0..10 {
                turmoil.write(&nodes).await;
            }
            // All at once, on the same client.
            let writes = nodes.iter().enumerate().map(|(at, node)| {
                let note = format!("r{round}n{at}.");
                async move { node.write(noted("c0", note.clone())).await.is_ok().then_some(note) }
            });
            let kept = futures_util::future::join_all(writes).await;
            turmoil.kept.entry("c0".to_owned()).or_default().extend(kept.into_iter().flatten());
            match turmoil.random.u8(..4) {
                0 => drop(server.command("CLIENT KILL TYPE normal SKIPME yes")),
                1 => server.restart(),
                2 => {
                    // It lost everything while every node was level.
                    level(&nodes.iter().collect::<Vec<_>>()).await;
                    server.command("FLUSHALL");
                }
                _ => {
                    let at = turmoil.random.usize(..nodes.len());
                    let directory = nodes.remove(at).end();
                    let node = TestNode::in_directory(&server.url(), directory);
                    node.run();
                    nodes.push(node);
                }
            }
        }
        level(&nodes.iter().collect::<Vec<_>>()).await;
        let all: BTreeMap<_, _> =
            nodes[0].all().into_iter().map(|record| (record.id.to_string(), record.profile.note)).collect();
        assert!(turmoil.kept.values().map(Vec::len).sum::<usize>() >= 120, "hardly anything was written");
        for (name, notes) in &turmoil.kept {
            for note in notes {
                assert!(all[name].contains(note.as_str()), "seed {seed}: {note} of {name} is lost: {}", all[name]);
            }
        }
        let names: Vec<_> = all.into_keys().collect();
        let first = nodes[0].histories(&names);
        nodes.iter().for_each(|node| assert_eq!(node.histories(&names), first));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_given_to_one_of_two_who_want_it_at_once() {
    let server = StoreServer::start(Engine::all()[0]);
    let (a, b) = (TestNode::joined(&server.url()).await, TestNode::joined(&server.url()).await);
    for round in 0..20 {
        let digest = KeyDigest::of(format!("key{round}").as_bytes());
        let with = |name: &str| {
            let profile = Profile { api_keys: vec![ApiKey::primary(digest)], ..profile(1) };
            set(&format!("{name}{round}"), Some(profile))
        };
        let (one, other) = tokio::join!(a.write(with("a")), b.write(with("b")));
        assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    }
    level(&[&a, &b]).await;
    assert_eq!(a.all().len(), 20);
}
