//! Many changes at once.

use super::super::answers::LineTurn;
use super::super::publish::texts;
use super::*;
use crate::store::{Authored, HistoryRules, WantedKey};

/// As many as make a bulk.
const COUNT: usize = 3_000;
const CLIENTS: &str = "tollgate:{clients}";

fn batch(count: usize, capacity: u64) -> Batch {
    let item =
        |at| BatchItem { id: id(&format!("c{at}")), profile: profile(capacity), keys: KeyChange::Keep, of_plan: None };
    let items = (0..count).map(item).collect();
    Batch {
        items,
        prune: false,
        dry_run: false,
        local: false,
        by: "test".to_owned(),
        at: SystemClock.wall(),
        progress: Default::default(),
    }
}

/// What a writer that has seen `of` would publish.
async fn changes(of: &TestNode, count: usize) -> Vec<Authored> {
    let alone = TestNode::new("redis://127.0.0.1:1");
    let records = of.all();
    for record in &records {
        alone.write(set(record.id.as_str(), Some(record.profile.clone()))).await.unwrap();
    }
    alone.store.apply(batch(count, 9)).wait().await.unwrap();
    let mut changes = Vec::new();
    let read = alone.store.latest_changes(&mut |change| {
        changes.push(change);
        true
    });
    read.unwrap();
    changes
}

/// Has nobody tend the table, or somebody again.
fn untended(server: &StoreServer, untended: bool) {
    server.command(&match untended {
        true => format!("HSET {CLIENTS}:meta tender nobody tended 9000000000000000"),
        false => format!("HDEL {CLIENTS}:meta tender"),
    });
}

/// The number that a command answers.
fn number(server: &StoreServer, command: &str) -> usize {
    let said = server.command(command);
    said.trim_start_matches(':').trim_end().parse().unwrap_or_else(|_| panic!("{said}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_is_there_as_a_whole_or_not_at_all_wherever_its_writer_ends() {
    for engine in Engine::all() {
        let server = StoreServer::start(engine);
        let (a, b) = (TestNode::joined(&server.url()).await, TestNode::joined(&server.url()).await);
        untended(&server, true);
        let bulk = changes(&a, COUNT).await;
        // It ends before the switch.
        let line = &a.registry.0;
        line.put_down(1, &bulk).await.unwrap();
        b.write(set("x", Some(profile(1)))).await.unwrap();
        level(&[&a, &b]).await;
        assert_eq!((b.all().len(), number(&server, &format!("LLEN {CLIENTS}:bulks"))), (1, 0));
        assert!(number(&server, &format!("TTL {CLIENTS}:stage:1")) <= 600);
        // It ends behind it, and before its own file has it. A stage of another size is not switched to.
        let cursor = a.store.fleet_cursor().unwrap().unwrap();
        let stage = Some(line.stage(1));
        let wrong = line.line(&cursor, 1, texts(&[COUNT as u64 + 1]), stage).await.unwrap();
        assert_eq!(wrong, LineTurn::Stage);
        let published = line.publish(&cursor, &bulk).await;
        assert!(matches!(published, Published::Committed { seq, .. } if seq == cursor.seq + 1), "{published:?}");
        let mut seen = vec![];
        until("the other has all of it", || {
            let count = b.all().len();
            (seen.last() != Some(&count)).then(|| seen.push(count));
            count == COUNT + 1
        })
        .await;
        assert!(seen.iter().all(|count| [1, COUNT + 1].contains(count)), "never a part of it: {seen:?}");
        assert_eq!(number(&server, &format!("HLEN {CLIENTS}:all")), 1, "nobody has folded it in");
        // Later changes are not undone by the folding, and who takes the whole table has them all.
        b.write(set("c1", Some(profile(1)))).await.unwrap();
        b.write(set("c2", None)).await.unwrap();
        let late = TestNode::joined(&server.url()).await;
        level(&[&a, &b, &late]).await;
        assert_eq!(late.all().len(), COUNT);
        server.command(&format!("XTRIM {CLIENTS}:log MAXLEN 0"));
        let later = TestNode::joined(&server.url()).await;
        level(&[&b, &later]).await;
        untended(&server, false);
        until("it is folded in", || number(&server, &format!("LLEN {CLIENTS}:bulks")) == 0).await;
        assert_eq!(number(&server, &format!("HLEN {CLIENTS}:all")), COUNT + 1);
        assert!(number(&server, &format!("TTL {CLIENTS}:stage:{}", mark(&published))) <= 600);
        server.command(&format!("XTRIM {CLIENTS}:log MAXLEN 0"));
        let last = TestNode::joined(&server.url()).await;
        level(&[&a, &b, &last]).await;
        let names = ["c0", "c1", "c2", "x"].map(str::to_owned);
        assert_eq!(a.histories(&names), b.histories(&names));
        assert_eq!(late.histories(&names), b.histories(&names));
    }
}

fn mark(published: &Published) -> u64 {
    match published {
        Published::Committed { mark, .. } => *mark,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_has_its_turn_while_others_write() {
    let server = StoreServer::start(Engine::all()[0]);
    let (a, b) = (TestNode::joined(&server.url()).await, TestNode::joined(&server.url()).await);
    let (stop, mut stopping) = watch::channel(false);
    let others = async {
        let mut written = 0;
        while !*stopping.borrow_and_update() {
            b.write(noted(&format!("n{}", written % 7), format!("{written}."))).await.unwrap();
            written += 1;
        }
        written
    };
    let bulks = async {
        for capacity in 2..5 {
            let begun = SystemClock.now();
            a.store.apply(batch(COUNT, capacity)).wait().await.unwrap();
            assert!(begun.elapsed() < LONG, "{:?}", begun.elapsed());
        }
        // One that must not be keeps nobody waiting.
        let key = ApiKey::primary(KeyDigest::of(b"key"));
        a.write(set("has", Some(Profile { api_keys: vec![key.clone()], ..profile(1) }))).await.unwrap();
        let mut refused = batch(COUNT, 9);
        refused.items[7].keys = KeyChange::Set(vec![WantedKey::primary(key.digest)]);
        let refused = a.store.apply(refused).wait().await;
        assert!(matches!(refused, Err(WriteError::Refused(_))), "{refused:?}");
        a.write(set("after", Some(profile(1)))).await.unwrap();
        stop.send_replace(true);
    };
    let (written, ()) = tokio::join!(others, bulks);
    println!("{written} changes beside three bulks");
    level(&[&a, &b]).await;
    assert_eq!(b.all().len(), COUNT + 2 + written.min(7));
    assert!(b.all().iter().filter(|record| record.profile.quota.capacity().get() == 4).count() == COUNT);
}

#[tokio::test(flavor = "multi_thread")]
async fn deletions_are_forgotten_after_their_time_by_the_stores_clock() {
    for engine in Engine::all() {
        let server = StoreServer::start(engine);
        let a = TestNode::joined(&server.url()).await;
        let hour = Duration::from_secs(60 * 60);
        let now = SystemClock.wall();
        for (name, ago) in [("old", 2 * hour), ("young", hour / 2), ("there", 2 * hour)] {
            a.write(Change { at: now - ago, ..set(name, Some(profile(1))) }).await.unwrap();
            let after = (name == "there").then(|| profile(2));
            a.write(Change { at: now - ago, ..set(name, after) }).await.unwrap();
        }
        a.store.keep_history(HistoryRules { age: hour, ..HistoryRules::default() });
        while a.registry.0.tend_piece().await.unwrap() {}
        let there = |name: &str| number(&server, &format!("HEXISTS {CLIENTS}:all {name}"));
        assert_eq!(["old", "young", "there"].map(there), [0, 1, 1], "{engine:?}");
        // Another node goes through it in an hour.
        a.write(Change { at: now - 2 * hour, ..set("there", None) }).await.unwrap();
        let b = TestNode::joined(&server.url()).await;
        assert!(!b.registry.0.tend_piece().await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_for_too_long_drops_what_was_deleted_but_not_its_own() {
    for engine in Engine::all() {
        let mut server = StoreServer::start_with(engine, &["--appendonly", "yes", "--appendfsync", "always"]);
        let (a, b) = (TestNode::joined(&server.url()).await, TestNode::joined(&server.url()).await);
        let days = Duration::from_secs(3 * 24 * 60 * 60);
        let before = SystemClock.wall() - days;
        let key = |name: &str| ApiKey::primary(KeyDigest::of(name.as_bytes()));
        for name in ["x", "anew", "stays"] {
            let profile = Profile { api_keys: vec![key(name)], ..profile(1) };
            a.write(Change { at: before, ..set(name, Some(profile)) }).await.unwrap();
        }
        level(&[&a, &b]).await;
        server.kill();
        crate::fleet::link::tests::until(&b.link, false).await;
        b.write(Change { local: true, ..set("here", Some(profile(2))) }).await.unwrap();
        let directory = b.end();
        server.restart();
        crate::fleet::link::tests::until(&a.link, true).await;
        for name in ["x", "anew"] {
            until_written(&a, || Change { at: before, ..set(name, None) }).await;
        }
        a.store.keep_history(HistoryRules { age: Duration::from_secs(24 * 60 * 60), ..HistoryRules::default() });
        while a.registry.0.tend_piece().await.unwrap() {}
        // The last change of all stays.
        a.write(set("stays", Some(profile(3)))).await.unwrap();
        until("it is forgotten here too", || a.histories(&["x".into(), "anew".into()]).concat().is_empty()).await;
        // The client that is made anew begins anew.
        a.write(set("anew", Some(Profile { api_keys: vec![key("x")], ..profile(5) }))).await.unwrap();
        server.command(&format!("XTRIM {CLIENTS}:log MAXLEN 0"));
        let b = TestNode::in_directory(&server.url(), directory);
        assert!(matches!(b.registry.join_at_start(LONG, &mut |_, _| ()).await.unwrap(), JoinOutcome::Joined { .. }));
        b.run();
        level(&[&a, &b]).await;
        let names: Vec<_> = b.all().into_iter().map(|record| (record.id.to_string(), record.version)).collect();
        assert_eq!(names, [("anew", 1), ("here", 1), ("stays", 2)].map(|(name, version)| (name.to_owned(), version)));
        assert_eq!(b.histories(&["anew".to_owned()]), a.histories(&["anew".to_owned()]));
    }
}

/// Writes once the store takes it.
async fn until_written(node: &TestNode, change: impl Fn() -> Change) {
    let deadline = SystemClock.now() + LONG;
    while let Err(error) = node.write(change()).await {
        assert!(SystemClock.now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
