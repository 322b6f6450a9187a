//! Against real servers.

use std::collections::HashMap;
use std::num::NonZeroUsize;

use super::*;
use crate::clock::SystemClock;
use crate::fleet::bucket::{self, BucketAsk};
use crate::fleet::challenges::OpenChallenges;
use crate::fleet::names::Names;
use crate::fleet::servers::{Engine, StoreServer, wait};
use crate::fleet::settings::{StoreTls, WhenUnreachable};
use crate::tls::AnswerBoard;

mod several;

pub(crate) const LONG: Duration = Duration::from_secs(5);

/// Settings for a store.
pub(crate) fn settings(url: &str) -> FleetSettings {
    FleetSettings {
        store: url.parse().unwrap(),
        password_file: None,
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
pub(crate) fn five() -> BucketAsk<'static> {
    let quota = crate::client::Quota::new(5, 0.001).unwrap();
    let valid = Duration::from_secs(1);
    BucketAsk {
        quota,
        holder: "a",
        left: 0,
        want: 1,
        ahead: 0,
        divisor: 1,
        debit: 0,
        back: 0,
        valid,
        number: 0,
        known: 0,
    }
}

/// Takes a token of such a bucket.
pub(crate) async fn take(link: &StoreLink, key: u128) -> Result<bucket::BucketAnswer, LinkError> {
    let mut answers = link.calls(&[bucket::ask(&Names::new("tollgate"), key, &five())], LONG).await;
    bucket::read(&answers.pop().unwrap()?)
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
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
        assert!(took < Duration::from_millis(600), "{took:?}");
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
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, "wrong\n").unwrap();
        let with_file = FleetSettings { password_file: Some(file.clone()), ..settings(&server.url()) };
        let (link, _stop) = start(&with_file);
        let mut state = link.state();
        let told =
            state.wait_for(|state| matches!(state.why(), Some(LinkError::Refused(said)) if said.contains("assword")));
        timeout(LONG, told).await.unwrap().unwrap();
        // Another one is taken up without a word.
        std::fs::write(&file, "right\n").unwrap();
        until(&link, true).await;
    });
}

#[test]
fn rights_that_are_written_down_are_enough() {
    let doc = include_str!("../mod.rs");
    let of = |line: &str| doc.contains(line).then(|| line.to_owned()).expect("not what is written down");
    let buckets = of("-@all +ping +evalsha +script|load +time");
    let keys = of("+get +set +del +expire +pexpire +persist +hget +hset +hdel +hlen +hmget +hgetall +hscan");
    for engine in Engine::all() {
        let server = StoreServer::start(engine);
        server.command(&format!("ACL SETUSER edge on >pw resetchannels ~tollgate:* {buckets} {keys}"));
        server.command("ACL SETUSER default off");
        runtime().block_on(async {
            let (link, _stop) = start(&settings(&server.url().replace("//", "//edge:pw@")));
            until(&link, true).await;
            assert_eq!(take(&link, 7).await.unwrap().tokens, 4, "{engine:?}");
            let other = link.calls(&[bucket::ask(&Names::new("other"), 7, &five())], LONG).await;
            assert!(matches!(&other[0], Err(LinkError::Script(said)) if said.contains("NOPERM")), "{other:?}");
            assert_eq!(link.figures().maxmemory_policy, None);
            let asked = OpenChallenges::new(link.clone(), &Names::new("tollgate"));
            asked.put("token", "token.key").await;
            let expected = HashMap::from([("token".to_owned(), "token.key".to_owned())]);
            assert_eq!(asked.all().await, expected, "{engine:?}");
            asked.remove(&["token".to_owned()]).await;
            assert_eq!(asked.all().await, HashMap::new(), "{engine:?}");
        });
    }
}

#[test]
fn figures_are_counted() {
    let server = StoreServer::start_with(Engine::all()[0], &["--save", "", "--maxmemory-policy", "allkeys-lru"]);
    runtime().block_on(async {
        let (link, _stop) = start(&settings(&server.url()));
        assert!(take(&link, 7).await.is_err());
        until(&link, true).await;
        take(&link, 7).await.unwrap();
        for _ in 0..500 {
            if link.figures().evicted_keys.is_some() && link.figures().latency.is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let figures = link.figures();
        assert_eq!((figures.evicted_keys, figures.errors), (Some(0), 1));
        assert_eq!(figures.maxmemory_policy.as_deref(), Some("allkeys-lru"));
        assert!(figures.latency.is_some() && figures.seconds.iter().sum::<u64>() >= 1 && figures.seconds_sum > 0.0);
    });
}

#[test]
fn a_store_that_cannot_do_what_it_is_for_is_unreachable_and_says_why() {
    for engine in Engine::all() {
        let other = StoreServer::start(engine);
        for (does, undoes, plain) in [
            ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "its memory is full: OOM command not allowed"),
            (
                &*format!("REPLICAOF 127.0.0.1 {}", other.port),
                "REPLICAOF NO ONE",
                "it is a replica, which takes no writes",
            ),
            ("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0", "NOREPLICAS"),
        ] {
            let server = StoreServer::start_with(engine, &["--save", ""]);
            runtime().block_on(async {
                let (link, _stop) = start(&settings(&server.url()));
                until(&link, true).await;
                server.command(does);
                let refused = take(&link, 7).await.unwrap_err();
                assert!(matches!(&refused, LinkError::Refused(_)), "{engine:?}: {refused}");
                until(&link, false).await;
                // It stays so: a connection without a write that is taken is of no use. The tries are counted.
                wait("nobody tries", || link.figures().errors >= 3 || link.state().borrow().is_reachable());
                assert!(!link.state().borrow().is_reachable(), "{engine:?} {does}");
                let said = link.state().borrow().why().unwrap().reason();
                assert!(said.contains(plain) && !said.contains("script"), "{engine:?}: {said}");
                server.command(undoes);
                until(&link, true).await;
                assert_eq!(take(&link, 7).await.unwrap().tokens, 4, "{engine:?}");
            });
        }
    }
}

#[test]
fn what_is_not_allowed_is_told_while_it_is_asked() {
    let server = StoreServer::start(Engine::all()[0]);
    server.command("ACL SETUSER edge on >pw resetchannels ~tollgate:* -@all +ping +evalsha +script|load +time +set");
    runtime().block_on(async {
        let (link, _stop) = start(&settings(&server.url().replace("//", "//edge:pw@")));
        until(&link, true).await;
        assert_eq!(link.refuses(), None);
        assert!(matches!(take(&link, 7).await, Err(LinkError::Script(_))));
        let said = link.refuses().unwrap();
        assert!(said.contains("run") && !said.contains("user_script"), "{said}");
        assert!(link.state().borrow().is_reachable());
    });
}

/// An authority and what it has signed: files `ca.pem`, `cert.pem`, `key.pem` for 127.0.0.1.
fn signed(dir: &std::path::Path) -> StoreTls {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let (mut authority, key) = (CertificateParams::new(Vec::new()).unwrap(), KeyPair::generate().unwrap());
    authority.distinguished_name.push(rcgen::DnType::CommonName, "an authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = authority.self_signed(&key).unwrap().pem();
    let (issuer, of) = (Issuer::new(authority, key), KeyPair::generate().unwrap());
    let cert = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&of, &issuer).unwrap();
    let file = |name: &str, text: String| {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        Some(path)
    };
    StoreTls { ca: file("ca.pem", ca), cert: file("cert.pem", cert.pem()), key: file("key.pem", of.serialize_pem()) }
}

#[test]
fn a_store_over_tls_is_believed_by_its_authority_only() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tls = signed(dir.path());
    let path = |path: &Option<std::path::PathBuf>| path.as_ref().unwrap().display().to_string();
    let (ca, cert, key) = (path(&tls.ca), path(&tls.cert), path(&tls.key));
    let server = StoreServer::start_with(
        Engine::Redis,
        &[
            "--save",
            "",
            "--port",
            "0",
            "--tls-port",
            "{port}",
            "--tls-ca-cert-file",
            &ca,
            "--tls-cert-file",
            &cert,
            "--tls-key-file",
            &key,
        ],
    );
    runtime().block_on(async {
        let own = FleetSettings { tls, ..settings(&server.url().replace("redis", "rediss")) };
        let (link, _stop) = start(&own);
        until(&link, true).await;
        assert_eq!(take(&link, 7).await.unwrap().tokens, 4);
        for (stranger, said) in [
            (StoreTls { ca: signed(other.path()).ca, ..own.tls.clone() }, "certificate"),
            (StoreTls { cert: None, key: None, ..own.tls.clone() }, ""),
            (StoreTls { ca: Some("/nowhere/ca.pem".into()), ..own.tls.clone() }, "/nowhere/ca.pem"),
        ] {
            let (link, _stop) = start(&FleetSettings { tls: stranger, ..own.clone() });
            let mut state = link.state();
            let told = state.wait_for(|state| {
                state.why().is_some_and(|why| !why.reason().contains("yet") && why.reason().contains(said))
            });
            timeout(LONG, told).await.expect(said).unwrap();
            assert!(take(&link, 7).await.is_err());
        }
    });
}

#[test]
fn what_waits_in_the_store_has_a_connection_of_its_own() {
    let server = StoreServer::start(Engine::all()[0]);
    runtime().block_on(async {
        let (link, _stop) = start(&settings(&server.url()));
        until(&link, true).await;
        let mut waits = link.blocking().await.unwrap();
        let mut read = redis::cmd("XREAD");
        read.arg("BLOCK").arg(0).arg("STREAMS").arg("log").arg("$");
        let waiting = tokio::spawn(async move { (waits.command(&read, LONG).await, waits) });
        assert_eq!(take(&link, 7).await.unwrap().tokens, 4);
        wait("nobody waits", || server.command("INFO clients").contains("blocked_clients:1"));
        server.command("XADD log 1-0 a b");
        let (answer, mut waits) = waiting.await.unwrap();
        assert!(matches!(answer, Ok(Value::Array(_))), "{answer:?}");
        server.pause();
        let lost = waits.command(redis::cmd("PING").arg("x"), LONG).await;
        assert!(matches!(lost, Err(LinkError::Unreachable(_))), "{lost:?}");
        server.resume();
    });
}
