//! A bad way to the store: it is long, it stands still at times, and segments get lost. Callers get all that is theirs, and
//! no more but what is owed then.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use crate::harness::fleet::{Budget, COSTS, Drain, Fleet, assert_exact, window};
use crate::harness::relay::{Loss, Relay};
use crate::harness::store::{Engine, StoreServer};
use crate::harness::{dawdle, now};

/// How long the way is, each way.
const DELAY: Duration = Duration::from_millis(2);
/// How long it stands still each time, and how long it does not in between.
const STALL: Duration = Duration::from_millis(300);
const BETWEEN: Duration = Duration::from_millis(1700);

#[test]
fn a_bad_way_to_the_store_costs_callers_nothing() {
    for engine in Engine::all() {
        let store = StoreServer::start(engine);
        let relay = Relay::start(SocketAddr::from(([127, 0, 0, 1], store.port)), DELAY);
        let fleet = Fleet::at(store, format!("redis://{}", relay.address), 3, "", COSTS);
        fleet.create_budgets();
        let loss = Loss::at(relay.address.port());
        if loss.is_none() {
            let _ = writeln!(std::io::stderr(), "no segments are lost: iptables is missing, or this is not root");
        }
        let load = Drain::some(&fleet.addresses());
        let end = now() + window(Duration::from_secs(6));
        while now() < end {
            dawdle(BETWEEN);
            relay.stall(STALL);
            dawdle(STALL);
        }
        dawdle(BETWEEN);
        let drained = load.stop();
        // A stall is longer than it takes to be noticed: until each node has told what it gave of its part, that is owed.
        let owed = |budget: &Budget| budget.capacity as f64 / budget.cost as f64;
        // What a lost question has taken comes back by the next one.
        assert_exact(("bad way", engine, 3), &drained, (owed, |_: &Budget| 0.0));
    }
}
