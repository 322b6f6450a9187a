//! What right files become.

use std::fs::Permissions;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{START, check};
use crate::admin::{Access, Token};
use crate::client::Plans;
use crate::config::load::load_text;
use crate::config::{AdminSettings, Config, Overrides, PingoraSettings, load, parse_token, schema};
use crate::limit::{RateLimit, ResetHeader, Telling};
use crate::process::{Group, User};
use crate::proxy::{Identity, Limits, Underscores};
use crate::route::{HeaderRules, HostPattern, Route};
use crate::store::HistoryRules;
use crate::telemetry::{AccessField, AccessLogFormat, AccessLogSettings, AccessLogTarget, NamedField};
use crate::upstream::{BackendAddress, Balance, Check, HealthSettings, PoolSettings, Timeouts};

fn conf(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conf").join(name)
}

#[test]
fn every_file_in_conf_is_valid() {
    let entries = std::fs::read_dir(conf("")).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|ext| ext == "yaml")).collect();
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        load(Some(&file), &Overrides::default()).unwrap();
    }
}

#[test]
fn the_summary_counts() {
    let config = load(Some(&conf("routes.yaml")), &Overrides::default()).unwrap();
    let said = "conf/routes.yaml is valid: 1 listener, 4 upstreams, 6 backends, 5 routes";
    assert_eq!(config.summary(Path::new("conf/routes.yaml")), said);
}

#[test]
fn the_smallest_file_gets_the_defaults() {
    let config = check(START).unwrap();
    let backends = config.upstreams[0].backends.clone();
    assert_eq!(backends[0].weight.get(), 1);
    let expected = Config {
        pingora: PingoraSettings::default(),
        listeners: vec!["0.0.0.0:8080".parse::<std::net::SocketAddr>().unwrap().into()],
        admin: Some(AdminSettings { address: "127.0.0.1:9901".parse().unwrap(), access: Access::Loopback, tls: None }),
        direct: true,
        database: Some("data/tollgate.db".into()),
        fleet: None,
        upstreams: vec![PoolSettings {
            name: "app".to_owned(),
            balance: Balance::default(),
            backends,
            health: HealthSettings::default(),
            retries: 2,
            timeouts: Timeouts::default(),
            ..PoolSettings::default()
        }],
        routes: vec![Route::catch_all("app")],
        identity: Identity::default(),
        history: HistoryRules::default(),
        plans: Plans::default(),
        answers: None,
        rate_limit: RateLimit::default(),
        policies: Vec::new(),
        limits: Limits::default(),
        access_log: AccessLogSettings::default(),
        tracing: None,
        warnings: Vec::new(),
        lapsed: Vec::new(),
    };
    assert_eq!(config, expected);
}

/// Whether it is a daemon, and where a running process keeps its files.
const KEPT: (bool, Option<&str>, Option<&str>) = (true, Some("run/a.pid"), Some("/run/a.sock"));

#[test]
fn relative_paths_count_from_where_it_was_started() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("tokens"), "0123456789abcdef").unwrap();
    std::fs::create_dir(path("work")).unwrap();
    let yaml = format!(
        "{START}database: d/a.db\nadmin: {{token_file: tokens}}\naccess_log: {{path: access.log}}\n\
         pingora: {{pid_file: a.pid, upgrade_sock: /run/a.sock, error_log: error.log, working_directory: work}}\n"
    );
    let overrides = Overrides { directory: Some(directory.path().to_owned()), ..Overrides::default() };
    let config = load_text("f.yaml", &yaml, &overrides, &|_| None).unwrap();
    let pingora = &config.pingora;
    assert_eq!(config.database, Some(path("d/a.db")));
    assert_eq!(config.admin.unwrap().access, one_token("admin", "0123456789abcdef"));
    assert_eq!(config.access_log.target, Some(AccessLogTarget::File(path("access.log"))));
    assert_eq!(
        (&pingora.process.pid_file, &pingora.process.upgrade_sock),
        (&path("a.pid"), &PathBuf::from("/run/a.sock"))
    );
    assert_eq!(
        (&pingora.process.error_log, &pingora.process.working_directory),
        (&Some(path("error.log")), &Some(path("work")))
    );
}

#[test]
fn every_key_arrives_where_it_belongs() {
    let text = r#"
pingora:
  version: 1
  threads: 3
  work_stealing: true
  listener_tasks_per_fd: 2
  upstream_keepalive_pool_size: 0
  grace_period_seconds: 0
  daemon: true
  pid_file: run/a.pid
  upgrade_sock: /run/a.sock
  user: root
  group: root
  working_directory: /
  error_log: error.log
listeners: [{address: 127.0.0.1:80}, {address: "[::1]:80"}]
upstreams:
  - name: a.b_c-1
    balance: least_connections
    backends: [{address: "[::1]:1", weight: 65535}, {address: App.internal:2}]
    health_check:
      {type: http, interval: 1m, timeout: 250ms, healthy_threshold: 3, unhealthy_threshold: 4, path: /h?x=1, expect: 204}
    retries: 0
    connect_timeout: 1ms
    read_timeout: 24h
    write_timeout: 1m 30s
    idle_timeout: 1.5s
    tunnel_timeout: 2h
  - {name: b, balance: random, backends: [{address: "a:1"}], health_check: {type: none}}
routes: [{host: "*.Example.com", path: /v1/, upstream: b, max_body: 1GiB, read_timeout: 10m,
  strip_prefix: /v1, limit: false, request_headers: {remove: [Cookie], edit: [{name: Destination, from: "^https:", to: "http:"}],
  set: {X-Env: prod, Host: a.example}}, response_headers: {set: {X-Client: "{client_id}"}}}, {path: /, upstream: a.b_c-1}]
limits:
  {max_body: 64KiB, header_timeout: 2s, keepalive_timeout: 3s, abort_on_half_close: true, max_connections: 5,
  max_connections_per_address: 6, body_timeout: 7s, min_body_rate: 8}
identity: {underscores: pass, forward_api_key: false}
access_log: {path: /var/log/access.log, format: text, sample: 0.25}
admin: {address: "[::1]:99", token_file: null}
direct: false
database: /var/lib/clients.db
rate_limit: {refill_interval: 2s, persist_interval: 250ms, reset_header: off, max_retry_after: 2s, close_after: 9, self_service: true}
"#;
    let config = check(text).unwrap();
    assert_eq!((config.pingora.threads.get(), config.pingora.listener_tasks_per_fd.get()), (3, 2));
    assert_eq!((config.pingora.work_stealing, config.pingora.upstream_keepalive_pool_size), (true, 0));
    assert_eq!(config.pingora.grace_period, Duration::ZERO);
    let Config { pingora, .. } = &config;
    assert_eq!(
        (pingora.process.daemon, pingora.process.pid_file.to_str(), pingora.process.upgrade_sock.to_str()),
        KEPT
    );
    assert_eq!(pingora.process.user, Some(User { name: "root".to_owned(), uid: 0, gid: 0 }));
    assert_eq!(pingora.process.group, Some(Group { name: "root".to_owned(), gid: 0 }));
    assert_eq!(pingora.process.working_directory.as_deref(), Some(Path::new("/")));
    assert_eq!(pingora.process.error_log.as_deref(), Some(Path::new("error.log")));
    assert_eq!((config.listeners.len(), config.direct), (2, false));
    let [a, b] = &config.upstreams[..] else { panic!("{:?}", config.upstreams) };
    assert_eq!((a.name.as_str(), a.balance, a.retries), ("a.b_c-1", "least_connections".parse().unwrap(), 0));
    assert_eq!(a.backends[0].address, BackendAddress::Socket("[::1]:1".parse().unwrap()));
    assert_eq!(a.backends[0].weight.get(), 65_535);
    assert_eq!(a.backends[1].address, BackendAddress::Name { host: "app.internal".to_owned(), port: 2 });
    assert_eq!(a.health.check, Check::Http { path: "/h?x=1".to_owned(), expect: 204..=204 });
    assert_eq!((a.health.interval, a.health.timeout), (Duration::from_secs(60), Duration::from_millis(250)));
    assert_eq!((a.health.healthy_threshold.get(), a.health.unhealthy_threshold.get()), (3, 4));
    let Timeouts { connect, read, write, idle, tunnel } = a.timeouts;
    let millis = [connect, read, write, idle, tunnel].map(|timeout| timeout.as_millis());
    assert_eq!(millis, [1, 86_400_000, 90_000, 1_500, 7_200_000]);
    assert_eq!(b.timeouts.tunnel, Duration::from_secs(3600));
    assert_eq!((b.balance, &b.health.check), ("random".parse().unwrap(), &Check::None));
    assert_eq!(config.routes[0].host, HostPattern::Below("example.com".to_owned()));
    assert_eq!((config.routes[0].path.to_string().as_str(), config.routes[0].upstream.as_str()), ("/v1", "b"));
    let own: Vec<_> = config.routes.iter().map(|route| (route.max_body, route.read_timeout)).collect();
    assert_eq!(own, [(Some(1 << 30), Some(Duration::from_secs(600))), (None, None)]);
    let [v1, rest] = &config.routes[..] else { panic!("{:?}", config.routes) };
    assert_eq!((v1.strip_prefix.as_ref().map(ToString::to_string).as_deref(), v1.limit), (Some("/v1"), false));
    let HeaderRules { remove, edit, set } = &v1.request_headers;
    assert_eq!((remove.len(), edit.len(), set.len(), v1.response_headers.set.len()), (1, 1, 2, 1));
    assert!(rest.strip_prefix.is_none() && rest.limit && rest.request_headers.is_empty());
    assert_eq!(config.limits.max_body, 64 << 10);
    assert_eq!((config.limits.header_timeout.as_secs(), config.limits.keepalive_timeout.as_secs()), (2, 3));
    assert!(config.limits.abort_on_half_close);
    assert_eq!((config.identity.underscores, config.identity.forward_api_key), (Underscores::Pass, false));
    let connections = [config.limits.max_connections, config.limits.max_connections_per_address];
    assert_eq!(connections.map(|bound| bound.map(NonZeroUsize::get)), [Some(5), Some(6)]);
    assert_eq!((config.limits.body_timeout.as_secs(), config.limits.min_body_rate.map(NonZeroU64::get)), (7, Some(8)));
    let target = Some(AccessLogTarget::File("/var/log/access.log".into()));
    let access_log = AccessLogSettings { target, format: AccessLogFormat::Text, sample: 0.25, fields: None };
    assert_eq!(config.access_log, access_log);
    let admin = AdminSettings { address: "[::1]:99".parse().unwrap(), access: Access::Loopback, tls: None };
    assert_eq!(config.admin, Some(admin));
    assert_eq!(config.database, Some("/var/lib/clients.db".into()));
    assert_eq!(config.rate_limit.refill_interval, Duration::from_secs(2));
    assert_eq!(config.rate_limit.persist_interval, Duration::from_millis(250));
    assert_eq!((config.rate_limit.close_after, config.rate_limit.self_service), (NonZeroU32::new(9), true));
    assert_eq!(config.rate_limit.telling, Telling { reset: ResetHeader::Off, longest: NonZeroU64::new(2) });
    let off = format!("{START}access_log: {{path: null}}\nadmin: {{address: null}}\ndatabase: null\n");
    let off = check(&off).unwrap();
    assert_eq!((off.access_log.target, off.admin, off.database), (None, None, None));
}

#[test]
fn fields_of_access_lines_are_chosen_in_order_and_named() {
    let of = |keys: &str| check(&format!("{START}access_log: {{{keys}}}\n")).unwrap().access_log;
    let named = |field, name: &str| NamedField { field, name: name.into() };
    let fields = of("sample: 0, fields: [ts, {status: http.status}, referer, {path: ts2}]");
    let (ts, path) = (named(AccessField::Ts, "ts"), named(AccessField::Path, "ts2"));
    let (status, referer) = (named(AccessField::Status, "http.status"), named(AccessField::Referer, "referer"));
    assert_eq!((fields.sample, fields.fields.as_deref()), (0.0, Some(&[ts, status, referer, path][..])));
    assert_eq!(of("fields: null, sample: 1"), AccessLogSettings::default());
}

#[test]
fn the_command_line_stands_above_the_file() {
    let overrides = Overrides {
        listen: vec!["127.0.0.1:1".parse().unwrap()],
        backends: vec!["localhost:9001=3".parse().unwrap(), "127.0.0.1:9002".parse().unwrap()],
        balance: "random".parse().ok(),
        admin: Some("0.0.0.0:2".parse().unwrap()),
        admin_token: Some(parse_token("0123456789abcdef").unwrap()),
        database: Some("other.db".into()),
        fleet: None,
        directory: None,
        variables: Vec::new(),
    };
    let alone = load(None, &overrides).unwrap();
    let over = load(Some(&conf("routes.yaml")), &overrides).unwrap();
    for config in [&alone, &over] {
        assert_eq!(config.listeners.iter().map(|listener| listener.address).collect::<Vec<_>>(), overrides.listen);
        assert_eq!(config.database, overrides.database);
        let admin = config.admin.as_ref().unwrap();
        assert_eq!(
            (Some(admin.address.clone()), &admin.access),
            (overrides.admin.clone(), &one_token("admin", "0123456789abcdef"))
        );
        let [pool] = &config.upstreams[..] else { panic!("{:?}", config.upstreams) };
        assert_eq!(
            (pool.name.as_str(), pool.balance, pool.backends[0].weight.get()),
            ("default", "random".parse().unwrap(), 3)
        );
        assert_eq!(config.routes, [Route::catch_all("default")]);
    }
    assert_eq!((alone.limits.max_body, over.limits.max_body), (10 << 20, 1 << 20), "the rest is the file's");

    let off = "admin: {address: null}\ndatabase: null\n";
    let on = load_text("f.yaml", &format!("{START}{off}"), &overrides, &|_| None).unwrap();
    assert_eq!((on.admin.map(|admin| admin.address), on.database), (overrides.admin, overrides.database));

    let balance = Overrides { balance: "random".parse().ok(), ..Overrides::default() };
    let pools = load(Some(&conf("routes.yaml")), &balance).unwrap().upstreams;
    assert!(pools.len() == 4 && pools.iter().all(|pool| pool.balance == "random".parse().unwrap()));
}

fn one_token(name: &str, secret: &str) -> Access {
    Access::Tokens(vec![Token { name: name.to_owned(), secret: secret.to_owned(), viewer: false }])
}

#[test]
fn tokens_come_from_the_environment_or_else_from_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tokens");
    let secret = "s".repeat(16);
    std::fs::write(&file, format!("ops {secret}\n")).unwrap();
    std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let yaml = format!("{START}admin: {{address: 0.0.0.0:9901, token_file: {}}}\n", file.display());
    let config = check(&yaml).unwrap();
    assert_eq!((&config.admin.unwrap().access, config.warnings.len()), (&one_token("ops", &secret), 0));

    std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    let config = check(&yaml).unwrap();
    let warning = format!(
        "admin.token_file: {file} is open to every user of this machine (mode 644); `chmod 600 {file}` closes it",
        file = file.display()
    );
    assert_eq!(config.warnings, [warning]);

    let token = parse_token("0123456789abcdef").unwrap();
    let variable = Overrides { admin_token: Some(token), ..Overrides::default() };
    std::fs::remove_file(&file).unwrap();
    let config = load_text("f.yaml", &yaml, &variable, &|_| None).unwrap();
    assert_eq!(config.admin.as_ref().unwrap().access, one_token("admin", "0123456789abcdef"));
    assert!(!format!("{config:?} {variable:?}").contains("0123456789abcdef"));
}

/// What conf/tollgate.yaml shows behind `#` is what applies without it, so that it cannot say something else.
#[test]
fn the_starting_file_shows_the_defaults() {
    let text = std::fs::read_to_string(conf("tollgate.yaml")).unwrap();
    let is_key = |line: &str| {
        let first = line.split_whitespace().next().unwrap_or_default();
        let name = first.strip_suffix(':').unwrap_or_default();
        first == "-" || (!name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
    };
    let shown: Vec<_> =
        text.lines().map(|line| line.strip_prefix('#').filter(|rest| is_key(rest)).unwrap_or(line)).collect();
    let shown = shown.join("\n");
    let timeouts = shown.lines().filter(|line| !line.starts_with('#') && line.contains("timeout: "));
    assert_eq!(timeouts.count(), 10, "{shown}");
    let mut shown = check(&shown).unwrap();
    shown.pingora.threads = PingoraSettings::default().threads;
    assert_eq!(shown, check(&text).unwrap());
    for key in key_names(&schema::value()) {
        assert!(text.contains(&format!("{key}:")), "{key} is not shown");
    }
}

/// The names of all keys that `schema` has, at every level.
fn key_names(schema: &serde_json::Value) -> Vec<String> {
    let keys = schema.get("properties").and_then(|keys| keys.as_object()).into_iter().flatten();
    let own = keys.flat_map(|(key, schema)| [vec![key.clone()], key_names(schema)].concat());
    own.chain(schema.get("items").into_iter().flat_map(key_names)).collect()
}

/// The schema's defaults are the ones that apply.
#[test]
fn the_schema_shows_the_defaults() {
    let defaults = defaults(&schema::value());
    assert_eq!(defaults["upstreams"][0]["health_check"]["timeout"], "1s");
    let mut file: serde_yaml::Value = serde_yaml::from_str(START).unwrap();
    lay_under(&mut file, &defaults);
    assert_eq!(check(&serde_yaml::to_string(&file).unwrap()).unwrap(), check(START).unwrap());
}

/// A file of all the defaults in `schema`, with one item in each list but the routes.
fn defaults(schema: &serde_json::Value) -> serde_yaml::Value {
    let keys = schema["properties"].as_object().unwrap().iter().filter(|(key, _)| *key != "routes");
    let keys = keys.filter_map(|(key, schema)| {
        let value = match (schema.get("default"), schema.get("items")) {
            (Some(default), _) => serde_yaml::to_value(default).unwrap(),
            (_, Some(items)) => vec![defaults(items)].into(),
            // A section that needs something has no default: it is not there.
            _ if schema.get("required").or(schema.get("anyOf")).is_some() => return None,
            _ => schema.get("properties").map(|_| defaults(schema))?,
        };
        Some((key.as_str().into(), value))
    });
    serde_yaml::Value::Mapping(keys.collect())
}

/// Puts what `value` lacks into it from `defaults`.
fn lay_under(value: &mut serde_yaml::Value, defaults: &serde_yaml::Value) {
    use serde_yaml::Value::{Mapping, Sequence};
    match (value, defaults) {
        (Mapping(value), Mapping(defaults)) => defaults.iter().for_each(|(key, default)| {
            lay_under(value.entry(key.clone()).or_insert_with(|| default.clone()), default);
        }),
        (Sequence(items), Sequence(defaults)) => items.iter_mut().for_each(|item| lay_under(item, &defaults[0])),
        _ => {}
    }
}

#[test]
fn the_committed_schema_is_current() {
    let committed = std::fs::read_to_string(conf("tollgate.schema.json")).unwrap();
    assert!(
        committed.trim_end() == schema(),
        "conf/tollgate.schema.json is out of date: tollgate schema > conf/tollgate.schema.json"
    );
}

#[test]
fn backends_of_http2_behind_listeners_without_it_are_worth_a_warning() {
    let said = |listener: &str| {
        let text = format!(
            "listeners: [{{address: 127.0.0.1:8080{listener}}}]\nupstreams: [{{name: app, protocol: h2, backends: \
             [{{address: 127.0.0.1:9001}}]}}]\n"
        );
        check(&text).unwrap().warnings
    };
    let expected = "upstreams[0].protocol: is h2, but no listener speaks HTTP/2 (none has tls, or h2c: true): clients of \
                    HTTP/1.1 are served, those of gRPC are not";
    assert_eq!((said(""), said(", h2c: true").len()), (vec![expected.to_owned()], 0));
}
