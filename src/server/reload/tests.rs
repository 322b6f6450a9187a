//! One reload after the other, without a listener.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use futures_util::future::join_all;
use pingora_core::services::ServiceReadyNotifier;
use pingora_core::services::background::BackgroundService;
use tempfile::TempDir;
use tokio::sync::watch;

use super::*;
use crate::client::Quota;
use crate::clock::ManualClock;
use crate::config::{Overrides, load};
use crate::limit::samples::stranger;
use crate::proxy::SeatRoom;
use crate::server::builders::TelemetryPlane;
use crate::server::core::OpenedCore;
use crate::server::services::Health;
use crate::upstream::Anybody;

/// A reloader over a file, and what it changes.
struct World {
    dir: TempDir,
    reloader: Reloader,
    /// Stops what watches over the pools.
    _stop: watch::Sender<bool>,
}

const BASE: &str = "listeners: [{address: 127.0.0.1:8080}]\nadmin: {address: null}\ndatabase: null\n\
                    access_log: {path: null}\n";

fn file(dir: &TempDir) -> PathBuf {
    dir.path().join("tollgate.yaml")
}

fn read(path: &Path) -> Result<Config, Problems> {
    load(Some(path), &Overrides::default())
}

impl World {
    /// Serves pool `app` of a backend that is not checked.
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        std::fs::write(file(&dir), yaml(&[("app", 1)], "")).unwrap();
        let config = read(&file(&dir)).unwrap();
        let (core, OpenedCore { writer, .. }) =
            Core::open(&config, &[], None, (Arc::new(ManualClock::new()), &mut |_, _| ())).unwrap();
        let TelemetryPlane { metrics, service, .. } = TelemetryPlane::new(&core, writer, None);
        let (watches, orders) = mpsc::unbounded_channel();
        let health = Health::new(core.pools.all().to_vec(), orders, Arc::clone(&core.clock));
        let (stop, stopping) = watch::channel(false);
        let ready = ServiceReadyNotifier::new(watch::Sender::new(false));
        let watched = stopping.clone();
        tokio::spawn(async move { service.start(watched).await });
        tokio::spawn(async move { health.start_with_ready_notifier(stopping, ready).await });
        core.lifecycle.advance(State::Ready);
        let rules =
            Arc::new(ArcSwap::from_pointee(rules(&config, &core.pools.all(), (core.policies(&config), &core.spans))));
        let room = SeatRoom { auto: 10, most: 20 };
        let seats = Arc::new(Seats::new(Arc::clone(&rules), room, Arc::default(), Arc::clone(&core.clock)));
        let access = Arc::new(ArcSwap::from_pointee(Access::Loopback));
        let live = Live { core, rules, seats, access, watches, metrics };
        let path = file(&dir);
        let reloader = Reloader::new(Some(Arc::new(move || read(&path))), config, live);
        World { dir, reloader, _stop: stop }
    }

    async fn reload(&self, yaml: &str) -> Result<Vec<String>, ReloadRefused> {
        std::fs::write(file(&self.dir), yaml).unwrap();
        self.reloader.reload().await.map(|Reloaded { changed }| changed)
    }

    fn live(&self) -> &Live {
        &self.reloader.live
    }

    /// Where a request for `path` goes: the port of its backend.
    fn port(&self, path: &str) -> Option<u16> {
        let rules = self.live().rules.load();
        Some(rules.routes.find("", path)?.pool.lease(&[], &Anybody)?.backend().address().tcp()?.port())
    }

    fn counted(&self, result: &str) -> u32 {
        let name = format!("tollgate_config_reloads_total{{result=\"{result}\"}} ");
        let text = self.live().metrics.text(crate::telemetry::TextFormat::Prometheus);
        text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or_default()
    }
}

/// A file with these pools, each of one backend at this port, and a route of the pool's name to each.
fn yaml(pools: &[(&str, u16)], more: &str) -> String {
    let pool = |(name, port): &(&str, u16)| {
        format!("  - {{name: {name}, backends: [{{address: \"127.0.0.1:{port}\"}}], health_check: {{type: none}}}}\n")
    };
    let route = |(name, _): &(&str, u16)| format!("  - {{path: /{name}, upstream: {name}}}\n");
    let (upstreams, routes): (String, String) = (pools.iter().map(pool).collect(), pools.iter().map(route).collect());
    format!("{BASE}upstreams:\n{upstreams}routes:\n{routes}{more}\n")
}

fn fields(refused: ReloadRefused) -> Vec<String> {
    let ReloadRefused::Wrong(problems) = refused else { panic!("{refused:?}") };
    problems.into_iter().map(|(field, _)| field).collect()
}

#[tokio::test]
async fn what_changed_is_in_force_and_what_did_not_is_the_same() {
    let world = World::new();
    let before = world.live().core.pools.all();
    assert_eq!(world.reload(&yaml(&[("app", 1)], "")).await, Ok(Vec::new()));
    assert!(Arc::ptr_eq(&before[0], &world.live().core.pools.all()[0]));
    let more = "limits: {max_body: 5}\nrate_limit: {default: {capacity: 7, rate_per_sec: 1}, headers: false}";
    let changed = world.reload(&yaml(&[("app", 1), ("api", 2)], more)).await.unwrap();
    assert_eq!(changed, ["upstreams added: api", "routes changed", "rate_limit changed", "limits changed"]);
    assert_eq!((world.port("/app"), world.port("/api")), (Some(1), Some(2)));
    assert!(Arc::ptr_eq(&before[0], &world.live().core.pools.all()[0]));
    let rules = world.live().rules.load_full();
    assert_eq!((rules.limits.max_body, rules.rate.as_ref().unwrap().headers), (5, false));
    let anybody = stranger(1);
    let quota = rules.rate.as_ref().unwrap().default;
    let standing = world.live().core.limiter.peek(anybody, Quota::new(100, 1.0).unwrap(), 0);
    assert_eq!(standing.quota(), quota, "the limiter has it from the file, whoever brings another one");
    let changed = world.reload(&yaml(&[("api", 3)], "rate_limit: {enabled: false}")).await.unwrap();
    assert_eq!(changed[..2], ["upstreams removed: app", "upstreams changed: api"]);
    assert_eq!((world.port("/app"), world.port("/api")), (None, Some(3)));
    assert!(world.live().rules.load().rate.is_none());
    assert_eq!(rules.routes.find("", "/app").map(|to| to.pool.name()), Some("app"), "a request keeps what it has");
}

#[tokio::test]
async fn a_wrong_file_changes_nothing_and_every_problem_is_told() {
    let world = World::new();
    let wrong = yaml(&[("api", 2)], "limits: {max_body: -1, nonsense: 1}\nrate_limit: {default: {capacity: 0}}");
    let mut told = fields(world.reload(&wrong).await.unwrap_err());
    told.sort_unstable();
    let expected =
        ["limits.max_body", "limits.nonsense", "rate_limit.default.capacity", "rate_limit.default.rate_per_sec"];
    assert_eq!(told, expected);
    assert_eq!((world.port("/app"), world.port("/api")), (Some(1), None));
    assert_eq!((world.counted("success"), world.counted("failure")), (0, 1));
    assert!(world.reload(&yaml(&[("api", 2)], "")).await.is_ok(), "a refusal holds up nothing");
    assert_eq!((world.counted("success"), world.counted("failure")), (1, 1));
}

#[tokio::test]
async fn what_needs_a_restart_is_refused_with_all_the_rest() {
    let world = World::new();
    let fixed = yaml(&[("api", 2)], "pingora: {threads: 77}\nrate_limit: {max_buckets: 77}");
    let told = fields(world.reload(&fixed.replace("8080", "8081")).await.unwrap_err());
    assert_eq!(told, ["pingora.threads", "listeners[0].address", "rate_limit.max_buckets"]);
    assert_eq!((world.port("/app"), world.port("/api")), (Some(1), None));
    // Compared is always with what is in force.
    assert_eq!(world.reload(&yaml(&[("app", 1)], "")).await, Ok(Vec::new()));
}

#[tokio::test]
async fn a_log_that_cannot_be_opened_changes_nothing() {
    let world = World::new();
    let file = yaml(&[("api", 2)], "").replace("path: null", "path: no/such/directory/access.log");
    assert_eq!(fields(world.reload(&file).await.unwrap_err()), ["access_log.path"]);
    assert_eq!((world.port("/app"), world.port("/api")), (Some(1), None));
}

#[tokio::test]
async fn a_new_backend_is_checked_before_any_request_meets_it() {
    let world = World::new();
    let open = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = open.local_addr().unwrap().port();
    let checked = yaml(&[("app", 1), ("new", port)], "").replace("type: none", "type: tcp");
    world.reload(&checked).await.unwrap();
    assert_eq!(world.port("/new"), Some(port), "it was checked before the answer");
}

#[tokio::test]
async fn without_a_file_and_while_it_stops_it_is_refused() {
    let mut world = World::new();
    world.reloader.source = None;
    assert_eq!(fields(world.reload("").await.unwrap_err()), ["--conf"]);
    let world = World::new();
    let not_now = |state| Err(ReloadRefused::NotNow(format!("the server is {state}")));
    for (state, name) in [(State::HandingOver, "handing over"), (State::Draining, "draining")] {
        world.live().core.lifecycle.advance(state);
        assert_eq!(world.reload(&yaml(&[("api", 2)], "")).await, not_now(name));
    }
    assert_eq!((world.port("/app"), world.port("/api")), (Some(1), None));
}

#[tokio::test]
async fn one_that_a_hand_over_overtakes_changes_nothing_and_the_next_one_may() {
    let world = World::new();
    // Nobody answers, so its check takes until its time is up.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let checks = "type: http, interval: 1h, timeout: 100ms";
    let slow = yaml(&[("api", port)], "").replace("type: none", checks);
    let hand_over = async {
        // Once it is asked whether it is well, the reload is past its first look.
        let asked = spawn_blocking(move || silent.accept().unwrap()).await.unwrap();
        world.live().core.lifecycle.advance(State::HandingOver);
        asked
    };
    let (outcome, _asked) = tokio::join!(world.reload(&slow), hand_over);
    assert_eq!(outcome, Err(ReloadRefused::NotNow("the server is handing over".to_owned())));
    assert_eq!((world.port("/app"), world.port("/api")), (Some(1), None));
    world.live().core.lifecycle.advance(State::Ready);
    assert!(world.reload(&yaml(&[("api", 2)], "")).await.is_ok());
    assert_eq!((world.port("/app"), world.port("/api")), (None, Some(2)));
}

#[tokio::test]
async fn those_who_come_at_once_wait_for_each_other() {
    let world = World::new();
    std::fs::write(file(&world.dir), yaml(&[("app", 2)], "")).unwrap();
    let outcomes = join_all((0..8).map(|_| world.reloader.reload())).await;
    let changes = outcomes.into_iter().map(|outcome| outcome.unwrap().changed.len()).sum::<usize>();
    assert_eq!((changes, world.port("/app")), (1, Some(2)), "the first one changes it");
}

#[tokio::test]
async fn a_pools_weights_are_those_of_the_file() {
    let world = World::new();
    world.reload(&yaml(&[("app", 1)], "").replace("127.0.0.1:1\"", "127.0.0.1:1\", weight: 9")).await.unwrap();
    let pool = Arc::clone(&world.live().core.pools.all()[0]);
    assert_eq!(pool.settings().backends[0].weight, NonZeroU32::new(9).unwrap());
    assert_eq!(pool.overview().backends[0].weight, 9);
}
