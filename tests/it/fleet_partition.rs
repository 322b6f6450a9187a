//! Nodes are cut off from the store, written on with and without `?local=1`, and let back: all end the same, the newest
//! version of each client holds, and whoever has not seen it is told so.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::backend::Backend;
use crate::harness::client::{Body, Client, Request, Response};
use crate::harness::eventually;
use crate::harness::fleet::standing;
use crate::harness::instance::Instance;
use crate::harness::store::{Engine, StoreServer};

/// How long all nodes may differ once they have the store again: a node looks for what came twice a second, and joins
/// again within a second.
const LEVEL: Duration = Duration::from_secs(5);

/// The way of one node to the store, which can be cut.
#[derive(Clone, Default)]
struct Way(Arc<Mutex<WayState>>);

#[derive(Default)]
struct WayState {
    cut: bool,
    open: Vec<TcpStream>,
}

impl Way {
    /// A way to `target`, and where it begins. It ends with the process.
    fn to(target: u16) -> (Self, SocketAddr) {
        let (way, listener) = (Way::default(), TcpListener::bind("127.0.0.1:0").unwrap());
        let (passing, address) = (way.clone(), listener.local_addr().unwrap());
        std::thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                let mut state = passing.0.lock().unwrap();
                let (false, Ok(far)) = (state.cut, TcpStream::connect(("127.0.0.1", target))) else { continue };
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    std::thread::spawn(move || pass(from, to));
                }
                state.open.extend([near, far]);
            }
        });
        (way, address)
    }

    fn cut(&self) {
        let mut state = self.0.lock().unwrap();
        state.cut = true;
        // One that has ended already is as good.
        state.open.drain(..).for_each(|socket| drop(socket.shutdown(Shutdown::Both)));
    }

    fn heal(&self) {
        self.0.lock().unwrap().cut = false;
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    to.set_nodelay(true).unwrap();
    let mut bytes = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        if to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

struct Cut {
    _store: StoreServer,
    _backend: Backend,
    nodes: Vec<(Instance, Way)>,
}

impl Cut {
    fn start(engine: Engine) -> Self {
        let (store, backend) = (StoreServer::start(engine), Backend::scripted("a"));
        let node = |index| {
            let (way, address) = Way::to(store.port);
            let lines = format!("fleet: {{store: \"redis://{address}\", node: n{index}}}");
            (Instance::start(backend.address, &lines), way)
        };
        let nodes: Vec<_> = (0..3).map(node).collect();
        let cut = Cut { _store: store, _backend: backend, nodes };
        cut.wait(|_| "joined");
        cut
    }

    #[track_caller]
    fn wait(&self, state: impl Fn(usize) -> &'static str) {
        for (index, (node, _)) in self.nodes.iter().enumerate() {
            assert!(eventually(LEVEL, || standing(node)["state"] == state(index)), "{}", standing(node));
        }
    }

    /// Cuts some off, and lets the others back.
    #[track_caller]
    fn part(&self, away: [bool; 3]) {
        for ((_, way), away) in self.nodes.iter().zip(away) {
            if away { way.cut() } else { way.heal() }
        }
        self.wait(|index| if away[index] { "unreachable" } else { "joined" });
    }

    /// What all nodes say of the client with that name, as soon as that is the same.
    #[track_caller]
    fn level(&self, name: &str) -> (u64, u64, Vec<Value>) {
        let told = |node: &Instance| {
            let client = node.admin("GET", &format!("/clients/{name}"), "").json();
            let history = node.admin("GET", &format!("/clients/{name}/history"), "").json();
            (client["version"].as_u64(), client["capacity"].as_u64(), history["items"].as_array().cloned())
        };
        let all = || self.nodes.iter().map(|(node, _)| told(node)).collect::<Vec<_>>();
        // The same twice: what was changed on a node alone may be yet to come.
        let mut before = None;
        let level = eventually(LEVEL, || {
            let now = all();
            let same = now.iter().all(|told| *told == now[0] && told.0.is_some());
            let settled = same && before.as_ref() == Some(&now);
            before = Some(now);
            settled
        });
        assert!(level, "{name}: {:#?}", all());
        let (version, capacity, history) = before.unwrap().remove(0);
        (version.unwrap(), capacity.unwrap(), history.unwrap())
    }

    /// The capacity that these nodes come to have.
    #[track_caller]
    fn level_of(&self, nodes: &[usize], name: &str) -> u64 {
        let capacities = || -> Vec<_> {
            let of = |index: &usize| self.nodes[*index].0.admin("GET", &format!("/clients/{name}"), "").json();
            nodes.iter().map(of).map(|client| (client["version"].as_u64(), client["capacity"].as_u64())).collect()
        };
        assert!(eventually(LEVEL, || capacities().windows(2).all(|two| two[0] == two[1])), "{:?}", capacities());
        capacities()[0].1.unwrap()
    }
}

/// Changes a client, if it has this tag; on this node alone if need be.
#[track_caller]
fn patch(node: &Instance, name: &str, capacity: u64, tag: Option<&str>, alone: bool) -> Response {
    let target = format!("/clients/{name}{}", if alone { "?local=1" } else { "" });
    let body = json!({ "capacity": capacity }).to_string();
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(tag.map(|tag| ("if-match", tag)));
    let request =
        Request::new("PATCH", &target).host("localhost").headers(&headers).body(Body::Length(body.as_bytes()));
    Client::connect(node.admin).call(&request).unwrap()
}

/// The same, by a node that has the store: it may be about to follow again.
#[track_caller]
fn patch_joined(node: &Instance, name: &str, capacity: u64, tag: Option<&str>) -> Response {
    let mut answer = patch(node, name, capacity, tag, false);
    let taken = eventually(LEVEL, || {
        let done = answer.status != 503;
        if !done {
            answer = patch(node, name, capacity, tag, false);
        }
        done
    });
    assert!(taken, "{answer:?}");
    answer
}

#[test]
fn both_sides_write_and_the_newer_version_wins() {
    for engine in Engine::all() {
        let cut = Cut::start(engine);
        let [a, b] = [&cut.nodes[0].0, &cut.nodes[1].0];
        a.create("u", 1, 1.0);
        assert_eq!(cut.level("u").0, 1);
        cut.part([true, false, false]);
        let refused = patch(a, "u", 2, Some("\"1\""), false);
        assert_eq!((refused.status, refused.json()["message"].as_str()), (503, Some("Fleet store unreachable")));
        // Both have seen the same, and both are answered; the second of them is newer.
        let first = patch(a, "u", 3, Some("\"1\""), true);
        let second = patch_joined(b, "u", 4, Some("\"1\""));
        assert_eq!((first.status, second.status), (200, 200));
        cut.part([false; 3]);
        assert!(eventually(LEVEL, || cut.level("u").0 == 3), "{:?}", cut.level("u"));
        let (version, capacity, history) = cut.level("u");
        assert_eq!((version, capacity), (3, 4), "{history:#?}");
        let [first, second] = [&first, &second].map(|answer| answer.header("etag").unwrap());
        for node in [a, b] {
            assert_eq!(patch(node, "u", 9, Some(first), false).status, 412, "who lost is told so");
            assert_eq!(patch(node, "u", 9, Some(second), false).status, 412, "and who has not seen what came of it");
        }
        // Of two versions, the higher one is newer, though it was made before.
        cut.part([true, true, false]);
        assert_eq!(patch(a, "u", 11, None, true).status, 200);
        assert_eq!(patch(a, "u", 12, None, true).status, 200);
        assert_eq!(patch(b, "u", 13, None, true).status, 200);
        cut.part([false, true, false]);
        assert_eq!(cut.level_of(&[0, 2], "u"), 12);
        cut.part([false; 3]);
        let (version, capacity, history) = cut.level("u");
        assert_eq!((version, capacity, history.len()), (5, 12, 5), "{history:#?}");
    }
}

#[test]
fn whatever_is_cut_off_and_written_all_end_the_same() {
    let (rounds, given) = match std::env::var("TOLLGATE_TEST_FLEET") {
        Ok(form) if form == "long" => (30, fastrand::u64(..1 << 32)),
        _ => (3, 7),
    };
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(given);
    let (cut, mut random) = (Cut::start(Engine::all()[0]), fastrand::Rng::with_seed(seed));
    let names: Vec<_> = (0..4).map(|at| format!("c{at}")).collect();
    names.iter().for_each(|name| drop(cut.nodes[0].0.create(name, 1, 1.0)));
    names.iter().for_each(|name| drop(cut.level(name)));
    let mut capacity = 1;
    for round in 0..rounds {
        let away = [(); 3].map(|()| random.bool());
        cut.part(away);
        // Of each client, the highest version that was answered.
        let mut highest = vec![0; names.len()];
        for _ in 0..12 {
            let (at, index) = (random.usize(..names.len()), random.usize(..3));
            capacity += 1;
            let (node, name) = (&cut.nodes[index].0, &names[at]);
            let answer = match (away[index], random.bool()) {
                (true, alone) => patch(node, name, capacity, None, alone),
                (false, _) => patch_joined(node, name, capacity, None),
            };
            let told = answer.json();
            match answer.status {
                200 => highest[at] = told["version"].as_u64().unwrap().max(highest[at]),
                status => assert_eq!((status, away[index]), (503, true), "seed {seed}, round {round}: {answer:?}"),
            }
        }
        cut.part([false; 3]);
        for (name, highest) in names.iter().zip(highest) {
            let (version, capacity, history) = cut.level(name);
            assert!(version >= highest, "seed {seed}, round {round}: {name} has {version} of {highest}");
            let versions: Vec<_> = history.iter().map(|entry| entry["version"].as_u64().unwrap()).collect();
            let all: Vec<_> = (1..=version).rev().collect();
            assert_eq!(versions, all, "seed {seed}, round {round}: {name}");
            assert_eq!(history[0]["after"]["capacity"].as_u64(), Some(capacity), "seed {seed}, round {round}");
        }
    }
}
