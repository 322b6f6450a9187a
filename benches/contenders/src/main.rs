//! tollgate's leases beside two other ways to count over many nodes: one Lua call a request, as Traefik does it, and the
//! crate `limitador` with its cached Redis storage, as Kuadrant's service does it.
//!
//! All decide in this process, over the same redis-server on loopback, about the same requests. First so many a second,
//! by one task for each client: what that costs in processor time of this process, less what the same tasks cost that
//! decide nothing, and of the server; and how often the server is asked. Then as many as go, with the same figures.
//! Last, two instances are asked flat out for one client: how much of its quota do they let in together?
//!
//! `cargo run --release [-- paced|flat-out|over …]` in this directory, after `setup.sh`, as `make bench-fleet` does;
//! prints the tables of docs/fleet.md.

mod limitador_way;
mod lua_way;
mod measure;
mod nothing;
mod ours;
#[path = "../../../src/fleet/servers.rs"]
mod servers;

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use measure::{flat_out, over, paced};
use servers::{Engine, StoreServer};

/// As tollgate has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What can fail, with its reason.
pub type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// A way to count over many nodes.
pub trait Way: Sized + Send + Sync + 'static {
    /// Its name in tables.
    const NAME: &'static str;

    /// One instance of so many over this store, where each client has this quota.
    fn open(url: &str, instance: usize, of: usize, quota: Quota) -> impl Future<Output = Fallible<Self>>;

    /// Whether a request of this client is let in.
    fn decide(&self, client: usize) -> impl Future<Output = bool> + Send;

    /// How often the store was asked until now, where that is not once a decision.
    fn trips(&self) -> Option<u64>;
}

/// What each client has: so many at once, and so many a second.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    /// At once.
    pub capacity: u32,
    /// A second.
    pub rate: u32,
}

/// Clients that ask at the same time.
const CLIENTS: usize = 100;
/// What each asks a second.
const EACH: u32 = 200;
/// How long a round takes, and how many there are of each.
const ROUND: Duration = Duration::from_secs(5);
const ROUNDS: usize = 3;

fn main() -> Fallible<()> {
    let named: Vec<String> = std::env::args().skip(1).collect();
    let wants = |table: &str| named.is_empty() || named.iter().any(|name| name == table);
    let store = StoreServer::start(Engine::Redis);
    if wants("paced") {
        all_paced(&store)?;
    }
    if wants("flat-out") {
        all_flat_out(&store)?;
    }
    if wants("over") {
        println!("\nOne client flat out on two instances for 10 s:\n");
        println!("| way | quota | let in | C + ρ·t | part |\n|---|---|---:|---:|---:|");
        for quota in [Quota { capacity: 100, rate: 50 }, Quota { capacity: 1_000, rate: 1_000 }] {
            over::<ours::Ours>(&store, quota)?;
            over::<lua_way::LuaWay>(&store, quota)?;
            over::<limitador_way::LimitadorWay>(&store, quota)?;
        }
    }
    Ok(())
}

fn all_paced(store: &StoreServer) -> Fallible<()> {
    // All of what is asked, or two thirds.
    for quota in [Quota { capacity: 1_000, rate: 1_000 }, Quota { capacity: 133, rate: 133 }] {
        println!("\n{CLIENTS} clients, each asks {EACH} times a second and has {}/{}:\n", quota.capacity, quota.rate);
        println!("| way | let in | µs of CPU a decision, node | store | round trips |\n|---|---:|---:|---:|---:|");
        for _ in 0..ROUNDS {
            let nothing = paced::<nothing::Nothing>(store, quota, None)?;
            let ours = paced::<ours::Ours>(store, quota, Some(&nothing))?;
            let lua = paced::<lua_way::LuaWay>(store, quota, Some(&nothing))?;
            let ratio = (lua.node / ours.node, lua.store / ours.store, lua.trips / ours.trips);
            println!("| a Lua call ÷ tollgate | | {:.1} | {:.1} | {:.0} |", ratio.0, ratio.1, ratio.2);
            paced::<limitador_way::LimitadorWay>(store, quota, Some(&nothing))?;
        }
    }
    Ok(())
}

fn all_flat_out(store: &StoreServer) -> Fallible<()> {
    println!("\n{CLIENTS} clients flat out on two threads:\n");
    println!("| way | quota | decisions a second | µs of CPU a decision, node | store | round trips |");
    println!("|---|---|---:|---:|---:|---:|");
    for quota in [Quota { capacity: 1_000_000_000, rate: 1_000_000_000 }, Quota { capacity: 100, rate: 50 }] {
        for _ in 0..ROUNDS {
            let (_, nothing) = flat_out::<nothing::Nothing>(store, quota, None)?;
            let (ours, cost) = flat_out::<ours::Ours>(store, quota, Some(&nothing))?;
            let (_, lua) = flat_out::<lua_way::LuaWay>(store, quota, Some(&nothing))?;
            let (theirs, _) = flat_out::<limitador_way::LimitadorWay>(store, quota, Some(&nothing))?;
            let ratio = (ours / theirs, lua.node / cost.node, lua.store / cost.store);
            println!("| tollgate ÷ limitador | | {:.1} | | | |", ratio.0);
            println!("| a Lua call ÷ tollgate | | | {:.1} | {:.0} | |", ratio.1, ratio.2);
        }
    }
    Ok(())
}
