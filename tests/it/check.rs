//! `tollgate check`: one line for a good file, every problem of a wrong one.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::harness::process::{Finished, run};
use crate::harness::server::command;

/// A good file, to be spoiled.
const GOOD: &str = "\
listeners: [{address: 127.0.0.1:8080}]
upstreams:
  - name: app
    balance: round_robin
    backends:
      - {address: 127.0.0.1:9001, weight: 1}
      - {address: 127.0.0.1:9002}
    health_check: {type: http, interval: 5s, timeout: 1s, path: /, expect: 200-399}
    retries: 2
    connect_timeout: 1s
routes:
  - {host: api.example.com, path: /v1, upstream: app}
limits: {max_body: 10MiB, header_timeout: 10s, keepalive_timeout: 60s}
access_log: {path: '-', format: json}
pingora: {threads: 2, grace_period_seconds: 20}
";

fn check_path(path: &Path) -> Finished {
    run(command().args(["check", "-c"]).arg(path))
}

fn check(yaml: &str) -> Finished {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("tollgate.yaml");
    std::fs::write(&file, yaml).unwrap();
    check_path(&file)
}

/// The problems in one form: `upstreams[0].name` and `upstreams.0.name` are the same path.
fn problems(finished: &Finished) -> Vec<String> {
    finished.all().lines().map(|line| line.replace("].", ".").replace(['[', ']'], ".").replace("..", ".")).collect()
}

/// Whether a problem is about this key.
fn is_about(problem: &str, path: &str) -> bool {
    problem.match_indices(path).any(|(at, _)| {
        let before = problem[..at].chars().next_back();
        let after = problem[at + path.len()..].chars().next();
        let is_part = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.');
        !is_part(before) && !after.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}

#[test]
fn variables_count_as_for_run() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("tollgate.yaml");
    std::fs::write(&file, format!("{GOOD}fleet: {{node: a}}\n")).unwrap();
    for typed in [&["check", "-c"][..], &["run", "-t", "-c"]] {
        let of = |variables: &[(&str, &str)]| {
            run(command().args(typed).arg(&file).envs(variables.iter().copied()).current_dir(directory.path()))
        };
        let alone = of(&[]);
        assert!(alone.code == Some(2) && alone.all().contains("fleet.store: is missing"), "{alone:?}");
        let stored = of(&[("TOLLGATE_FLEET", "redis://10.0.0.5")]);
        assert_eq!(stored.code, Some(0), "{stored:?}");
        let open = of(&[("TOLLGATE_FLEET", "redis://10.0.0.5"), ("TOLLGATE_ADMIN", "0.0.0.0:1")]);
        assert!(open.code == Some(2) && open.all().contains("TOLLGATE_ADMIN: must be a loopback address"), "{open:?}");
    }
}

#[test]
fn a_good_file_is_one_line_and_0() {
    let smallest = "listeners: [{address: 0.0.0.0:8080}]\nupstreams:\n  - name: app\n    backends: \
                    [{address: 127.0.0.1:9001}, {address: 127.0.0.1:9002}]\n";
    for yaml in [GOOD, smallest] {
        let finished = check(yaml);
        assert_eq!(finished.code, Some(0), "{finished:?}");
        assert_eq!(finished.all().lines().count(), 1, "{finished:?}");
    }
}

#[test]
fn every_file_in_conf_is_good() {
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    let files: Vec<PathBuf> = std::fs::read_dir(&conf)
        .unwrap_or_else(|e| panic!("{}: {e}", conf.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml"))
        .collect();
    assert!(!files.is_empty(), "no file in {}", conf.display());
    for file in files {
        let finished = check_path(&file);
        assert_eq!(finished.code, Some(0), "{}: {finished:?}", file.display());
    }
}

/// What to replace in the good file, by what, and the path of the problem.
#[rustfmt::skip]
const WRONG: &[(&str, &str, &str)] = &[
    // A typo at each level.
    ("routes:", "rutes:", "rutes"),
    ("address: 127.0.0.1:8080", "address: 127.0.0.1:8080, adress: x", "listeners.0.adress"),
    ("retries: 2", "retrys: 2", "upstreams.0.retrys"),
    ("weight: 1", "wieght: 1", "upstreams.0.backends.0.wieght"),
    ("interval: 5s", "intervall: 5s", "upstreams.0.health_check.intervall"),
    ("host: api", "hots: api", "routes.0.hots"),
    ("max_body", "max_bdy", "limits.max_bdy"),
    ("format: json", "fromat: json", "access_log.fromat"),
    ("threads: 2", "thraeds: 2", "pingora.thraeds"),
    // Values of the wrong type.
    ("retries: 2", "retries: two", "upstreams.0.retries"),
    ("retries: 2", "retries: -1", "upstreams.0.retries"),
    ("retries: 2", "retries: 1.5", "upstreams.0.retries"),
    ("weight: 1", "weight: [1]", "upstreams.0.backends.0.weight"),
    ("[{address: 127.0.0.1:8080}]", "127.0.0.1:8080", "listeners"),
    ("{type: http, interval: 5s, timeout: 1s, path: /, expect: 200-399}", "http", "upstreams.0.health_check"),
    ("limits: {max_body: 10MiB, header_timeout: 10s, keepalive_timeout: 60s}", "limits: []", "limits"),
    // Values out of range.
    ("weight: 1", "weight: 0", "upstreams.0.backends.0.weight"),
    ("weight: 1", "weight: 70000", "upstreams.0.backends.0.weight"),
    ("127.0.0.1:8080", "127.0.0.1:0", "listeners.0.address"),
    ("127.0.0.1:8080", "127.0.0.1:70000", "listeners.0.address"),
    ("127.0.0.1:8080", "localhost", "listeners.0.address"),
    ("127.0.0.1:8080", "''", "listeners.0.address"),
    ("127.0.0.1:9001", "127.0.0.1:0", "upstreams.0.backends.0.address"),
    ("127.0.0.1:9001", "127.0.0.1:70000", "upstreams.0.backends.0.address"),
    ("127.0.0.1:9001", "127.0.0.1", "upstreams.0.backends.0.address"),
    ("127.0.0.1:9001", "'bad name:80'", "upstreams.0.backends.0.address"),
    ("127.0.0.1:9001", "http://127.0.0.1:9001", "upstreams.0.backends.0.address"),
    ("interval: 5s", "interval: 0s", "upstreams.0.health_check.interval"),
    ("interval: 5s", "interval: 5", "upstreams.0.health_check.interval"),
    ("interval: 5s", "interval: soon", "upstreams.0.health_check.interval"),
    ("timeout: 1s, path", "timeout: -1s, path", "upstreams.0.health_check.timeout"),
    ("expect: 200-399", "expect: 399-200", "upstreams.0.health_check.expect"),
    ("expect: 200-399", "expect: 99", "upstreams.0.health_check.expect"),
    ("path: /, expect", "path: health, expect", "upstreams.0.health_check.path"),
    ("connect_timeout: 1s", "connect_timeout: 0s", "upstreams.0.connect_timeout"),
    ("threads: 2", "threads: 0", "pingora.threads"),
    ("max_body: 10MiB", "max_body: huge", "limits.max_body"),
    // Values that are not one of those there are.
    ("balance: round_robin", "balance: fair", "upstreams.0.balance"),
    ("type: http", "type: grpc", "upstreams.0.health_check.type"),
    ("format: json", "format: xml", "access_log.format"),
    // Keys with nothing, and nothing where something must be.
    ("name: app", "name:", "upstreams.0.name"),
    ("name: app", "name: ''", "upstreams.0.name"),
    ("balance: round_robin", "balance:", "upstreams.0.balance"),
    ("address: 127.0.0.1:9001,", "", "upstreams.0.backends.0.address"),
    ("[{address: 127.0.0.1:8080}]", "[]", "listeners"),
    ("[{address: 127.0.0.1:8080}]", "", "listeners"),
    // Things that do not go together.
    ("[{address: 127.0.0.1:8080}]", "[{address: 127.0.0.1:8080}, {address: 127.0.0.1:8080}]", "listeners.1.address"),
    ("127.0.0.1:9002", "127.0.0.1:9001", "upstreams.0.backends.1.address"),
    ("upstream: app", "upstream: ap", "routes.0.upstream"),
    ("path: /v1", "path: v1", "routes.0.path"),
    ("host: api.example.com", "host: 'a b'", "routes.0.host"),
    ("routes:", "  - {name: app, backends: [{address: 127.0.0.1:9009}]}\nroutes:", "upstreams.1.name"),
    // What later versions take is not accepted and ignored.
    ("access_log:", "admin: {address: 0.0.0.0:9901}\naccess_log:", "admin.address"),
    ("access_log:", "admin: {address: 127.0.0.1:8080}\naccess_log:", "admin.address"),
    ("access_log:", "admin: {token_file: /no/such/file}\naccess_log:", "admin.token_file"),
    ("access_log:", "database: data/\naccess_log:", "database"),
    ("access_log:", "rate_limit: {persist_interval: 0s}\naccess_log:", "rate_limit.persist_interval"),
    ("access_log:", "clients: []\naccess_log:", "clients"),
    ("address: 127.0.0.1:8080", "address: 127.0.0.1:8080, tls: {cert: a, key: b}", "listeners.0.tls"),
];

#[test]
fn each_wrong_file_is_2_with_the_problems_path() {
    let mut missed = Vec::new();
    for (from, to, path) in WRONG {
        assert!(GOOD.contains(from), "the good file has no {from}");
        let finished = check(&GOOD.replacen(from, to, 1));
        let found = problems(&finished).iter().any(|problem| is_about(problem, path));
        if finished.code != Some(2) || !found {
            missed.push(format!("{from} -> {to}: expected 2 and {path}, got {:?}: {}", finished.code, finished.all()));
        }
    }
    assert!(missed.is_empty(), "{} of {}:\n{}", missed.len(), WRONG.len(), missed.join("\n"));
}

#[test]
fn all_problems_are_told_at_once_each_on_a_line() {
    let mut yaml = GOOD.to_owned();
    let spoils = [
        "rutes",
        "upstreams.0.retrys",
        "wieght",
        "listeners.0.address",
        "upstreams.0.balance",
        "max_bdy",
        "upstreams.0.health_check.expect",
        "upstreams.0.backends.1.address",
        "access_log.format",
        "pingora.thraeds",
    ];
    for (from, to) in [
        ("routes:", "rutes:"),
        ("retries: 2", "retrys: 2"),
        ("weight: 1", "wieght: 1"),
        ("127.0.0.1:8080", "127.0.0.1:70000"),
        ("balance: round_robin", "balance: fair"),
        ("max_body", "max_bdy"),
        ("expect: 200-399", "expect: 399-200"),
        ("127.0.0.1:9002", "127.0.0.1:9001"),
        ("format: json", "format: xml"),
        ("threads: 2", "thraeds: 2"),
    ] {
        yaml = yaml.replacen(from, to, 1);
    }
    let finished = check(&yaml);
    assert_eq!(finished.code, Some(2), "{finished:?}");
    let problems = problems(&finished);
    for spoil in spoils {
        let count = problems.iter().filter(|problem| problem.contains(spoil)).count();
        assert_eq!(count, 1, "{spoil} in {problems:#?}");
    }
}

#[test]
fn a_problem_has_its_line_where_it_is_known() {
    for (from, to, path, line) in [
        ("retries: 2", "retries: two", "upstreams.0.retries", 9),
        ("balance: round_robin", "balance: fair", "upstreams.0.balance", 4),
        ("host: api", "hots: api", "routes.0.hots", 12),
    ] {
        let finished = check(&GOOD.replacen(from, to, 1));
        let problems = problems(&finished);
        let problem = problems.iter().find(|problem| is_about(problem, path)).unwrap_or_else(|| panic!("{problems:?}"));
        assert!(problem.contains(&format!("(line {line})")), "line {line}: {problem}");
    }
}

#[test]
fn files_that_are_none_are_2() {
    for (name, yaml) in [
        ("does not parse", "listeners: [{address: 127.0.0.1:8080"),
        ("tabs", "listeners:\n\t- address: 127.0.0.1:8080\n"),
        ("empty", ""),
        ("only a comment", "# nothing\n"),
        ("a list", "- a\n- b\n"),
        ("a word", "hello\n"),
        ("no upstream", "listeners: [{address: 127.0.0.1:8080}]\n"),
        ("empty upstreams", "listeners: [{address: 127.0.0.1:8080}]\nupstreams: []\n"),
        ("no backends", "listeners: [{address: 127.0.0.1:8080}]\nupstreams: [{name: app, backends: []}]\n"),
        ("a key twice", "listeners: [{address: 127.0.0.1:8080}]\nlisteners: [{address: 127.0.0.1:8081}]\n"),
        ("two documents", "listeners: []\n---\nlisteners: []\n"),
    ] {
        let finished = check(yaml);
        assert_eq!(finished.code, Some(2), "{name}: {finished:?}");
        assert!(!finished.all().trim().is_empty() && !finished.all().contains("panicked"), "{name}: {finished:?}");
    }
    let directory = TempDir::new().unwrap();
    for path in [directory.path().join("missing.yaml"), directory.path().to_owned()] {
        let finished = check_path(&path);
        assert_eq!(finished.code, Some(2), "{finished:?}");
        assert!(finished.all().contains(path.to_str().unwrap()), "{finished:?}");
    }
    let binary = directory.path().join("binary.yaml");
    std::fs::write(&binary, [0xff, 0xfe, 0x00, 0x80]).unwrap();
    assert_eq!(check_path(&binary).code, Some(2));
}

#[test]
fn several_upstreams_need_routes() {
    let yaml = GOOD.split("routes:").next().unwrap();
    let second = "  - {name: other, backends: [{address: 127.0.0.1:9009}]}\n";
    let finished = check(&format!("{yaml}{second}"));
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(problems(&finished).iter().any(|problem| is_about(problem, "routes")), "{finished:?}");
}

#[test]
fn run_refuses_a_wrong_file_and_t_only_checks() {
    let directory = TempDir::new().unwrap();
    let (good, wrong) = (directory.path().join("good.yaml"), directory.path().join("wrong.yaml"));
    std::fs::write(&good, GOOD).unwrap();
    std::fs::write(&wrong, GOOD.replace("weight: 1", "weight: 0").replace("retries", "retrys")).unwrap();
    for args in [vec!["run", "-c"], vec!["run", "-t", "-c"], vec!["-t", "-c"], vec!["run", "--conf"]] {
        let finished = run(command().args(&args).arg(&wrong));
        assert_eq!(finished.code, Some(2), "{args:?}: {finished:?}");
        let problems = problems(&finished);
        for path in ["upstreams.0.backends.0.weight", "upstreams.0.retrys"] {
            assert!(problems.iter().any(|problem| is_about(problem, path)), "{args:?} {path}: {finished:?}");
        }
    }
    for args in [vec!["run", "-t", "-c"], vec!["-t", "-c"], vec!["run", "--test", "-c"]] {
        let finished = run(command().args(&args).arg(&good));
        assert_eq!(finished.code, Some(0), "{args:?}: {finished:?}");
    }
}

#[test]
fn the_schema_is_the_committed_one() {
    let finished = run(command().arg("schema"));
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let printed: serde_json::Value = serde_json::from_str(&finished.out).unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/tollgate.schema.json");
    let committed = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let committed: serde_json::Value = serde_json::from_str(&committed).unwrap();
    assert!(printed == committed, "run `tollgate schema > conf/tollgate.schema.json`");
}
