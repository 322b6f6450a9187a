//! Against real servers.

use std::num::NonZeroUsize;

use super::*;
use crate::clock::SystemClock;
use crate::fleet::bucket::{self, BucketAsk};
use crate::fleet::names::Names;
use crate::fleet::servers::{Engine, StoreServer};
use crate::fleet::settings::{StoreTls, WhenUnreachable};

const LONG: Duration = Duration::from_secs(5);

/// Settings for a store.
pub(crate) fn settings(url: &str) -> FleetSettings {
    FleetSettings {
        store: url.parse().unwrap(),
        password: None,
        tls: StoreTls::default(),
        prefix: "tollgate".to_owned(),
        node: None,
        lease: Duration::from_millis(100),
        timeout: Duration::from_millis(25),
        max_asks: NonZeroUsize::new(1024).unwrap(),
        when_unreachable: WhenUnreachable::Share,
    }
}

/// A link that runs as long as what is returned beside it.
pub(crate) fn start(settings: &FleetSettings) -> (StoreLink, watch::Sender<bool>) {
    let link = StoreLink::new(settings, Arc::new(SystemClock));
    let (stop, stopping) = watch::channel(false);
    let running = link.clone();
    tokio::spawn(async move { running.run(stopping).await });
    (link, stop)
}

pub(crate) async fn until(link: &StoreLink, reachable: bool) {
    let mut state = link.state();
    let there = timeout(LONG, state.wait_for(|state| state.is_reachable() == reachable)).await;
    assert!(there.is_ok(), "not {reachable}: {:?}", link.state().borrow());
}

/// Asks for one token of a bucket of five.
pub(crate) async fn take(link: &StoreLink, key: u128) -> Result<bucket::BucketAnswer, LinkError> {
    let ask = BucketAsk {
        quota: crate::client::Quota::new(5, 0.001).unwrap(),
        holder: "a",
        left: 0,
        want: 1,
        ahead: 0,
        divisor: 1,
        debit: 0,
        back: 0,
        valid: Duration::from_secs(1),
    };
    let mut answers = link.calls(&[bucket::ask(&Names::new("tollgate"), key, &ask)], LONG).await;
    bucket::read(&answers.pop().unwrap()?)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn a_bucket_is_drained_on_either_engine() {
    for engine in Engine::all() {
        let server = StoreServer::start(engine);
        runtime().block_on(async {
            let (link, _stop) = start(&settings(&server.url()));
            assert!(matches!(take(&link, 7).await, Err(LinkError::Unreachable(_))), "connected already");
            until(&link, true).await;
            for left in [4, 3, 2, 1, 0] {
                let answer = take(&link, 7).await.unwrap();
                assert_eq!((answer.granted, answer.tokens, answer.was_missing), (1, left, left == 4), "{engine:?}");
            }
            assert_eq!(take(&link, 7).await.unwrap().granted, 0);
            assert_eq!(take(&link, 8).await.unwrap().granted, 1);
        });
    }
}

#[test]
fn a_script_that_was_forgotten_is_loaded_again() {
    for engine in Engine::all() {
        let server = StoreServer::start(engine);
        runtime().block_on(async {
            let (link, _stop) = start(&settings(&server.url()));
            until(&link, true).await;
            assert_eq!(take(&link, 7).await.unwrap().tokens, 4);
            server.command("SCRIPT FLUSH");
            assert_eq!(take(&link, 7).await.unwrap().tokens, 3, "{engine:?}");
        });
    }
}

#[test]
fn a_store_that_stands_still_is_noticed_and_found_again() {
    let server = StoreServer::start(Engine::all()[0]);
    runtime().block_on(async {
        let (link, _stop) = start(&settings(&server.url()));
        until(&link, true).await;
        server.pause();
        let begun = link.0.clock.now();
        until(&link, false).await;
        let took = link.0.clock.now() - begun;
        assert!(took < Duration::from_millis(400), "{took:?}");
        let begun = link.0.clock.now();
        assert!(matches!(take(&link, 7).await, Err(LinkError::Unreachable(_))));
        assert!(link.0.clock.now() - begun < Duration::from_millis(20));
        server.resume();
        until(&link, true).await;
        assert_eq!(take(&link, 7).await.unwrap().tokens, 4);
    });
}

#[test]
fn a_store_that_was_killed_is_found_again() {
    let mut server = StoreServer::start(Engine::all()[0]);
    runtime().block_on(async {
        let (link, _stop) = start(&settings(&server.url()));
        until(&link, true).await;
        server.kill();
        until(&link, false).await;
        server.restart();
        until(&link, true).await;
        assert_eq!(take(&link, 7).await.unwrap().tokens, 4);
    });
}

#[test]
fn what_a_store_refuses_is_said() {
    let server = StoreServer::start_with(Engine::all()[0], &["--save", "", "--requirepass", "right"]);
    runtime().block_on(async {
        let mut wrong = settings(&server.url());
        wrong.password = Some("wrong".to_owned());
        let (link, _stop) = start(&wrong);
        let mut state = link.state();
        let told = state.wait_for(
            |state| matches!(state, LinkState::Unreachable { reason, .. } if reason.contains("assword") || reason.contains("AUTH")),
        );
        timeout(LONG, told).await.unwrap().unwrap();
        let (link, _stop) = start(&FleetSettings { password: Some("right".to_owned()), ..wrong });
        until(&link, true).await;
    });
}
