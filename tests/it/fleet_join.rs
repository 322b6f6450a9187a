//! `tollgate fleet join`: a node with clients of its own meets a fleet that has some.

use crate::harness::fleet::Fleet;
use crate::harness::instance::Instance;
use crate::harness::process::{Finished, run};
use crate::harness::server::command;
use crate::harness::store::Engine;
use crate::harness::{PATIENCE, eventually};

/// A stopped node with clients of its own, that is to belong to `fleet`.
fn node_of_its_own(fleet: &Fleet, name: &str) -> Instance {
    let mut node = Instance::start(fleet.backend.address, "");
    node.create("a", 9, 9.0);
    node.create("b", 9, 9.0);
    node.stop();
    let upstreams = format!("upstreams: [{{name: app, backends: [{{address: \"{}\"}}]}}]", fleet.backend.address);
    node.configure(&format!("access_log: {{path: null}}\n{upstreams}\n{}", fleet.lines(name)));
    node
}

fn join(node: &Instance, flags: &[&str]) -> Finished {
    run(command().args(["fleet", "join"]).args(flags).arg("-c").arg(node.file()))
}

fn capacity(node: &Instance, id: &str) -> Option<u64> {
    let client = node.admin("GET", &format!("/clients/{id}"), "");
    (client.status == 200).then(|| client.json()["capacity"].as_u64().unwrap())
}

#[test]
fn a_node_with_clients_of_its_own_does_not_start_in_a_fleet_that_has_others() {
    let fleet = Fleet::start(Engine::all()[0], 1, "", "");
    fleet.create("a", 5, 1.0);
    let node = node_of_its_own(&fleet, "late");
    let refused = run(command().args(["run", "-c"]).arg(node.file()));
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for said in ["tollgate fleet join --import", "tollgate fleet join --replace"] {
        assert!(refused.err.contains(said), "{refused:?}");
    }
}

#[test]
fn its_clients_are_added_and_who_is_in_the_way_is_told() {
    let fleet = Fleet::start(Engine::all()[0], 1, "", "");
    fleet.create("a", 5, 1.0);
    let mut node = node_of_its_own(&fleet, "late");
    for _ in 0..2 {
        let joined = join(&node, &["--import"]);
        assert_eq!(joined.code, Some(1), "{joined:?}");
        assert!(joined.err.contains("tollgate: not added: client a exists already"), "{joined:?}");
        let told = "joined; its clients in the fleet: 1, not added: 1; the database from before is ";
        assert!(joined.out.starts_with(told) && joined.out.ends_with(".before-fleet\n"), "{joined:?}");
    }
    node.start_again();
    assert_eq!((capacity(&node, "a"), capacity(&node, "b")), (Some(5), Some(9)));
    assert!(eventually(PATIENCE, || capacity(&fleet.nodes[0], "b") == Some(9)));
}

#[test]
fn its_clients_are_given_up() {
    let fleet = Fleet::start(Engine::all()[0], 1, "", "");
    fleet.create("c", 5, 1.0);
    let mut node = node_of_its_own(&fleet, "late");
    let joined = join(&node, &["--replace"]);
    assert_eq!(joined.code, Some(0), "{joined:?}");
    node.start_again();
    assert_eq!(["a", "b", "c"].map(|id| capacity(&node, id)), [None, None, Some(5)]);
    let running = join(&node, &["--replace"]);
    assert_eq!(running.code, Some(1), "{running:?}");
    assert!(running.err.contains("stop the node first"), "{running:?}");
}

#[test]
fn what_is_missing_is_said_before_anything_is_touched() {
    let fleet = Fleet::start(Engine::all()[0], 1, "", "");
    fleet.create("c", 5, 1.0);
    let mut node = node_of_its_own(&fleet, "late");
    let unsaid = join(&node, &[]);
    assert_eq!(unsaid.code, Some(2), "{unsaid:?}");
    assert!(unsaid.err.contains("--import") && unsaid.err.contains("--replace"), "{unsaid:?}");
    let upstreams = format!("upstreams: [{{name: app, backends: [{{address: \"{}\"}}]}}]", fleet.backend.address);
    node.configure(&upstreams);
    let alone = join(&node, &["--import"]);
    assert_eq!(alone.code, Some(2), "{alone:?}");
    assert!(alone.err.contains("fleet: is not set"), "{alone:?}");
    node.configure(&format!("{upstreams}\nfleet: {{store: 'redis://127.0.0.1:1'}}"));
    let away = join(&node, &["--import"]);
    assert_eq!(away.code, Some(1), "{away:?}");
    assert!(away.err.contains("the fleet's store cannot be reached; nothing is lost"), "{away:?}");
    node.configure(&upstreams);
    node.start_again();
    assert_eq!((capacity(&node, "a"), capacity(&node, "b")), (Some(9), Some(9)));
}
