//! Several servers that stand for each other: replicas, Sentinel, a Cluster.

use super::*;
use crate::fleet::servers::{cluster, cluster_replica, wait};

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

#[test]
fn why_no_sentinel_names_a_primary_is_said() {
    let engine = Engine::all()[0];
    let primary = StoreServer::start(engine);
    let sentinel = StoreServer::sentinel(engine, primary.port);
    let nobody = crate::fleet::servers::free_port();
    let told = |url: String, words: [&'static str; 2]| {
        runtime().block_on(async {
            let (link, _stop) = start(&settings(&url));
            let mut state = link.state();
            let said = |state: &LinkState| {
                let why = state.why().map(LinkError::reason).unwrap_or_default();
                words.iter().all(|word| why.contains(word))
            };
            let told = timeout(LONG, state.wait_for(said)).await.is_ok();
            assert!(told, "{words:?}: {:?}", link.state().borrow());
        });
    };
    let both = format!("redis+sentinel://127.0.0.1:{nobody},127.0.0.1:{}", sentinel.port);
    told(format!("{both}/other"), ["refused", "it watches nothing under the name other"]);
    sentinel.command("ACL SETUSER default resetpass >other");
    told(format!("{both}/main"), ["no sentinel names a primary", "NOAUTH"]);
    told(
        format!("{both}/main").replace("//", "//:wrong@"),
        ["no sentinel names a primary", "the user or the password"],
    );
}

#[test]
fn a_node_of_a_cluster_is_not_taken_for_the_only_server() {
    for engine in Engine::all() {
        let (servers, _) = cluster(engine);
        let url = format!("redis://127.0.0.1:{}", servers[0].port);
        runtime().block_on(async {
            let (link, _stop) = start(&settings(&url));
            let mut state = link.state();
            let said = |state: &LinkState| state.why().is_some_and(|why| why.reason().contains("redis+cluster://"));
            let told = timeout(LONG, state.wait_for(said)).await.is_ok();
            assert!(told, "{engine:?}: {:?}", link.state().borrow());
            assert!(!link.state().borrow().is_reachable());
        });
        // Alone it has all that is asked for.
        let alone = StoreServer::start_with(engine, &["--save", "", "--cluster-enabled", "yes"]);
        alone.command("CLUSTER ADDSLOTSRANGE 0 16383");
        wait("no cluster", || alone.command("CLUSTER INFO").contains("cluster_state:ok"));
        runtime().block_on(async {
            let (link, _stop) = start(&settings(&alone.url()));
            until(&link, true).await;
            assert_eq!(take(&link, 7).await.unwrap().tokens, 4, "{engine:?}");
        });
    }
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
            let end = link.0.clock.now() + LONG;
            while link.figures().evicted_keys != Some(0) {
                assert!(link.0.clock.now() < end, "{engine:?}: of all nodes together: {:?}", link.figures());
                tokio::task::yield_now().await;
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
            let mut get = redis::cmd("GET");
            get.arg(names.bucket(key));
            assert_eq!(link.commands(&[get], LONG).await.map(|answers| answers.len()), Ok(1));
        });
    }
}

#[test]
fn a_promoted_replica_of_a_cluster_is_found() {
    let engine = Engine::all()[0];
    let (mut servers, ids) = cluster(engine);
    let replica = cluster_replica(engine, &servers, &ids[2]);
    let seeds: Vec<String> = servers.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
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
fn a_cluster_that_is_down_counts_as_unreachable_though_its_nodes_answer() {
    for engine in Engine::all() {
        let (mut servers, _) = cluster(engine);
        let url = format!("redis+cluster://127.0.0.1:{},127.0.0.1:{}", servers[0].port, servers[1].port);
        runtime().block_on(async {
            let (link, _stop) = start(&settings(&url));
            until(&link, true).await;
            servers[2].kill();
            wait("the Cluster is not down", || servers[0].command("CLUSTER INFO").contains("cluster_state:fail"));
            let names = Names::new("tollgate");
            let all: Vec<ScriptCall> = (0..64).map(|key| bucket::ask(&names, key, &five())).collect();
            let end = link.0.clock.now() + LONG;
            let is_told =
                || link.state().borrow().why().is_some_and(|why| why.reason().contains("the Cluster is down"));
            while !is_told() {
                assert!(link.0.clock.now() < end, "{engine:?}: {:?}", link.state().borrow());
                // As nodes ask whose callers wait no longer.
                link.calls(&all, Duration::from_millis(25)).await;
            }
            // And it stays so.
            let mut state = link.state();
            let back = timeout(Duration::from_secs(3), state.wait_for(LinkState::is_reachable)).await.is_ok();
            assert!(!back, "{engine:?}: {:?}", link.state().borrow());
        });
    }
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
        assert!(matches!(take(&link, 7).await, Err(LinkError::Refused(said)) if said.contains("READONLY")));
        let mut state = link.state();
        let told = state.wait_for(|state| state.why().is_some_and(|why| why.reason().contains("replica")));
        timeout(LONG, told).await.unwrap().unwrap();
        primary.command("REPLICAOF NO ONE");
        until(&link, true).await;
        assert_eq!(take(&link, 7).await.unwrap().tokens, 4);
    });
}
