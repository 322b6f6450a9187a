//! The pools and their backends.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;

use serde_yaml::Value;

use super::{sections, seen_at};
use crate::config::address::Target;
use crate::config::choice::CheckType;
use crate::config::key::{Key, List, Section};
use crate::config::leaf::Weight;
use crate::config::overrides::BackendOverride;
use crate::config::problem::{KeyPath, Report};
use crate::config::raw;
use crate::upstream::{BackendAddress, BackendSettings, Balance, Check, HealthSettings, PoolSettings, Timeouts};

/// Further attempts after the first.
const RETRIES: u32 = 2;

/// What a check of type http asks for and takes for healthy.
const CHECK_PATH: &str = "/";
const CHECK_EXPECT: RangeInclusive<u16> = 200..=399;

/// The pools of the file.
pub(super) struct Upstreams {
    /// Those that can be built.
    pub(super) pools: Vec<PoolSettings>,
    /// The names of all; none when one of them cannot be known.
    pub(super) names: Option<Vec<String>>,
}

pub(super) fn of_file(
    report: &mut Report,
    at: &KeyPath,
    key: Key<List<Section<raw::Upstream>>>,
    needed: bool,
) -> Upstreams {
    let Some(items) = sections(report, at, key, needed) else { return Upstreams { pools: Vec::new(), names: None } };
    let (mut pools, mut names, mut seen) = (Vec::new(), Vec::new(), HashMap::new());
    for (at, raw) in items {
        let Some(mut raw) = raw else {
            names.push(None);
            continue;
        };
        let name = report.need(&at.key("name"), std::mem::take(&mut raw.name));
        if let Some(name) = &name
            && let Some(first) = seen_at(&mut seen, name.clone(), &at)
        {
            report.add(&at.key("name"), format!("must be a name of its own, but {name:?} is the name of {first}"));
        }
        names.push(name.clone());
        pools.push(pool(report, &at, name.unwrap_or_default(), raw));
    }
    Upstreams { pools, names: names.into_iter().collect() }
}

/// The one pool of the command line.
pub(super) fn of_flags(report: &mut Report, flags: &[BackendOverride]) -> PoolSettings {
    let at = KeyPath::flag("--backend");
    let entries = flags.iter().map(|flag| Entry {
        address: (at.clone(), Key::read(&Value::from(flag.address.to_string()))),
        weight: (at.clone(), Key::read(&Value::from(flag.weight.get()))),
    });
    PoolSettings {
        name: "default".to_owned(),
        balance: Balance::default(),
        backends: backends(report, entries),
        health: HealthSettings::default(),
        retries: RETRIES,
        timeouts: Timeouts::default(),
    }
}

fn pool(report: &mut Report, at: &KeyPath, name: String, raw: raw::Upstream) -> PoolSettings {
    let default = Timeouts::default();
    let items = sections(report, &at.key("backends"), raw.backends, true).unwrap_or_default();
    let entries = items.into_iter().filter_map(|(at, raw)| {
        let raw = raw?;
        Some(Entry { address: (at.key("address"), raw.address), weight: (at.key("weight"), raw.weight) })
    });
    PoolSettings {
        name,
        balance: report.take(&at.key("balance"), raw.balance).unwrap_or_default(),
        backends: backends(report, entries),
        health: health(report, &at.key("health_check"), raw.health_check),
        retries: report.take(&at.key("retries"), raw.retries).unwrap_or(RETRIES),
        timeouts: Timeouts {
            connect: report.take(&at.key("connect_timeout"), raw.connect_timeout).unwrap_or(default.connect),
            read: report.take(&at.key("read_timeout"), raw.read_timeout).unwrap_or(default.read),
            write: report.take(&at.key("write_timeout"), raw.write_timeout).unwrap_or(default.write),
            idle: report.take(&at.key("idle_timeout"), raw.idle_timeout).unwrap_or(default.idle),
            tunnel: report.take(&at.key("tunnel_timeout"), raw.tunnel_timeout).unwrap_or(default.tunnel),
        },
    }
}

/// One backend, each part with its path.
struct Entry {
    address: (KeyPath, Key<Target>),
    weight: (KeyPath, Key<Weight>),
}

fn backends(report: &mut Report, entries: impl Iterator<Item = Entry>) -> Vec<BackendSettings> {
    let (mut backends, mut seen) = (Vec::new(), HashMap::new());
    for Entry { address: (at, address), weight: (weight_at, weight) } in entries {
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
        BackendAddress::Name { host, port } => {
            BackendAddress::Name { host: host.strip_suffix('.').unwrap_or(host).to_owned(), port: *port }
        }
    }
}

fn health(report: &mut Report, at: &KeyPath, key: Key<Section<raw::HealthCheck>>) -> HealthSettings {
    let raw = report.take(at, key).unwrap_or_default();
    let default = HealthSettings::default();
    let kind = match raw.r#type {
        Key::Absent => Some(CheckType::Tcp),
        key => report.take(&at.key("type"), key),
    };
    let http_only = [("path", matches!(raw.path, Key::Given(_))), ("expect", matches!(raw.expect, Key::Given(_)))];
    if matches!(kind, Some(CheckType::Tcp | CheckType::None)) {
        for (name, _) in http_only.into_iter().filter(|(_, given)| *given) {
            report.add(&at.key(name), "must be left out unless the check has type: http");
        }
    }
    let path = report.take(&at.key("path"), raw.path).unwrap_or_else(|| CHECK_PATH.to_owned());
    let expect = report.take(&at.key("expect"), raw.expect).unwrap_or(CHECK_EXPECT);
    HealthSettings {
        check: match kind {
            Some(CheckType::Http) => Check::Http { path, expect },
            Some(CheckType::None) => Check::None,
            Some(CheckType::Tcp) | None => Check::Tcp,
        },
        interval: report.take(&at.key("interval"), raw.interval).unwrap_or(default.interval),
        timeout: report.take(&at.key("timeout"), raw.timeout).unwrap_or(default.timeout),
        healthy_threshold: report
            .take(&at.key("healthy_threshold"), raw.healthy_threshold)
            .unwrap_or(default.healthy_threshold),
        unhealthy_threshold: report
            .take(&at.key("unhealthy_threshold"), raw.unhealthy_threshold)
            .unwrap_or(default.unhealthy_threshold),
    }
}
