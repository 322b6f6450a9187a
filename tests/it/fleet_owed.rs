//! What nodes give while the store is away they tell it when it is back, whatever became of them meanwhile: nobody gets
//! tokens back by a restart.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

use crate::harness::fleet::Fleet;
use crate::harness::instance::Instance;
use crate::harness::store::{Engine, StoreServer};
use crate::harness::{PATIENCE, eventually};

/// Three nodes, of which each has given its share of a client's 31 tokens since the store was killed: one is left.
struct Owing {
    fleet: Fleet,
    dir: TempDir,
}

impl Owing {
    fn start(engine: Engine) -> Self {
        let store = StoreServer::start_with(engine, &["--appendonly", "yes", "--appendfsync", "always", "--save", ""]);
        let (mut fleet, dir) = (Fleet::over(store, 0, "", ""), tempfile::tempdir().unwrap());
        for node in 0..3 {
            let (place, pid) = (socket(dir.path(), node), dir.path().join(format!("{node}.pid")));
            let place = format!("pingora: {{upgrade_sock: {}, pid_file: {}}}", place.display(), pid.display());
            let lines = format!("{}\n{place}", fleet.lines(&format!("node-{node}")));
            fleet.nodes.push(Instance::over(&database(dir.path(), node), fleet.backend.address, &lines));
        }
        fleet.wait_until("joined");
        fleet.wait_for_nodes(3);
        fleet.create("a", 31, 0.001);
        fleet.store.kill();
        fleet.wait_until("unreachable");
        assert_eq!([0, 1, 2].map(|node: usize| fleet.nodes[node].allowed("a", 31)), [10; 3]);
        Owing { fleet, dir }
    }

    /// What a node's database says that it owes.
    fn owed(&self, node: usize) -> i64 {
        let file = Connection::open_with_flags(database(self.dir.path(), node), OpenFlags::SQLITE_OPEN_READ_ONLY);
        file.unwrap().query_row("SELECT coalesce(sum(tokens), 0) FROM fleet_owed", [], |row| row.get(0)).unwrap()
    }

    /// Asserts that the token is let in that is left, and no more; and that nobody owes anything then.
    #[track_caller]
    fn assert_one_is_left(&self) {
        let fleet = &self.fleet;
        fleet.wait_until("joined");
        let left = || fleet.nodes[0].tokens("a").floor() as u64;
        assert!(eventually(PATIENCE, || left() == 1), "{}", left());
        let mut allowed = 0;
        assert!(eventually(PATIENCE, || {
            allowed += fleet.nodes.iter().map(|node| node.allowed("a", 3)).sum::<usize>();
            allowed > 0
        }));
        // What a node holds goes back after a second.
        assert!(eventually(PATIENCE, || fleet.nodes[0].tokens("a") < 1.0));
        allowed += fleet.nodes.iter().map(|node| node.allowed("a", 3)).sum::<usize>();
        assert_eq!(allowed, 1);
        assert!(eventually(PATIENCE, || (0..3).all(|node| self.owed(node) == 0)), "told, and not forgotten");
    }
}

fn socket(dir: &Path, node: usize) -> PathBuf {
    dir.join(format!("{node}.sock"))
}

fn database(dir: &Path, node: usize) -> PathBuf {
    dir.join(format!("{node}/tollgate.db"))
}

#[test]
fn nodes_that_are_stopped_upgraded_and_killed_while_the_store_is_away_tell_it_what_they_gave() {
    for engine in Engine::all() {
        let mut owing = Owing::start(engine);
        owing.fleet.nodes[0].stop();
        owing.fleet.nodes[0].start_again();
        let socket = socket(owing.dir.path(), 1);
        owing.fleet.nodes[1].upgrade(&socket);
        assert!(eventually(PATIENCE, || owing.owed(2) == 10), "{engine:?}: not saved");
        owing.fleet.nodes[2].kill();
        owing.fleet.nodes[2].start_again();
        // Nothing more while it is away, either.
        let more = |owing: &Owing| [0, 1, 2].map(|node: usize| owing.fleet.nodes[node].allowed("a", 3));
        assert_eq!(more(&owing), [0; 3], "{engine:?}");
        owing.fleet.store.restart();
        owing.assert_one_is_left();
    }
}

#[test]
fn nodes_that_start_after_the_store_is_back_tell_it_what_they_gave() {
    let mut owing = Owing::start(Engine::all()[0]);
    owing.fleet.nodes.iter_mut().for_each(|node| drop(node.stop()));
    owing.fleet.store.restart();
    owing.fleet.nodes.iter_mut().for_each(Instance::start_again);
    owing.assert_one_is_left();
}

#[test]
fn a_reset_of_one_node_that_is_restarted_comes_after_what_it_gave_before() {
    let mut owing = Owing::start(Engine::all()[0]);
    let reset = owing.fleet.nodes[1].admin("POST", "/clients/a/reset?local=1", "");
    assert_eq!(reset.status, 200, "{reset:?}");
    owing.fleet.nodes.iter_mut().for_each(|node| drop(node.stop()));
    owing.fleet.store.restart();
    for node in [0, 2] {
        owing.fleet.nodes[node].start_again();
        assert!(eventually(PATIENCE, || owing.owed(node) == 0));
    }
    assert_eq!(owing.fleet.nodes[0].tokens("a").floor(), 11.0);
    owing.fleet.nodes[1].start_again();
    assert!(eventually(PATIENCE, || owing.owed(1) == 0));
    assert!(eventually(PATIENCE, || owing.fleet.nodes[0].tokens("a").floor() == 31.0), "filled after that");
}
