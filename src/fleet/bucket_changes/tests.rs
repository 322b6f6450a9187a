//! Against real servers.

use super::*;
use crate::clock::SystemClock;
use crate::fleet::link::tests::{LONG, runtime, settings, start, until};
use crate::fleet::servers::{Engine, StoreServer};
use crate::limit::shared::FleetPart;
use crate::limit::shared::leases::LeaseSettings;

fn payer() -> (Payer, Quota) {
    (Payer::client(7), Quota::new(5, 0.001).unwrap())
}

fn grant(tokens: u32) -> BucketChange {
    BucketChange { buckets: vec![payer()], tokens: NonZeroU32::new(tokens) }
}

/// What a node has that makes changes.
struct Node {
    changes: Arc<BucketChanges>,
    file: Sqlite,
    _stop: watch::Sender<bool>,
    _dir: tempfile::TempDir,
}

impl Node {
    fn start(server: &StoreServer) -> Self {
        let (link, stop) = start(&settings(&server.url()));
        let dir = tempfile::tempdir().unwrap();
        let file = Sqlite::open(&dir.path().join("a.db")).unwrap();
        let lease = LeaseSettings { lease: LIMIT, timeout: LIMIT, max_asks: 1 };
        let leases = Leases::new(lease, FleetPart::new("a", ["a"].into_iter()), Reach::Joined);
        let (keys, clock) = (Arc::new(KeyMaker::new(1)), Arc::new(SystemClock));
        let changes = BucketChanges::new((link, Names::new("tollgate")), (keys, leases), file.clone(), clock);
        Node { changes, file, _stop: stop, _dir: dir }
    }

    /// The tokens that the store has.
    async fn tokens(&self) -> u64 {
        let BucketChanges { link, names, keys, .. } = &*self.changes;
        let (payer, quota) = payer();
        let answer = link.calls(&[bucket::peek(names, keys.of(payer), quota)], LONG).await.pop().unwrap();
        bucket::read_thousandths(&answer.unwrap()).unwrap() / 1_000
    }

    fn kept(&self) -> Vec<(String, String)> {
        self.file.fleet_notes(KEPT).unwrap()
    }
}

#[test]
fn what_is_kept_reads_back_as_it_was() {
    let policy = PolicyId::of("writes");
    let (own, within) = (payer(), (payer().0.within(policy), Quota::new(1_000_000_000, 1e9).unwrap()));
    for tokens in [None, NonZeroU32::new(1_000_000_000)] {
        let change = BucketChange { buckets: vec![within, own], tokens };
        assert_eq!(read(&written(&change)), Some(change));
    }
    for text in ["0 0 0 7 5", "0 0 9 7 5 1", ""] {
        assert_eq!(read(text), None, "{text}");
    }
    assert_eq!(["bucket-change/1/00000000000000ff", "bucket-change/1/x"].map(number_in), [Some(255), None]);
}

#[test]
fn what_the_store_did_not_answer_is_kept_and_counts_once() {
    for engine in Engine::all() {
        let server = StoreServer::start(engine);
        runtime().block_on(async {
            let node = Node::start(&server);
            until(&node.changes.link, true).await;
            assert!(node.changes.make(&grant(1), true).await.unwrap().is_none());
            assert_eq!((node.tokens().await, node.kept()), (6, Vec::new()), "{engine:?}");
            // It was sent, and is carried out when the store goes on.
            server.pause();
            assert!(node.changes.make(&grant(10), true).await.unwrap().is_some());
            until(&node.changes.link, false).await;
            assert_eq!(node.changes.make(&grant(100), false).await.unwrap_err(), WriteError::FleetUnreachable);
            let reset = BucketChange { tokens: None, ..grant(1) };
            node.changes.give_up(node.changes.make(&reset, true).await.unwrap().unwrap()).await;
            assert!(node.changes.make(&grant(1_000), true).await.unwrap().is_some());
            let kept = node.kept();
            assert_eq!(kept.len(), 2, "{engine:?}: {kept:?}");
            assert!(!node.changes.tell_kept().await);
            server.resume();
            until(&node.changes.link, true).await;
            assert!(node.changes.tell_kept().await);
            assert_eq!((node.tokens().await, node.kept()), (1_016, Vec::new()), "{engine:?}");
            // A node that was killed before it knew that they are told tells them again.
            for (name, text) in &kept {
                node.file.keep_fleet_note(name, text).wait().await.unwrap();
            }
            assert!(node.changes.tell_kept().await);
            assert_eq!((node.tokens().await, node.kept()), (1_016, Vec::new()), "{engine:?}");
        });
    }
}
