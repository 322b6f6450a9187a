//! A bad way to the store: it is long, it stands still at times, and segments get lost. The budget is the same.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use crate::harness::fleet::{BUDGETS, COSTS, Fleet, window};
use crate::harness::relay::{Loss, Relay};
use crate::harness::store::{Engine, StoreServer};
use crate::harness::{dawdle, now};

/// How long the way is, each way.
const DELAY: Duration = Duration::from_millis(2);
/// How long it stands still each time, and how long it does not in between.
const STALL: Duration = Duration::from_millis(300);
const BETWEEN: Duration = Duration::from_millis(1700);

#[test]
fn a_bad_way_to_the_store_changes_nothing_of_the_budget() {
    for engine in Engine::all() {
        let store = StoreServer::start(engine);
        let relay = Relay::start(SocketAddr::from(([127, 0, 0, 1], store.port)), DELAY);
        let fleet = Fleet::at(store, format!("redis://{}", relay.address), 3, "", COSTS);
        fleet.create_budgets();
        let loss = Loss::at(relay.address.port());
        if loss.is_none() {
            let _ = writeln!(std::io::stderr(), "no segments are lost: iptables is missing, or this is not root");
        }
        let loads = BUDGETS.map(|budget| budget.drain(&fleet.addresses()));
        let end = now() + window(Duration::from_secs(6));
        while now() < end {
            dawdle(BETWEEN);
            relay.stall(STALL);
            dawdle(STALL);
        }
        dawdle(BETWEEN);
        let tallies = loads.map(|load| load.stop());
        for (budget, tally) in BUDGETS.iter().zip(&tallies) {
            budget.tell("bad way", engine, 3, tally);
        }
        for node in &fleet.nodes { eprintln!("{}", node.process.err.text()); eprintln!("{}", node.admin("GET", "/metrics", "").text().lines().filter(|l| l.contains("tollgate_fleet_") && !l.contains("bucket") && !l.starts_with("#")).collect::<Vec<_>>().join("\n")); }
        for (budget, tally) in BUDGETS.iter().zip(&tallies) {
            budget.assert_exact(tally);
        }
    }
}
