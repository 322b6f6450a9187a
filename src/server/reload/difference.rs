//! What differs between two configurations: what a reload cannot change, and what it changes, in words.

use std::collections::HashMap;

use crate::config::{AdminSettings, Config, ListenerSettings, PingoraSettings};
use crate::fleet::FleetSettings;
use crate::limit::RateLimit;
use crate::process::ProcessSettings;
use crate::tls::Pair;

/// Why a key that differs stands against a reload.
const RESTART: &str = "cannot change while tollgate runs; restart it, or run `tollgate upgrade`";
/// The same for what an upgrade finds the running process by.
const STOP: &str = "cannot change while tollgate runs, not even by `tollgate upgrade`; stop it and start it again";

/// The keys that differ and that only a restart changes, each with the reason.
pub(super) fn needs_a_restart(old: &Config, new: &Config) -> Vec<(String, String)> {
    let mut keys = pingora(&old.pingora, &new.pingora);
    keys.extend(listeners(old, new));
    let address = |admin: &Option<AdminSettings>| admin.as_ref().map(|admin| admin.address.clone());
    let secure = |admin: &Option<AdminSettings>| admin.as_ref().map(|admin| admin.tls.is_some());
    let RateLimit { max_buckets, refill_interval, persist_interval, .. } = &old.rate_limit;
    let rest = [
        ("admin.address", address(&old.admin) != address(&new.admin)),
        ("admin.tls", secure(&old.admin) != secure(&new.admin) && address(&old.admin) == address(&new.admin)),
        ("database", old.database != new.database),
        ("fleet", old.fleet.is_some() != new.fleet.is_some()),
        ("rate_limit.max_buckets", *max_buckets != new.rate_limit.max_buckets),
        ("rate_limit.refill_interval", *refill_interval != new.rate_limit.refill_interval),
        ("rate_limit.persist_interval", *persist_interval != new.rate_limit.persist_interval),
    ];
    keys.extend(rest.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key.to_owned()));
    keys.extend(old.fleet.iter().zip(&new.fleet).flat_map(|(old, new)| fleet(old, new)));
    let reason = |key: &str| match key {
        "pingora.pid_file" | "pingora.upgrade_sock" | "pingora.user" => STOP,
        _ => RESTART,
    };
    keys.into_iter().map(|key| (reason(&key).to_owned(), key)).map(|(reason, key)| (key, reason)).collect()
}

/// All of Pingora's keys: they are read once.
fn pingora(old: &PingoraSettings, new: &PingoraSettings) -> Vec<String> {
    // Each by name, so that a key that is new cannot be forgotten here.
    let PingoraSettings {
        threads,
        work_stealing,
        listener_tasks_per_fd,
        upstream_keepalive_pool_size,
        grace_period,
        process,
    } = old;
    let ProcessSettings { daemon, pid_file, upgrade_sock, user, group, working_directory, error_log } = process;
    let keys = [
        ("threads", *threads != new.threads),
        ("work_stealing", *work_stealing != new.work_stealing),
        ("listener_tasks_per_fd", *listener_tasks_per_fd != new.listener_tasks_per_fd),
        ("upstream_keepalive_pool_size", *upstream_keepalive_pool_size != new.upstream_keepalive_pool_size),
        ("grace_period_seconds", *grace_period != new.grace_period),
        ("daemon", *daemon != new.process.daemon),
        ("pid_file", *pid_file != new.process.pid_file),
        ("upgrade_sock", *upgrade_sock != new.process.upgrade_sock),
        ("user", *user != new.process.user),
        ("group", *group != new.process.group),
        ("working_directory", *working_directory != new.process.working_directory),
        ("error_log", *error_log != new.process.error_log),
    ];
    keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| format!("pingora.{key}")).collect()
}

/// All keys of the fleet.
fn fleet(old: &FleetSettings, new: &FleetSettings) -> Vec<String> {
    let FleetSettings { store, password_file, tls, prefix, node, lease, timeout, max_asks, when_unreachable } = old;
    let keys = [
        ("store", *store != new.store),
        ("password_file", *password_file != new.password_file),
        ("tls", *tls != new.tls),
        ("prefix", *prefix != new.prefix),
        ("node", *node != new.node),
        ("lease", *lease != new.lease),
        ("timeout", *timeout != new.timeout),
        ("max_asks", *max_asks != new.max_asks),
        ("when_unreachable", *when_unreachable != new.when_unreachable),
    ];
    keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| format!("fleet.{key}")).collect()
}

/// The listeners that are not the same any more, in whatever order; those that went are told as the list.
fn listeners(old: &Config, new: &Config) -> Vec<String> {
    let find = |address| old.listeners.iter().find(|listener| listener.address == address);
    let mut keys = Vec::new();
    for (index, listener) in new.listeners.iter().enumerate() {
        match find(listener.address) {
            None => keys.push(format!("listeners[{index}].address")),
            // Another certificate is no other listener.
            Some(old) if old.tls.is_some() != listener.tls.is_some() => keys.push(format!("listeners[{index}].tls")),
            Some(_) => {}
        }
    }
    if keys.is_empty() && old.listeners.len() != new.listeners.len() {
        keys.push("listeners".to_owned());
    }
    keys
}

/// What a reload changes, one sentence each.
pub(super) fn changes(old: &Config, new: &Config) -> Vec<String> {
    let mut told = upstreams(old, new);
    let before = |new: &ListenerSettings| old.listeners.iter().find(|listener| listener.address == new.address);
    let differing = |differs: fn(&ListenerSettings, &ListenerSettings) -> bool| -> Vec<_> {
        let listeners = new.listeners.iter().filter(|new| before(new).is_some_and(|old| differs(old, new)));
        listeners.map(|listener| listener.address.to_string()).collect()
    };
    let lists = [
        ("certificates", differing(|old, new| pairs(old) != pairs(new))),
        ("listeners", differing(|old, new| old.rules != new.rules || pairs(old) == pairs(new) && old.tls != new.tls)),
    ];
    let lists = lists.into_iter().filter(|(_, addresses)| !addresses.is_empty());
    told.extend(lists.map(|(what, addresses)| format!("{what} changed: {}", addresses.join(", "))));
    let access = |admin: &Option<AdminSettings>| admin.as_ref().map(|admin| admin.access.clone());
    let admin_pair = |admin: &Option<AdminSettings>| admin.as_ref().and_then(|admin| admin.tls.clone());
    let sections = [
        ("routes", old.routes != new.routes),
        ("identity", old.identity != new.identity),
        ("answers", old.answers != new.answers),
        ("rate_limit", old.rate_limit != new.rate_limit),
        ("plans", old.plans != new.plans),
        ("policies", old.policies != new.policies),
        ("direct", old.direct != new.direct),
        ("history", old.history != new.history),
        ("limits", old.limits != new.limits),
        ("access_log", old.access_log != new.access_log),
        ("tracing", old.tracing != new.tracing),
        ("admin tokens", access(&old.admin) != access(&new.admin)),
        ("admin certificate", admin_pair(&old.admin) != admin_pair(&new.admin)),
    ];
    told.extend(sections.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| format!("{name} changed")));
    told
}

fn pairs(listener: &ListenerSettings) -> &[Pair] {
    listener.tls.as_ref().map(|tls| &tls.pairs[..]).unwrap_or_default()
}

fn upstreams(old: &Config, new: &Config) -> Vec<String> {
    let by_name = |config: &'_ Config| -> HashMap<String, usize> {
        config.upstreams.iter().enumerate().map(|(index, pool)| (pool.name.clone(), index)).collect()
    };
    let (before, now) = (by_name(old), by_name(new));
    let (mut added, mut changed) = (Vec::new(), Vec::new());
    for pool in &new.upstreams {
        match before.get(&pool.name) {
            None => added.push(pool.name.as_str()),
            Some(index) if old.upstreams[*index] != *pool => changed.push(pool.name.as_str()),
            Some(_) => {}
        }
    }
    let removed = old.upstreams.iter().map(|pool| pool.name.as_str()).filter(|name| !now.contains_key(*name));
    let lists = [("added", added), ("removed", removed.collect()), ("changed", changed)];
    let lists = lists.into_iter().filter(|(_, names)| !names.is_empty());
    lists.map(|(what, names)| format!("upstreams {what}: {}", names.join(", "))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, load};

    fn config(text: &str) -> Config {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tollgate.yaml");
        std::fs::write(&file, text).unwrap();
        load(Some(&file), &Overrides::default()).unwrap()
    }

    const BASE: &str = "
listeners: [{address: 127.0.0.1:1}, {address: 127.0.0.1:2}]
upstreams:
  - {name: a, backends: [{address: 127.0.0.1:9001}]}
  - {name: b, backends: [{address: 127.0.0.1:9002}]}
routes: [{path: /, upstream: a}, {path: /b, upstream: b}]
";

    #[test]
    fn every_key_that_needs_a_restart_is_named() {
        let old = config(BASE);
        let keys = |more: &str, from: &str, to: &str| -> Vec<String> {
            let new = config(&format!("{}{more}", BASE.replace(from, to)));
            needs_a_restart(&old, &new).into_iter().map(|(key, _)| key).collect()
        };
        assert_eq!(keys("", "", ""), [""; 0]);
        assert_eq!(keys("", ":2}", ":3}"), ["listeners[1].address"]);
        assert_eq!(keys("", ", {address: 127.0.0.1:2}", ""), ["listeners"]);
        let more = "pingora: {threads: 77, work_stealing: true, listener_tasks_per_fd: 3, \
                    upstream_keepalive_pool_size: 5, grace_period_seconds: 1, pid_file: a.pid, upgrade_sock: a.sock, \
                    user: root, group: root, working_directory: /, error_log: a.log}\ndatabase: other.db\n\
                    admin: {address: 127.0.0.1:5}\n\
                    rate_limit: {max_buckets: 5, refill_interval: 2s, persist_interval: 3s}";
        let expected = [
            "pingora.threads",
            "pingora.work_stealing",
            "pingora.listener_tasks_per_fd",
            "pingora.upstream_keepalive_pool_size",
            "pingora.grace_period_seconds",
            "pingora.pid_file",
            "pingora.upgrade_sock",
            "pingora.user",
            "pingora.group",
            "pingora.working_directory",
            "pingora.error_log",
            "admin.address",
            "database",
            "rate_limit.max_buckets",
            "rate_limit.refill_interval",
            "rate_limit.persist_interval",
        ];
        assert_eq!(keys(more, "", ""), expected);
        assert_eq!(keys("fleet: {store: redis://a}", "", ""), ["fleet"]);
        let alone = config(&format!("{BASE}fleet: {{store: redis://a}}"));
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("password"), "secret\n").unwrap();
        let more = format!(
            "fleet: {{store: 'redis://b', password_file: {}, prefix: a, node: b, lease: 1s, timeout: 1ms, max_asks: 1, \
             when_unreachable: allow}}",
            dir.path().join("password").display()
        );
        let keys = needs_a_restart(&alone, &config(&format!("{BASE}{more}")));
        let keys: Vec<_> = keys.iter().map(|(key, _)| key.strip_prefix("fleet.").unwrap()).collect();
        let expected = ["store", "password_file", "prefix", "node", "lease", "timeout", "max_asks", "when_unreachable"];
        assert_eq!(keys, expected);
    }

    #[test]
    fn the_order_of_listeners_is_of_no_account_and_a_restart_is_not_always_an_upgrade() {
        let (old, other) =
            (config(BASE), BASE.replace("127.0.0.1:1}, {address: 127.0.0.1:2", "127.0.0.1:2}, {address: 127.0.0.1:1"));
        assert_ne!(other, BASE);
        assert_eq!((needs_a_restart(&old, &config(&other)), changes(&old, &config(&other))), (vec![], vec![]));
        let new = config(&format!("{BASE}pingora: {{pid_file: a.pid, threads: 77, daemon: true}}"));
        let reasons: Vec<_> = needs_a_restart(&old, &new).into_iter().collect();
        let of = |key: &str| reasons.iter().find(|(name, _)| name == key).map(|(_, reason)| reason.as_str());
        assert_eq!((of("pingora.threads"), of("pingora.daemon")), (Some(RESTART), Some(RESTART)));
        assert_eq!(of("pingora.pid_file"), Some(STOP), "an upgrade finds the running process by it");
    }

    #[test]
    fn what_changes_is_told_in_words() {
        let old = config(BASE);
        let told =
            |more: &str, from: &str, to: &str| changes(&old, &config(&format!("{}{more}", BASE.replace(from, to))));
        assert_eq!(told("", "", ""), [""; 0]);
        assert_eq!(told("", ":9001", ":9003"), ["upstreams changed: a"]);
        let renamed = ["upstreams added: c", "upstreams removed: b", "routes changed"];
        assert_eq!(
            changes(&old, &config(&BASE.replace("name: b", "name: c").replace("upstream: b", "upstream: c"))),
            renamed
        );
        assert_eq!(told("", ":2}", ":2, proxy_protocol: any}"), ["listeners changed: 127.0.0.1:2"]);
        let more = "direct: false\nidentity: {ipv6_prefix: 56}\nrate_limit: {headers: false}\nlimits: {max_body: 1}\naccess_log: {path: null}\ntracing: {}";
        let expected = ["identity", "rate_limit", "direct", "limits", "access_log", "tracing"];
        let expected = expected.map(|section| format!("{section} changed"));
        assert_eq!(told(more, "", ""), expected);
    }
}
