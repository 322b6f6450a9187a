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
fn five() -> BucketAsk<'static> {
    let quota = crate::client::Quota::new(5, 0.001).unwrap();
    let valid = Duration::from_secs(1);
    BucketAsk { quota, holder: "a", left: 0, want: 1, ahead: 0, divisor: 1, debit: 0, back: 0, valid }
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

/// Polls until `there` says so.
fn wait(what: &str, mut there: impl FnMut() -> bool) {
    let mut tries = 0;
    while !there() {
        tries += 1;
        assert!(tries < 1500, "{what}");
        crate::fleet::servers::pause();
    }
}

#[test]
fn rights_that_are_written_down_are_enough() {
    let doc = include_str!("../mod.rs");
    let of = |line: &str| doc.contains(line).then(|| line.to_owned()).expect("not what is written down");
    let buckets = of("-@all +ping +evalsha +script|load +time");
    let keys = of("+del +exists +expire +pexpire +persist +hget +hset +hdel +hmget +hgetall +hlen +hscan");
    for engine in Engine::all() {
        let server = StoreServer::start(engine);
        server.command(&format!("ACL SETUSER edge on >pw resetchannels ~tollgate:* {buckets} {keys}"));
        server.command("ACL SETUSER default off");
        runtime().block_on(async {
            let mut as_user = settings(&server.url().replace("//", "//edge@"));
            as_user.password = Some("pw".to_owned());
            let (link, _stop) = start(&as_user);
            until(&link, true).await;
            assert_eq!(take(&link, 7).await.unwrap().tokens, 4, "{engine:?}");
            let other = link.calls(&[bucket::ask(&Names::new("other"), 7, &five())], LONG).await;
            assert!(matches!(&other[0], Err(LinkError::Script(said)) if said.contains("NOPERM")), "{other:?}");
            assert_eq!(link.figures().maxmemory_policy, None);
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
fn a_store_without_memory_is_unreachable_for_what_needs_some() {
    let server = StoreServer::start_with(Engine::all()[0], &["--save", ""]);
    runtime().block_on(async {
        let (link, _stop) = start(&settings(&server.url()));
        until(&link, true).await;
        server.command("CONFIG SET maxmemory 1");
        assert!(matches!(take(&link, 7).await, Err(LinkError::Unreachable(said)) if said.contains("OOM")));
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
            let told = state.wait_for(
                |state| matches!(state, LinkState::Unreachable { reason, .. } if !reason.contains("yet") && reason.contains(said)),
            );
            timeout(LONG, told).await.expect(said).unwrap();
            assert!(take(&link, 7).await.is_err());
        }
    });
}

#[test]
fn a_promoted_replica_is_followed() {
    for engine in Engine::all() {
        let mut primary = StoreServer::start(engine);
        let of = primary.port.to_string();
        let replica = StoreServer::start_with(engine, &["--save", "", "--replicaof", "127.0.0.1", &of]);
        wait("the replica does not follow", || replica.command("INFO replication").contains("master_link_status:up"));
        let sentinel = StoreServer::sentinel(engine, primary.port);
        wait("the sentinel sees no replica", || {
            sentinel.command("SENTINEL REPLICAS main").contains(&replica.port.to_string())
        });
        let url = format!("redis+sentinel://127.0.0.1:1,127.0.0.1:{}/main", sentinel.port);
        runtime().block_on(async {
            let (link, _stop) = start(&settings(&url));
            until(&link, true).await;
            assert_eq!(take(&link, 7).await.unwrap().tokens, 4, "{engine:?}");
            primary.kill();
            until(&link, false).await;
            let mut state = link.state();
            let there = timeout(Duration::from_secs(12), state.wait_for(LinkState::is_reachable)).await;
            assert!(there.is_ok(), "{engine:?}: the new primary is not followed: {:?}", link.state().borrow());
            assert!(replica.command("ROLE").contains("master"));
            assert!(take(&link, 7).await.unwrap().tokens <= 4);
        });
    }
}

/// Three primaries of a Cluster, and the ids by which they know each other.
fn cluster(engine: Engine) -> (Vec<StoreServer>, Vec<String>) {
    let args = ["--save", "", "--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", "{bus}"];
    let servers: Vec<StoreServer> = (0..3).map(|_| StoreServer::start_with(engine, &args)).collect();
    let id = |server: &StoreServer| server.command("CLUSTER MYID").lines().nth(1).unwrap().to_owned();
    let ids = servers.iter().map(id).collect();
    for (server, slots) in servers.iter().zip(["0 5460", "5461 10922", "10923 16383"]) {
        server.command(&format!("CLUSTER ADDSLOTSRANGE {slots}"));
        let bus = server.command("CONFIG GET cluster-port").lines().nth(4).unwrap().to_owned();
        servers[0].command(&format!("CLUSTER MEET 127.0.0.1 {} {bus}", server.port));
    }
    wait("no cluster", || {
        servers.iter().all(|server| {
            let said = server.command("CLUSTER INFO");
            said.contains("cluster_state:ok") && said.contains("cluster_known_nodes:3")
        })
    });
    (servers, ids)
}

#[test]
fn buckets_of_a_cluster_follow_a_slot_that_moves() {
    for engine in Engine::all() {
        let (servers, ids) = cluster(engine);
        runtime().block_on(async {
            let url = format!("redis+cluster://127.0.0.1:1,127.0.0.1:{}", servers[1].port);
            let (link, _stop) = start(&settings(&url));
            until(&link, true).await;
            // All tags in one go.
            let names = Names::new("tollgate");
            let all: Vec<ScriptCall> = (0..64).map(|key| bucket::ask(&names, key, &five())).collect();
            for answer in link.calls(&all, LONG).await {
                assert_eq!(bucket::read(&answer.unwrap()).unwrap().tokens, 4, "{engine:?}");
            }
            let (key, held) = (7, String::from_utf8(names.bucket(7)).unwrap());
            let slot: usize =
                servers[0].command(&format!("CLUSTER KEYSLOT {held}")).lines().next().unwrap()[1..].parse().unwrap();
            let from = slot / 5461;
            let to = (from + 1) % 3;
            servers[to].command(&format!("CLUSTER SETSLOT {slot} IMPORTING {}", ids[from]));
            servers[from].command(&format!("CLUSTER SETSLOT {slot} MIGRATING {}", ids[to]));
            assert_eq!(take(&link, key).await.unwrap().tokens, 3);
            servers[from].command(&format!("MIGRATE 127.0.0.1 {} {held} 0 5000", servers[to].port));
            // The old one says where to ask.
            assert_eq!(take(&link, key).await.unwrap().tokens, 2);
            for server in [&servers[to], &servers[from]] {
                server.command(&format!("CLUSTER SETSLOT {slot} NODE {}", ids[to]));
            }
            assert_eq!(take(&link, key).await.unwrap().tokens, 1);
            servers[to].command("SCRIPT FLUSH");
            assert_eq!(take(&link, key).await.unwrap().tokens, 0);
            let mut get = redis::cmd("HGET");
            get.arg(names.bucket(key)).arg("s");
            assert_eq!(link.commands(&[get], LONG).await.map(|answers| answers.len()), Ok(1));
        });
    }
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

#[test]
fn a_promoted_replica_of_a_cluster_is_found() {
    let engine = Engine::all()[0];
    let (mut servers, ids) = cluster(engine);
    let args = ["--save", "", "--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-port", "{bus}"];
    let replica = StoreServer::start_with(engine, &args);
    let bus = replica.command("CONFIG GET cluster-port").lines().nth(4).unwrap().to_owned();
    servers[0].command(&format!("CLUSTER MEET 127.0.0.1 {} {bus}", replica.port));
    wait("the replica is not taken", || replica.command(&format!("CLUSTER REPLICATE {}", ids[2])).starts_with("+OK"));
    wait("the replica does not follow", || replica.command("INFO replication").contains("master_link_status:up"));
    let seeds: Vec<String> = servers.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
    // The others know whose replica it is.
    wait("nobody knows of the replica", || {
        servers[0].command(&format!("CLUSTER REPLICAS {}", ids[2])).contains("slave")
    });
    runtime().block_on(async {
        let (link, _stop) = start(&settings(&format!("redis+cluster://{}", seeds.join(","))));
        until(&link, true).await;
        let names = Names::new("tollgate");
        let all: Vec<ScriptCall> = (0..64).map(|key| bucket::ask(&names, key, &five())).collect();
        assert!(link.calls(&all, LONG).await.iter().all(Result::is_ok));
        servers[2].kill();
        let end = link.0.clock.now() + Duration::from_secs(12);
        loop {
            let answers = link.calls(&all, Duration::from_millis(200)).await;
            let Some(failed) = answers.iter().find(|answer| answer.is_err()) else { break };
            let role = || replica.command("ROLE");
            assert!(link.0.clock.now() < end, "the promoted replica is not found: {failed:?}, {}", role());
        }
    });
}

#[test]
fn a_primary_that_hands_over_is_left_at_once() {
    let engine = Engine::all()[0];
    let primary = StoreServer::start(engine);
    let of = primary.port.to_string();
    let replica = StoreServer::start_with(engine, &["--save", "", "--replicaof", "127.0.0.1", &of]);
    wait("the replica does not follow", || replica.command("INFO replication").contains("master_link_status:up"));
    runtime().block_on(async {
        // Without Sentinel, a server that became a replica is of no use, and that is said.
        let (link, _stop) = start(&settings(&primary.url()));
        until(&link, true).await;
        replica.command("REPLICAOF NO ONE");
        primary.command(&format!("REPLICAOF 127.0.0.1 {}", replica.port));
        assert!(matches!(take(&link, 7).await, Err(LinkError::Unreachable(said)) if said.contains("READONLY")));
        let mut state = link.state();
        let told = state
            .wait_for(|state| matches!(state, LinkState::Unreachable { reason, .. } if reason.contains("replica")));
        timeout(LONG, told).await.unwrap().unwrap();
        primary.command("REPLICAOF NO ONE");
        until(&link, true).await;
        assert_eq!(take(&link, 7).await.unwrap().tokens, 4);
    });
}
