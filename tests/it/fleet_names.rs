//! Two nodes of one name.

use serde_json::json;

use crate::harness::fleet::{Fleet, standing};
use crate::harness::instance::Instance;
use crate::harness::store::Engine;
use crate::harness::{PATIENCE, eventually};

const REASON: &str = "another node is called twin, too";

fn told(node: &Instance) -> usize {
    node.process.err.lines().iter().filter(|line| line.contains(REASON)).count()
}

#[test]
fn two_nodes_of_one_name_say_so_and_one_that_is_upgraded_does_not() {
    let fleet = Fleet::start(Engine::all()[0], 1, "", "");
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("sock");
    let place =
        format!("pingora: {{upgrade_sock: {}, pid_file: {}}}", socket.display(), dir.path().join("pid").display());
    let mut node = Instance::start(fleet.backend.address, &format!("{}\n{place}", fleet.lines("twin")));
    fleet.wait_for_nodes(2);
    node.upgrade(&socket);
    let seen = || {
        let nodes = standing(&node)["nodes"].clone();
        nodes.as_array().unwrap().iter().find(|node| node["node"] == "twin").map(|node| node["seen"].clone())
    };
    for _ in 0..3 {
        let last = seen();
        assert!(eventually(PATIENCE, || seen() != last));
    }
    assert_eq!((told(&node), &standing(&node)["reason"]), (0, &json!(null)));
    let mut other = Instance::start(fleet.backend.address, &fleet.lines("twin"));
    for node in [&node, &other] {
        assert!(eventually(PATIENCE, || standing(node)["reason"] == REASON), "{}", standing(node));
        assert_eq!((standing(node)["state"].as_str(), told(node)), (Some("joined"), 1));
    }
    other.stop();
    assert!(eventually(PATIENCE, || standing(&node)["reason"].is_null()));
    assert_eq!(told(&node), 1);
}
