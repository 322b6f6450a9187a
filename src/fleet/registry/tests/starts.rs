//! Who waits for what at the start.

use super::*;

/// What a node at `url` finds whose file is in `directory`, and the directory: it ends without coming level.
async fn found(url: &str, directory: TempDir) -> (bool, TempDir) {
    let node = TestNode::in_directory(url, directory);
    crate::fleet::link::tests::until(&node.link, true).await;
    let meeting = node.registry.0.meet().await.unwrap().unwrap();
    (meeting.has_all, node.end())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_had_the_fleets_clients_need_not_wait_for_them() {
    let server = StoreServer::start(Engine::all()[0]);
    let url = server.url();
    let a = TestNode::joined(&url).await;
    for name in ["x", "y"] {
        a.write(set(name, Some(profile(1)))).await.unwrap();
    }
    let (has_all, directory) = found(&url, tempfile::tempdir().unwrap()).await;
    assert!(!has_all, "to one that is new all are strangers");
    // One that ends before it has all is as new as before.
    let node = TestNode::in_directory(&url, directory);
    let cursor = FleetCursor { seq: 0, mark: 0, ..a.store.fleet_cursor().unwrap().unwrap() };
    let begun = |changes| Adoption { changes, cursor, anew: true, known: None };
    node.store.adopt(begun(Vec::new())).wait().await.unwrap();
    let (has_all, directory) = found(&url, node.end()).await;
    assert!(!has_all);
    // One that ends between the last of them and the end knows them.
    let node = TestNode::in_directory(&url, directory);
    let mut changes = Vec::new();
    let read = a.store.latest_changes(&mut |change| {
        changes.push((0, change));
        true
    });
    read.unwrap();
    node.store.adopt(begun(changes)).wait().await.unwrap();
    let (has_all, directory) = found(&url, node.end()).await;
    assert!(has_all);
    let node = TestNode::in_directory(&url, directory);
    node.registry.join_at_start(LONG, &mut |_, _| ()).await.unwrap();
    node.run();
    level(&[&a, &node]).await;
    let directory = node.end();
    // However much has changed since.
    for name in ["x", "z"] {
        a.write(set(name, Some(profile(2)))).await.unwrap();
    }
    assert!(found(&url, directory).await.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_makes_the_fleet_and_ends_before_its_clients_are_there_knows_it_for_its_own() {
    let server = StoreServer::start(Engine::all()[0]);
    let url = server.url();
    let node = TestNode::new(&url);
    let (a, b) = (set("a", Some(profile(1))), set("b", Some(profile(2))));
    node.write(a).await.unwrap();
    node.write(b).await.unwrap();
    let before = node.all();
    let (has_all, directory) = found(&url, node.end()).await;
    assert!(has_all, "they are its own");
    // Whoever comes meanwhile has none of them, and cannot have any.
    let other = TestNode::joined(&url).await;
    let node = TestNode::in_directory(&url, directory);
    let joined = node.registry.join_at_start(LONG, &mut |_, _| ()).await.unwrap();
    assert!(matches!(joined, JoinOutcome::Joined { .. }), "{joined:?}");
    node.run();
    level(&[&node, &other]).await;
    assert_eq!(other.all(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_hears_of_bulks_too() {
    let server = StoreServer::start(Engine::all()[0]);
    let a = TestNode::joined(&server.url()).await;
    a.store.apply(bulk(3_000)).wait().await.unwrap();
    // Whether it is folded in by now or not, each piece of it is heard of.
    let (node, mut heard) = (TestNode::new(&server.url()), 0);
    let joined = node.registry.join_at_start(LONG, &mut |_, _| heard += 1).await.unwrap();
    assert!(matches!(joined, JoinOutcome::Joined { .. }));
    assert!(heard > 1, "{heard}");
    assert_eq!((node.all().len(), node.registry.taking_in()), (3_000, None));
}
