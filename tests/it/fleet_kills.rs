//! Nodes and the store are killed while clients are written on all nodes at once: what was answered is kept, and all
//! nodes end the same.
//!
//! Every answered change has a version of its own, so the histories at the end tell of each whether it was kept. The
//! long form is that of `TOLLGATE_TEST_FLEET=long`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::client::Client;
use crate::harness::fleet::Fleet;
use crate::harness::instance::ask;
use crate::harness::store::{Engine, StoreServer};
use crate::harness::{PATIENCE, dawdle, eventually};

/// How long all nodes may differ after the last kill, once all are there again.
const LEVEL: Duration = Duration::from_secs(2);
/// The clients that all write.
const SHARED: usize = 5;
/// More than go into the line one by one.
const BULK: usize = 1_200;

/// The answered changes: of each client its versions, and the capacity that each gave it.
type Kept = Mutex<BTreeMap<(String, u64), u64>>;

/// One that writes on one node, wherever that is killed.
struct WriterOn<'a> {
    address: SocketAddr,
    index: usize,
    random: fastrand::Rng,
    kept: &'a Kept,
    answered: &'a AtomicUsize,
}

impl WriterOn<'_> {
    fn write(&mut self, round: usize) -> std::io::Result<()> {
        let client = &mut Client::try_connect(self.address)?;
        let name = match self.random.usize(..3) {
            0 => format!("own-{}", self.index),
            _ => format!("shared-{}", self.random.usize(..SHARED)),
        };
        // All differ.
        let capacity = (1_000_000 * (self.index + 1) + round) as u64;
        if self.random.usize(..20) == 0 {
            let item = |at| json!({"client_id": format!("bulk-{at}"), "capacity": capacity, "rate_per_sec": 1.0});
            let all = Value::from_iter((0..BULK).map(item));
            ask(client, "PUT", "/clients", &all.to_string())?;
            return Ok(());
        }
        let body = json!({"capacity": capacity, "rate_per_sec": 1.0}).to_string();
        let answer = ask(client, "PUT", &format!("/clients/{name}"), &body)?;
        if matches!(answer.status, 200 | 201) {
            let version = answer.json()["version"].as_u64().unwrap();
            let twice = self.kept.lock().unwrap().insert((name.clone(), version), capacity);
            assert_eq!(twice, None, "version {version} of {name} was answered twice");
            self.answered.fetch_add(1, Ordering::Relaxed);
        } else {
            assert_eq!(answer.status, 503, "{answer:?}");
        }
        Ok(())
    }
}

/// All that a node says of its clients, and of what became of those that all have written.
fn told(address: SocketAddr) -> Option<Vec<Value>> {
    let get = |target: &str| ask(&mut Client::try_connect(address).ok()?, "GET", target, "").ok();
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = get(&format!("/clients?limit=1000{cursor}"))?.json();
        for client in page["items"].as_array()? {
            all.push(json!([client["client_id"], client["version"], client["capacity"]]));
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Some(all),
        }
    }
}

fn history(address: SocketAddr, name: &str) -> Vec<Value> {
    let (mut all, mut before) = (Vec::new(), String::new());
    loop {
        let target = format!("/clients/{name}/history?limit=1000{before}");
        let page = ask(&mut Client::connect(address), "GET", &target, "").unwrap().json();
        let items = page["items"].as_array().unwrap().clone();
        let Some(last) = items.last().and_then(|last| last["version"].as_u64()) else { return all };
        before = format!("&before={last}");
        all.extend(items);
    }
}

/// Kills so many nodes, and the store so often, while all is written on.
fn kill(engine: Engine, seed: u64, (nodes, stores): (usize, usize)) {
    let store = StoreServer::start_with(engine, &["--appendonly", "yes", "--appendfsync", "always", "--save", ""]);
    let mut fleet = Fleet::over(store, 3, "", "history: {keep: 1000000}");
    let admins: Vec<_> = fleet.nodes.iter().map(|node| node.admin).collect();
    let (kept, answered, stop) = (Kept::default(), AtomicUsize::new(0), AtomicBool::new(false));
    let mut random = fastrand::Rng::with_seed(seed);
    std::thread::scope(|scope| {
        for (index, address) in admins.iter().copied().enumerate() {
            let random = fastrand::Rng::with_seed(seed + 1 + index as u64);
            let mut writer = WriterOn { address, index, random, kept: &kept, answered: &answered };
            let stop = &stop;
            scope.spawn(move || {
                for round in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    // A node that is away, or was killed before it answered.
                    if writer.write(round).is_err() {
                        dawdle(Duration::from_millis(5));
                    }
                }
            });
        }
        let mut kills = vec![true; nodes];
        kills.extend(vec![false; stores]);
        random.shuffle(&mut kills);
        for is_node in kills {
            let enough = answered.load(Ordering::Relaxed) + 20;
            let written = eventually(PATIENCE, || answered.load(Ordering::Relaxed) >= enough);
            assert!(written, "seed {seed}: nobody's changes are taken: {:?}", fleet.nodes[0].process.err.lines());
            if is_node {
                let node = &mut fleet.nodes[random.usize(..3)];
                node.kill();
                node.start_again();
            } else {
                fleet.store.restart();
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    fleet.wait_until("joined");
    let mut last = Vec::new();
    let level = eventually(LEVEL, || {
        last = admins.iter().map(|admin| told(*admin)).collect();
        last[0].is_some() && last.iter().all(|told| *told == last[0])
    });
    assert!(level, "seed {seed}: not level after {LEVEL:?}");
    let bulk: Vec<_> = last[0].iter().flatten().filter(|told| told[0].as_str().unwrap().starts_with("bulk")).collect();
    assert!(bulk.iter().all(|told| told[2] == bulk[0][2]), "seed {seed}: a bulk counts as a whole");
    assert!([0, BULK].contains(&bulk.len()), "seed {seed}: {}", bulk.len());
    let kept = kept.into_inner().unwrap();
    let names = (0..SHARED).map(|at| format!("shared-{at}")).chain((0..3).map(|at| format!("own-{at}")));
    for name in names {
        let histories: Vec<_> = admins.iter().map(|admin| history(*admin, &name)).collect();
        assert!(histories.iter().all(|history| *history == histories[0]), "seed {seed}: {name}");
        let there: BTreeMap<_, _> = histories[0]
            .iter()
            .map(|entry| (entry["version"].as_u64().unwrap(), entry["after"]["capacity"].as_u64()))
            .collect();
        for ((_, version), capacity) in kept.iter().filter(|((of, _), _)| *of == name) {
            assert_eq!(there.get(version), Some(&Some(*capacity)), "seed {seed}: version {version} of {name} is lost");
        }
    }
    println!("{engine:?}, seed {seed}: {} changes, {nodes} nodes and {stores} stores killed", kept.len());
}

#[test]
fn no_answered_write_is_lost_whoever_is_killed() {
    let (kills, given) = match std::env::var("TOLLGATE_TEST_FLEET") {
        Ok(form) if form == "long" => ((50, 10), fastrand::u64(..1 << 32)),
        _ => ((3, 2), 7),
    };
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(given);
    for engine in Engine::all() {
        kill(engine, seed, kills);
    }
}
