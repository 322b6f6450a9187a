//! What no key can know alone, and the building of the [`Config`].
//!
//! Every function here reports what it finds and goes on. Where a value is wrong its default stands in, so that the
//! rest can be looked at; nothing is built when anything was reported.

mod admin;
mod listeners;
mod routes;
mod upstreams;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::time::Duration;

use super::key::{Key, Leaf, List, Section};
use super::overrides::Overrides;
use super::problem::{KeyPath, Report};
use super::{Config, PingoraSettings, raw};
use crate::client::{PrefixMap, Quota};
use crate::limit::RateLimit;
use crate::process::ProcessSettings;
use crate::proxy::{Identity, Limits};
use crate::route::Route;
use crate::store::HistoryRules;
use crate::telemetry::{AccessLogSettings, AccessLogTarget};

/// Where clients and buckets are kept when nobody says where.
const DATABASE: &str = "data/tollgate.db";

/// Checks `file`, puts `overrides` in its place, and builds the configuration; none when anything was reported.
pub(super) fn check(file: Option<raw::File>, overrides: &Overrides, report: &mut Report) -> Option<Config> {
    let top = KeyPath::default();
    if file.is_none() {
        require_flag(report, "--listen", "127.0.0.1:8080", overrides.listen.is_empty());
        require_flag(report, "--backend", "127.0.0.1:9001", overrides.backends.is_empty());
    }
    // A part that is overridden may be missing, but when it is there it is checked all the same.
    let needs_listeners = file.is_some() && overrides.listen.is_empty();
    let needs_upstreams = file.is_some() && overrides.backends.is_empty();
    let file = file.unwrap_or_default();

    let pingora = pingora(report, &top.key("pingora"), file.pingora, overrides);
    let mut listeners = listeners::of_file(report, &top.key("listeners"), file.listeners, (needs_listeners, overrides));
    let mut admin = admin::of_file(report, &top.key("admin"), file.admin, overrides);
    let direct = report.take(&top.key("direct"), file.direct).unwrap_or(true);
    let mut database = report.take(&top.key("database"), file.database).unwrap_or_else(|| Some(DATABASE.into()));
    let history = history(report, &top.key("history"), file.history);
    let mut upstreams = upstreams::of_file(report, &top.key("upstreams"), file.upstreams, needs_upstreams);
    let mut routes = routes::of_file(report, &top.key("routes"), file.routes, upstreams.names.as_deref());
    let identity = identity(report, &top.key("identity"), file.identity);
    let rate_limit = rate_limit(report, &top.key("rate_limit"), file.rate_limit);
    let limits = limits(report, &top.key("limits"), file.limits);
    let access_log = access_log(report, &top.key("access_log"), file.access_log, overrides);

    if !overrides.listen.is_empty() {
        listeners = listeners::of_flags(report, &overrides.listen);
    }
    if let Some(address) = overrides.admin {
        admin.move_to(report, address);
    }
    if let Some(path) = &overrides.database {
        database = Some(path.clone());
    }
    let database = database.map(|path| overrides.locate(path));
    if !overrides.backends.is_empty() {
        let pool = upstreams::of_flags(report, &overrides.backends);
        routes = vec![Route::catch_all(&pool.name)];
        upstreams.pools = vec![pool];
    }
    if let Some(balance) = overrides.balance {
        upstreams.pools.iter_mut().for_each(|pool| pool.balance = balance);
    }
    let upstreams = upstreams.pools;
    let (admin, mut warnings) = admin.finish(report, &listeners.addresses());
    warnings.extend(listeners.warnings);
    let lapsed = listeners.lapsed;
    let listeners = listeners.list.into_iter().map(|(_, listener)| listener).collect();
    let config = Config {
        pingora,
        listeners,
        admin,
        direct,
        database,
        history,
        identity,
        rate_limit,
        upstreams,
        routes,
        limits,
        access_log,
        warnings,
        lapsed,
    };
    report.problems.is_empty().then_some(config)
}

fn require_flag(report: &mut Report, flag: &str, example: &str, missing: bool) {
    if missing {
        let message = format!("is missing, must be given (as in {flag} {example}) when there is no configuration file");
        report.add(&KeyPath::flag(flag), message);
    }
}

/// The longest path of a Unix socket, in bytes (unix(7)).
const LONGEST_SOCKET: usize = 107;

fn pingora(
    report: &mut Report,
    at: &KeyPath,
    key: Key<Section<raw::Pingora>>,
    overrides: &Overrides,
) -> PingoraSettings {
    let raw = report.take(at, key).unwrap_or_default();
    let default = PingoraSettings::default();
    report.take(&at.key("version"), raw.version);
    let locate = |path| overrides.locate(path);
    let directory_at = at.key("working_directory");
    let working_directory = report.take(&directory_at, raw.working_directory).map(|path| overrides.locate(path));
    if let Some(path) = working_directory.as_ref().filter(|path| !path.is_dir()) {
        report.add(&directory_at, format!("must be a directory that is there, not {}", path.display()));
    }
    let grace_period = report.take(&at.key("grace_period_seconds"), raw.grace_period_seconds);
    let socket_at = at.key("upgrade_sock");
    let upgrade_sock = report.take(&socket_at, raw.upgrade_sock).map(|path| overrides.locate(path));
    if let Some(path) = upgrade_sock.as_ref().filter(|path| path.as_os_str().len() > LONGEST_SOCKET) {
        report.add(&socket_at, format!("must be a path of at most {LONGEST_SOCKET} bytes, not {}", path.display()));
    }
    PingoraSettings {
        threads: report.take(&at.key("threads"), raw.threads).unwrap_or(default.threads),
        work_stealing: report.take(&at.key("work_stealing"), raw.work_stealing).unwrap_or(default.work_stealing),
        listener_tasks_per_fd: report
            .take(&at.key("listener_tasks_per_fd"), raw.listener_tasks_per_fd)
            .unwrap_or(default.listener_tasks_per_fd),
        upstream_keepalive_pool_size: report
            .take(&at.key("upstream_keepalive_pool_size"), raw.upstream_keepalive_pool_size)
            .unwrap_or(default.upstream_keepalive_pool_size),
        grace_period: grace_period.map_or(default.grace_period, Duration::from_secs),
        process: ProcessSettings {
            daemon: report.take(&at.key("daemon"), raw.daemon).unwrap_or(default.process.daemon),
            pid_file: report.take(&at.key("pid_file"), raw.pid_file).map_or(default.process.pid_file, locate),
            upgrade_sock: upgrade_sock.unwrap_or(default.process.upgrade_sock),
            user: report.take(&at.key("user"), raw.user),
            group: report.take(&at.key("group"), raw.group),
            working_directory,
            error_log: report.take(&at.key("error_log"), raw.error_log).flatten().map(locate),
        },
    }
}

fn identity(report: &mut Report, at: &KeyPath, key: Key<Section<raw::Identity>>) -> Identity {
    let raw = report.take(at, key).unwrap_or_default();
    let default = Identity::default();
    let proxies_at = at.key("trusted_proxies");
    let proxies = report.take(&proxies_at, raw.trusted_proxies).unwrap_or_default();
    let proxies =
        proxies.into_iter().enumerate().filter_map(|(index, proxy)| report.take(&proxies_at.item(index), proxy));
    let trusted_proxies = proxies.map(|network| (network, ())).collect::<Vec<_>>();
    Identity {
        api_key_header: report.take(&at.key("api_key_header"), raw.api_key_header).unwrap_or(default.api_key_header),
        unknown_api_key: report
            .take(&at.key("unknown_api_key"), raw.unknown_api_key)
            .unwrap_or(default.unknown_api_key),
        trusted_proxies: PrefixMap::new(trusted_proxies),
        ipv6_prefix: report.take(&at.key("ipv6_prefix"), raw.ipv6_prefix).unwrap_or(default.ipv6_prefix),
        underscores: report.take(&at.key("underscores"), raw.underscores).unwrap_or(default.underscores),
    }
}

fn history(report: &mut Report, at: &KeyPath, key: Key<Section<raw::History>>) -> HistoryRules {
    let raw = report.take(at, key).unwrap_or_default();
    let default = HistoryRules::default();
    let days = report.take(&at.key("days"), raw.days);
    HistoryRules {
        keep: report.take(&at.key("keep"), raw.keep).unwrap_or(default.keep),
        age: days.map_or(default.age, |days| Duration::from_secs(days * 24 * 60 * 60)),
    }
}

fn rate_limit(report: &mut Report, at: &KeyPath, key: Key<Section<raw::RateLimit>>) -> RateLimit {
    let raw = report.take(at, key).unwrap_or_default();
    let default = RateLimit::default();
    let quota_at = at.key("default");
    let quota = report.take(&quota_at, raw.default).and_then(|raw| {
        let capacity = report.need(&quota_at.key("capacity"), raw.capacity);
        let rate = report.need(&quota_at.key("rate_per_sec"), raw.rate_per_sec);
        Quota::from_parts(capacity?, rate?).ok()
    });
    RateLimit {
        enabled: report.take(&at.key("enabled"), raw.enabled).unwrap_or(default.enabled),
        quota: quota.unwrap_or(default.quota),
        max_buckets: report.take(&at.key("max_buckets"), raw.max_buckets).unwrap_or(default.max_buckets),
        refill_interval: report
            .take(&at.key("refill_interval"), raw.refill_interval)
            .unwrap_or(default.refill_interval),
        persist_interval: report
            .take(&at.key("persist_interval"), raw.persist_interval)
            .unwrap_or(default.persist_interval),
        headers: report.take(&at.key("headers"), raw.headers).unwrap_or(default.headers),
    }
}

fn limits(report: &mut Report, at: &KeyPath, key: Key<Section<raw::Limits>>) -> Limits {
    let raw = report.take(at, key).unwrap_or_default();
    let default = Limits::default();
    Limits {
        max_body: report.take(&at.key("max_body"), raw.max_body).unwrap_or(default.max_body),
        header_timeout: report.take(&at.key("header_timeout"), raw.header_timeout).unwrap_or(default.header_timeout),
        keepalive_timeout: report
            .take(&at.key("keepalive_timeout"), raw.keepalive_timeout)
            .unwrap_or(default.keepalive_timeout),
        abort_on_half_close: report
            .take(&at.key("abort_on_half_close"), raw.abort_on_half_close)
            .unwrap_or(default.abort_on_half_close),
        max_connections: report.take(&at.key("max_connections"), raw.max_connections).flatten(),
        max_connections_per_address: report
            .take(&at.key("max_connections_per_address"), raw.max_connections_per_address)
            .flatten(),
        body_timeout: report.take(&at.key("body_timeout"), raw.body_timeout).unwrap_or(default.body_timeout),
        min_body_rate: report.take(&at.key("min_body_rate"), raw.min_body_rate).unwrap_or(default.min_body_rate),
    }
}

fn access_log(
    report: &mut Report,
    at: &KeyPath,
    key: Key<Section<raw::AccessLog>>,
    overrides: &Overrides,
) -> AccessLogSettings {
    let raw = report.take(at, key).unwrap_or_default();
    let default = AccessLogSettings::default();
    let mut target = report.take(&at.key("path"), raw.path).unwrap_or(default.target);
    if let Some(AccessLogTarget::File(path)) = &mut target {
        *path = overrides.locate(std::mem::take(path));
    }
    AccessLogSettings { target, format: report.take(&at.key("format"), raw.format).unwrap_or(default.format) }
}

/// The items of a list of sections, each with its path; one that is no section is reported, and none. No list at all
/// when there is none, which is reported when it is `needed`.
fn sections<T>(
    report: &mut Report,
    at: &KeyPath,
    key: Key<List<Section<T>>>,
    needed: bool,
) -> Option<Vec<(KeyPath, Option<T>)>>
where
    Section<T>: Leaf<Checked = T>,
{
    let items = if needed { report.need(at, key) } else { report.take(at, key) }?;
    let items = items.into_iter().enumerate().map(|(index, item)| (at.item(index), item));
    Some(items.map(|(at, item)| (at.clone(), report.take(&at, item))).collect())
}

/// Where `value` was seen first, when this is not the first time; else this is remembered as the first.
fn seen_at<T: Eq + Hash>(seen: &mut HashMap<T, KeyPath>, value: T, at: &KeyPath) -> Option<KeyPath> {
    match seen.entry(value) {
        Entry::Occupied(first) => Some(first.get().clone()),
        Entry::Vacant(free) => {
            free.insert(at.clone());
            None
        }
    }
}
