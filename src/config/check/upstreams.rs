//! The pools and their backends.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use serde_yaml::Value;

use super::lists::{sections, seen_at};
use super::manner::{Doubts, Files, manner};
use crate::config::overrides::Overrides;
use crate::config::problem::KeyPath;
use crate::config::report::{Level, Report};
use crate::config::shape::{
    HashKeys, HealthCheckKeys, OutlierKeys, QueueKeys, RetryBudgetKeys, StickyKeys, UpstreamKeys,
};
use crate::config::value::{BackendPeer, BackendWeight, CheckType, OrNone};
use crate::config::written::{List, Section, Written};
use crate::tls::SystemRoots;
use crate::upstream::{
    BackendAddress, BackendSettings, Balance, Check, HashBy, HealthSettings, OutlierRules, PoolSettings, Protocol,
    QueueRules, RetryBudget, RetryOn, Timeouts,
};

/// Further attempts after the first.
const RETRIES: u32 = 2;

/// What a check of type http asks for and takes for healthy.
const CHECK_PATH: &str = "/";
const CHECK_EXPECT: RangeInclusive<u16> = 200..=399;

/// The pools of the file.
pub(super) struct FilePools {
    /// Those that can be built.
    pub(super) pools: Vec<PoolSettings>,
    /// The names of all; none when one of them cannot be known.
    pub(super) names: Option<Vec<String>>,
    /// What is not wise about them, and certificates that are not valid now.
    pub(super) doubts: Doubts,
}

impl FilePools {
    /// Has all of them balanced by `balance`, if there is one.
    pub(super) fn balance_by(&mut self, balance: Option<Balance>) {
        if let Some(balance) = balance {
            self.pools.iter_mut().for_each(|pool| pool.balance = balance);
        }
    }
}

pub(super) fn of_file(
    top: &mut Level<'_>,
    key: Written<List<Section<UpstreamKeys>>>,
    (needed, overrides): (bool, &Overrides),
) -> FilePools {
    let (system, mut doubts) = (SystemRoots::default(), Doubts::default());
    let Some(items) = sections(top, "upstreams", key, needed) else {
        return FilePools { pools: Vec::new(), names: None, doubts };
    };
    let (mut pools, mut names, mut seen) = (Vec::new(), Vec::new(), HashMap::new());
    for (at, keys) in items {
        let mut at = Level { report: top.report, at };
        let Some(mut keys) = keys else {
            names.push(None);
            continue;
        };
        let name = at.need("name", std::mem::take(&mut keys.name));
        if let Some(name) = &name
            && let Some(first) = seen_at(&mut seen, name.clone(), &at.at)
        {
            at.add("name", format!("must be a name of its own, but {name:?} is the name of {first}"));
        }
        names.push(name.clone());
        pools.push(pool(&mut at, name.unwrap_or_default(), keys, (&system, overrides, &mut doubts)));
    }
    FilePools { pools, names: names.into_iter().collect(), doubts }
}

/// The one pool of the command line.
pub(super) fn of_flags(report: &mut Report, overrides: &Overrides) -> PoolSettings {
    let at = KeyPath::flag(overrides.name("--backend", "TOLLGATE_BACKENDS"));
    let entries = overrides.backends.iter().map(|flag| BackendEntry {
        address: (at.clone(), Written::read(&Value::from(flag.address.to_string()))),
        weight: (at.clone(), Written::read(&Value::from(flag.weight.get()))),
    });
    PoolSettings { name: "default".to_owned(), backends: backends(report, entries), ..PoolSettings::default() }
}

fn pool(at: &mut Level<'_>, name: String, keys: UpstreamKeys, files: Files<'_>) -> PoolSettings {
    let default = Timeouts::default();
    let items = sections(at, "backends", keys.backends, true).into_iter().flatten();
    let entries = items.filter_map(|(at, keys)| keys.map(|keys| (at, keys))).map(|(at, keys)| BackendEntry {
        address: (at.key("address"), keys.address),
        weight: (at.key("weight"), keys.weight),
    });
    let backends = backends(at.report, entries);
    let manner = manner(at, (keys.protocol, keys.tls, keys.proxy_protocol), &backends, files);
    let balance = match keys.balance {
        Written::Absent => Some(Balance::default()),
        key => at.take("balance", key),
    };
    PoolSettings {
        name,
        hash: hash(at, keys.hash, balance),
        slow_start: at.or("slow_start", keys.slow_start, Duration::ZERO),
        sticky: sticky(at, keys.sticky),
        balance: balance.unwrap_or_default(),
        backends,
        health: health(at, keys.health_check, manner.protocol),
        retries: at.or("retries", keys.retries, RETRIES),
        retry_on: at.or("retry_on", keys.retry_on, RetryOn::default()),
        retry_budget: retry_budget(at, keys.retry_budget),
        max_in_flight: at.take("max_in_flight", keys.max_in_flight).flatten(),
        queue: queue(at, keys.queue),
        outlier: outlier(at, keys.outlier),
        timeouts: Timeouts {
            connect: at.or("connect_timeout", keys.connect_timeout, default.connect),
            read: at.or("read_timeout", keys.read_timeout, default.read),
            write: at.or("write_timeout", keys.write_timeout, default.write),
            idle: at.or("idle_timeout", keys.idle_timeout, default.idle),
            tunnel: at.or("tunnel_timeout", keys.tunnel_timeout, default.tunnel),
        },
        manner: Arc::new(manner),
    }
}

/// What a pool's requests are told apart by, which has to be said where its rule, if that is known, goes by it.
fn hash(at: &mut Level<'_>, key: Written<OrNone<Section<HashKeys>>>, balance: Option<Balance>) -> Option<HashBy> {
    let goes_by_it = balance.map(|balance| balance.needs().caller);
    let wrong = matches!(key, Written::Wrong(_));
    match (at.take("hash", key).flatten(), goes_by_it) {
        (Some(_), Some(false)) => at.add("hash", "must be left out unless balance is hash"),
        (Some(keys), _) => return at.below("hash").need("by", keys.by),
        (None, Some(true)) if !wrong => at.add(
            "hash",
            "is missing, must say what requests are told apart by where balance is hash, such as {by: client}",
        ),
        (None, _) => {}
    }
    None
}

/// How many further attempts the requests of a pool may have together.
fn retry_budget(at: &mut Level<'_>, key: Written<OrNone<Section<RetryBudgetKeys>>>) -> Option<RetryBudget> {
    let default = RetryBudget::default();
    if let Written::Absent = key {
        return Some(default);
    }
    let keys = at.take("retry_budget", key).flatten()?;
    let mut at = at.below("retry_budget");
    Some(RetryBudget {
        ratio: at.or("ratio", keys.ratio, default.ratio),
        min_per_sec: at.or("min_per_sec", keys.min_per_sec, default.min_per_sec),
    })
}

/// How a pool's requests wait for room.
fn queue(at: &mut Level<'_>, key: Written<Section<QueueKeys>>) -> QueueRules {
    let (keys, mut at) = at.section("queue", key);
    let default = QueueRules::default();
    QueueRules {
        size: at.or("size", keys.size, default.size),
        timeout: at.or("timeout", keys.timeout, default.timeout),
    }
}

/// When a pool's backends are left out for what they answer.
fn outlier(at: &mut Level<'_>, key: Written<OrNone<Section<OutlierKeys>>>) -> Option<OutlierRules> {
    let keys = at.take("outlier", key).flatten()?;
    let (mut at, default) = (at.below("outlier"), OutlierRules::default());
    Some(OutlierRules {
        errors: at.or("errors", keys.errors, default.errors),
        window: at.or("window", keys.window, default.window),
        eject: at.or("eject", keys.eject, default.eject),
        max_ejected: at.or("max_ejected", keys.max_ejected, default.max_ejected),
    })
}

/// The cookie by which clients stay with a backend of a pool.
fn sticky(at: &mut Level<'_>, key: Written<OrNone<Section<StickyKeys>>>) -> Option<Arc<str>> {
    let keys = at.take("sticky", key).flatten()?;
    at.below("sticky").need("cookie", keys.cookie)
}

/// One backend, each part with its path.
struct BackendEntry {
    address: (KeyPath, Written<BackendPeer>),
    weight: (KeyPath, Written<BackendWeight>),
}

fn backends(report: &mut Report, entries: impl Iterator<Item = BackendEntry>) -> Vec<BackendSettings> {
    let (mut backends, mut seen) = (Vec::new(), HashMap::new());
    for BackendEntry { address: (at, address), weight: (weight_at, weight) } in entries {
        let weight = report.take(&weight_at, weight).unwrap_or(NonZeroU32::MIN);
        let Some(address) = report.need(&at, address) else { continue };
        if let Some(first) = seen_at(&mut seen, same(&address), &at) {
            report
                .add(&at, format!("must be an address of its own in this upstream, but {address} is that of {first}"));
        }
        backends.push(BackendSettings { address, weight });
    }
    backends
}

/// `address` in the one form that all its spellings share.
fn same(address: &BackendAddress) -> BackendAddress {
    match address {
        BackendAddress::Socket(address) => {
            BackendAddress::Socket(SocketAddr::new(address.ip().to_canonical(), address.port()))
        }
        BackendAddress::Unix(path) => BackendAddress::Unix(path.clone()),
        BackendAddress::Name { host, port } => {
            BackendAddress::Name { host: host.strip_suffix('.').unwrap_or(host).to_owned(), port: *port }
        }
    }
}

fn health(pool: &mut Level<'_>, key: Written<Section<HealthCheckKeys>>, protocol: Protocol) -> HealthSettings {
    let (keys, mut at) = pool.section("health_check", key);
    let default = HealthSettings::default();
    let kind = match keys.r#type {
        Written::Absent => Some(CheckType::Tcp),
        key => at.take("type", key),
    };
    // What is the default anyhow asks for nothing that another check does not do.
    let http_only = [
        ("path", matches!(&keys.path, Written::Given(path) if path != CHECK_PATH)),
        ("expect", matches!(&keys.expect, Written::Given(expect) if *expect != CHECK_EXPECT)),
    ];
    if kind.is_some_and(|kind| kind != CheckType::Http) {
        for (name, _) in http_only.into_iter().filter(|(_, given)| *given) {
            at.add(name, "must be left out unless the check has type: http");
        }
    }
    let asks_for_one = matches!(&keys.service, Written::Given(service) if !service.is_empty());
    if asks_for_one && kind.is_some_and(|kind| kind != CheckType::Grpc) {
        at.add("service", "must be left out unless the check has type: grpc");
    }
    if kind == Some(CheckType::Grpc) && protocol == Protocol::Http1 {
        at.add("type", "must be tcp, http or none where the protocol is http/1.1: gRPC is spoken over HTTP/2");
    }
    let service = at.or("service", keys.service, String::new());
    let path = at.or("path", keys.path, CHECK_PATH.to_owned());
    let expect = at.or("expect", keys.expect, CHECK_EXPECT);
    HealthSettings {
        check: match kind {
            Some(CheckType::Http) => Check::Http { path, expect },
            Some(CheckType::Grpc) => Check::Grpc { service },
            Some(CheckType::None) => Check::None,
            Some(CheckType::Tcp) | None => Check::Tcp,
        },
        interval: at.or("interval", keys.interval, default.interval),
        timeout: at.or("timeout", keys.timeout, default.timeout),
        healthy_threshold: at.or("healthy_threshold", keys.healthy_threshold, default.healthy_threshold),
        unhealthy_threshold: at.or("unhealthy_threshold", keys.unhealthy_threshold, default.unhealthy_threshold),
    }
}
