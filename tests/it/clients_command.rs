//! `tollgate clients` and `tollgate healthcheck`, against a running server.

use std::process::Command;

use serde_json::{Value, json};

use crate::harness::backend::Backend;
use crate::harness::client::{Request, Response};
use crate::harness::ports::free_address;
use crate::harness::process::{Finished, run, run_with_closed_output, run_with_input};
use crate::harness::server::{Tollgate, command};
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::{PATIENCE, eventually, now};

const LIMITED: &str = "rate_limit: {default: {capacity: 3, rate_per_sec: 0.001}}";
const TOKEN: &str = "0123456789abcdef";

fn start(backend: &Backend) -> Tollgate {
    Setup::default().pool("app", &[backend.address], NO_CHECK).line(LIMITED).start()
}

fn clients(server: &Tollgate, args: &[&str]) -> Command {
    let mut command = command();
    command.arg("clients").args(args).env("TOLLGATE_ADMIN", server.admin.to_string());
    command
}

/// What it prints when all is well.
#[track_caller]
fn ok(server: &Tollgate, args: &[&str]) -> String {
    good(run(&mut clients(server, args)))
}

#[track_caller]
fn good(finished: Finished) -> String {
    assert_eq!((finished.code, finished.err.as_str()), (Some(0), ""), "{finished:?}");
    finished.out
}

/// What it says when it fails.
#[track_caller]
fn refused(finished: Finished, code: i32) -> String {
    assert_eq!((finished.code, finished.out.as_str()), (Some(code), ""), "{finished:?}");
    finished.err
}

/// The value of one field in what `get` prints.
#[track_caller]
fn field<'a>(printed: &'a str, name: &str) -> &'a str {
    let line = printed.lines().find(|line| line.split_whitespace().next() == Some(name));
    line.unwrap_or_else(|| panic!("no {name} in {printed}"))[name.len()..].trim()
}

fn ask(server: &Tollgate, key: &str) -> Response {
    server.client().call(&Request::new("GET", "/").headers(&[("X-Api-Key", key)])).unwrap()
}

#[test]
fn a_client_is_added_shown_changed_and_removed() {
    let backend = Backend::scripted("a");
    let server = start(&backend);
    let added = ok(&server, &["add", "user1", "--capacity", "100", "--rate", "0.001", "--note", "the first"]);
    assert_eq!((field(&added, "capacity"), field(&added, "rate_per_sec")), ("100", "0.001"), "{added}");
    assert_eq!((field(&added, "note"), field(&added, "mode")), ("the first", "limit"));
    assert_eq!(ask(&server, "user1").header("x-ratelimit-limit"), Some("100"));

    let set = ok(&server, &["set", "user1", "--capacity", "5"]);
    assert_eq!((field(&set, "capacity"), field(&set, "note")), ("5", "the first"), "the rest is kept");
    assert_eq!((0..10).filter(|_| ask(&server, "user1").status == 200).count(), 5);
    let spent: f64 = field(&ok(&server, &["get", "user1"]), "tokens").parse().unwrap();
    assert!(spent < 1.0, "{spent}");
    assert_eq!(field(&ok(&server, &["reset", "user1"]), "tokens"), "5");
    assert_eq!(ask(&server, "user1").status, 200);

    ok(&server, &["set", "user1", "--mode", "blocked"]);
    assert_eq!(ask(&server, "user1").status, 403);
    let list = ok(&server, &["list"]);
    let [titles, row] = list.lines().collect::<Vec<_>>()[..] else { panic!("{list}") };
    assert!(titles.starts_with("CLIENT  MODE     CAPACITY  RATE/S  TOKENS  ALLOWED  LIMITED"), "{list}");
    assert!(row.starts_with("user1   blocked         5   0.001"), "{list}");

    assert_eq!(ok(&server, &["remove", "user1"]), "user1 removed\n");
    let gone = refused(run(&mut clients(&server, &["get", "user1"])), 1);
    assert!(gone.starts_with("tollgate: "), "{gone}");
    assert_eq!(ok(&server, &["list", "--json"]), "[]\n");
}

#[test]
fn plans_policies_trials_grants_and_further_keys_are_set_from_a_shell() {
    let backend = Backend::scripted("a");
    let policies = "policies: [{name: writes, match: {methods: [POST]}, capacity: 2, rate_per_sec: 0.001}]";
    let server = Setup::default()
        .pool("app", &[backend.address], NO_CHECK)
        .line("plans: [{name: free, capacity: 4, rate_per_sec: 0.001}]")
        .line(&format!("rate_limit: {{default: {{capacity: 3, rate_per_sec: 0.001}}, {policies}}}"))
        .start();
    let missing = refused(run(&mut clients(&server, &["add", "c"])), 2);
    assert!(missing.contains("--capacity") && missing.contains("--rate"), "{missing}");
    let added = ok(&server, &["add", "c", "--plan", "free", "--max-concurrent", "7"]);
    assert_eq!((field(&added, "plan"), field(&added, "capacity"), field(&added, "max_concurrent")), ("free", "4", "7"));
    ok(&server, &["set", "c", "--policy", "writes=50/0.5", "--candidate", "9/2", "--clear-plan"]);
    let shown: Value = serde_json::from_str(&ok(&server, &["get", "c", "--json"])).unwrap();
    let own = json!({"capacity": 50, "rate_per_sec": 0.5});
    assert_eq!((&shown["policies"]["writes"], &shown["plan"]), (&own, &Value::Null), "{shown}");
    assert_eq!(shown["candidate"], json!({"capacity": 9, "rate_per_sec": 2}));
    let promoted = ok(&server, &["promote", "c"]);
    assert_eq!((field(&promoted, "capacity"), field(&promoted, "candidate")), ("9", "-"), "{promoted}");
    assert_eq!(field(&ok(&server, &["grant", "c", "100"]), "tokens").split('.').next(), Some("104"));
    let cleared = ok(&server, &["set", "c", "--policy", "writes=", "--clear-max-concurrent"]);
    assert!(field(&cleared, "max_concurrent") == "-" && !cleared.contains("policies"), "{cleared}");

    let made = ok(&server, &["add-key", "c", "--expires-at", "2099-01-01T00:00:00Z"]);
    let (key, id) = (field(&made, "api_key").to_owned(), field(&made, "key_id").to_owned());
    assert_eq!(ask(&server, &key).header("x-ratelimit-limit"), Some("9"));
    let recommended = ok(&server, &["recommend", "c", "--window", "10m"]);
    assert_eq!(field(&recommended, "requests"), "1", "{recommended}");
    assert_eq!(ok(&server, &["remove-key", "c", &id]), format!("key {id} of c removed\n"));
    assert_eq!(ask(&server, &key).header("x-ratelimit-limit"), Some("3"));
    for (wrong, said) in [
        (&["set", "c", "--policy", "writes"][..], "such as writes=50/5"),
        (&["set", "c", "--policy", "writes=5"], "such as 100/10"),
        (&["set", "c", "--candidate", "5/x"], "must be a number"),
        (&["set", "c", "--plan", "free", "--clear-plan"], "cannot be used with"),
        (&["grant", "c", "-1"], "invalid value '-1'"),
    ] {
        let told = refused(run(&mut clients(&server, wrong)), 2);
        assert!(told.contains(said), "{wrong:?}: {told}");
    }
    let gold = refused(run(&mut clients(&server, &["set", "c", "--plan", "gold"])), 1);
    assert!(gold.contains("must be a plan of the configuration (free)"), "{gold}");
    assert!(refused(run(&mut clients(&server, &["promote", "c"])), 1).contains("no candidate"));
}

#[test]
fn names_that_are_networks_are_one_segment() {
    let backend = Backend::scripted("a");
    let server = start(&backend);
    for id in ["203.0.113.0/24", "2001:db8::/32", "a/reset", "a..b", "team@example.com:x"] {
        ok(&server, &["add", id, "--capacity", "7", "--rate", "1"]);
        assert_eq!(field(&ok(&server, &["set", id, "--rate", "2.5"]), "rate_per_sec"), "2.5", "{id}");
        assert_eq!(field(&ok(&server, &["reset", id]), "client_id"), id);
        let shown: Value = serde_json::from_str(&ok(&server, &["get", id, "--json"])).unwrap();
        assert_eq!((&shown["client_id"], &shown["capacity"]), (&json!(id), &json!(7)));
        ok(&server, &["remove", id]);
        assert_eq!(run(&mut clients(&server, &["remove", id])).code, Some(1), "{id}");
    }
}

#[test]
fn what_the_api_refuses_is_told_field_by_field() {
    let backend = Backend::scripted("a");
    let server = start(&backend);
    let add = ["add", "user1", "--capacity", "1", "--rate", "1"];
    ok(&server, &add);
    let twice = refused(run(&mut clients(&server, &add)), 1);
    assert!(twice.starts_with("tollgate: ") && twice.lines().count() == 1, "{twice}");
    let wrong = ["set", "user1", "--capacity", "0", "--rate", "0", "--address", "here"];
    let wrong = refused(run(&mut clients(&server, &wrong)), 1);
    for field in ["\n  capacity: ", "\n  rate_per_sec: ", "\n  addresses"] {
        assert!(wrong.contains(field), "{field:?} is not in {wrong}");
    }
    assert!(refused(run(&mut clients(&server, &["set", "user1"])), 2).contains("nothing to set"));
    assert!(refused(run(&mut clients(&server, &["get", "a b"])), 2).contains("1 to 128 characters"));
}

#[test]
fn keys_are_read_from_standard_input_or_made_and_shown_once() {
    let backend = Backend::scripted("a");
    let server = start(&backend);
    let limit = |key: &str| ask(&server, key).header("x-ratelimit-limit").map(str::to_owned);
    let add = ["add", "user1", "--capacity", "77", "--rate", "1", "--api-key", "-"];
    let added = good(run_with_input(&mut clients(&server, &add), "piped-key\n"));
    assert!(!added.contains("piped-key"), "{added}");
    assert_eq!((limit("piped-key").as_deref(), limit("user1").as_deref()), (Some("77"), Some("3")));
    let empty = refused(run_with_input(&mut clients(&server, &add), "\n"), 2);
    assert!(empty.contains("--api-key -"), "{empty}");

    let made = ok(&server, &["set", "user1", "--generate-key"]);
    let key = field(&made, "api_key").to_owned();
    assert!(key.len() >= 32, "{made}");
    assert_eq!((limit(&key).as_deref(), limit("piped-key").as_deref()), (Some("77"), Some("3")));
    assert!(!ok(&server, &["get", "user1"]).contains(&key));
    assert_eq!(field(&ok(&server, &["set", "user1", "--clear-key"]), "has_api_key"), "no");
    assert_eq!(
        (limit("user1").as_deref(), limit(&key).as_deref()),
        (Some("77"), Some("3")),
        "its name is its key again"
    );

    ok(&server, &["set", "user1", "--address", "10.0.0.1,192.0.2.0/24", "--address", "::1"]);
    assert_eq!(field(&ok(&server, &["get", "user1"]), "addresses").split(", ").count(), 3);
    assert_eq!(field(&ok(&server, &["set", "user1", "--clear-addresses"]), "addresses"), "-");
}

#[test]
fn a_list_has_all_pages() {
    let backend = Backend::scripted("a");
    let server = start(&backend);
    let many: String = (0..2500)
        .map(|n| format!("{{\"client_id\":\"user{n:04}\",\"capacity\":1,\"rate_per_sec\":1,\"note\":\"\"}}\n"))
        .collect();
    let said = good(run_with_input(&mut clients(&server, &["apply", "-"]), &many));
    assert_eq!(said.lines().last(), Some("2500 created, 0 changed, 0 removed, 0 unchanged"));
    let list = ok(&server, &["list"]);
    let ids: Vec<_> = list.lines().skip(1).map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!((ids.len(), ids[0], ids[2499]), (2500, "user0000", "user2499"));
    assert!(ids.is_sorted());
    let all: Vec<Value> = serde_json::from_str(&ok(&server, &["list", "--json"])).unwrap();
    assert_eq!((all.len(), &all[1234]["client_id"]), (2500, &json!("user1234")));
    let found: Vec<Value> = serde_json::from_str(&ok(&server, &["list", "--search", "user123", "--json"])).unwrap();
    assert_eq!(found.len(), 10, "{found:?}");
    let finished = run_with_closed_output(&mut clients(&server, &["list"]));
    assert_eq!((finished.code, finished.err.as_str()), (Some(0), ""), "a reader that left is no failure");
}

#[test]
fn apply_shows_the_difference_before_it_is_made() {
    let backend = Backend::scripted("a");
    let server = start(&backend);
    ok(&server, &["add", "old", "--capacity", "1", "--rate", "1"]);
    ok(&server, &["add", "kept", "--capacity", "100", "--rate", "1"]);
    ok(&server, &["add", "same", "--capacity", "1", "--rate", "1"]);
    let file = server.path("clients.json");
    let wanted = json!([
        {"client_id": "kept", "capacity": 200, "rate_per_sec": 1, "mode": "unlimited"},
        {"client_id": "new/1", "capacity": 1, "rate_per_sec": 1},
        {"client_id": "same", "capacity": 1, "rate_per_sec": 1},
    ]);
    std::fs::write(&file, wanted.to_string()).unwrap();
    let file = file.to_str().unwrap();
    let before = ok(&server, &["export"]);
    let difference = "+ new/1\n~ kept capacity 100 → 200, mode limit → unlimited\n";
    assert_eq!(
        ok(&server, &["apply", file, "--dry-run", "--prune"]),
        format!(
            "{difference}- old\n1 to be created, 1 to be changed, 1 to be removed, 1 unchanged; nothing was done \
             (--dry-run)\n"
        )
    );
    assert_eq!(ok(&server, &["export"]), before);
    assert_eq!(ok(&server, &["apply", file]), format!("{difference}1 created, 1 changed, 0 removed, 1 unchanged\n"));
    let pruned: Value = serde_json::from_str(&ok(&server, &["apply", file, "--prune", "--json"])).unwrap();
    assert_eq!((&pruned["deleted"], &pruned["unchanged"]), (&json!(["old"]), &json!(3)));

    std::fs::write(file, r#"[{"client_id":"kept","capacity":0,"rate_per_sec":1},{"client_id":"x","capacty":1}]"#)
        .unwrap();
    let wrong = refused(run(&mut clients(&server, &["apply", file])), 1);
    for field in ["\n  [0].capacity: ", "\n  [1].capacty: "] {
        assert!(wrong.contains(field), "{field:?} is not in {wrong}");
    }
    assert_eq!(ok(&server, &["list"]).lines().count(), 4, "all or nothing");
    assert!(refused(run(&mut clients(&server, &["apply", "/no/such/file"])), 2).contains("/no/such/file"));
}

#[test]
fn what_is_exported_can_be_applied_elsewhere_and_loses_nothing() {
    let backend = Backend::scripted("a");
    let (one, other) = (start(&backend), start(&backend));
    good(run_with_input(
        &mut clients(&one, &["add", "user1", "--capacity", "77", "--rate", "0.5", "--note", "né\t1", "--api-key", "-"]),
        "secret-key",
    ));
    ok(&one, &["add", "office", "--capacity", "5", "--rate", "1", "--address", "10.0.0.0/8,2001:db8::/32"]);
    ok(&one, &["add", "203.0.113.0/24", "--capacity", "5", "--rate", "1", "--mode", "blocked"]);
    let exported = ok(&one, &["export"]);
    assert_eq!(exported.lines().count(), 3, "{exported}");
    assert!(!exported.contains("secret-key"), "{exported}");
    let said = good(run_with_input(&mut clients(&other, &["apply", "-"]), &exported));
    assert_eq!(said.lines().last(), Some("3 created, 0 changed, 0 removed, 0 unchanged"));
    assert_eq!(ok(&other, &["export"]), exported);
    assert_eq!(ask(&other, "secret-key").header("x-ratelimit-limit"), Some("77"));
    let again = good(run_with_input(&mut clients(&one, &["apply", "-", "--prune"]), &exported));
    assert_eq!(again, "0 created, 0 changed, 0 removed, 3 unchanged\n");
}

#[test]
fn the_token_comes_from_the_environment_a_file_or_the_configuration() {
    let backend = Backend::scripted("a");
    let yaml = Setup::default().pool("app", &[backend.address], NO_CHECK);
    let directory = tempfile::tempdir().unwrap();
    let tokens = directory.path().join("tokens");
    std::fs::write(&tokens, format!("ops {TOKEN}\n")).unwrap();
    let yaml = yaml.line(&format!("admin: {{address: $ADMIN, token_file: {}}}", tokens.display())).yaml();
    let server = Tollgate::from_yaml(&yaml);
    let refusal = refused(run(&mut clients(&server, &["list"])), 1);
    assert!(refusal.contains("TOLLGATE_ADMIN_TOKEN"), "{refusal}");
    good(run(clients(&server, &["list"]).env("TOLLGATE_ADMIN_TOKEN", TOKEN)));
    refused(run(clients(&server, &["list"]).env("TOLLGATE_ADMIN_TOKEN", "another-0123456789")), 1);
    let large = "x".repeat(1 << 20);
    let refusal = refused(run_with_input(&mut clients(&server, &["apply", "-"]), &large), 1);
    assert!(refusal.contains("TOLLGATE_ADMIN_TOKEN"), "told without sending it all: {refusal}");
    ok(&server, &["list", "--token-file", tokens.to_str().unwrap()]);
    let file = directory.path().join("tollgate.yaml");
    std::fs::write(&file, yaml.replace("$LISTEN", "127.0.0.1:1").replace("$ADMIN", &server.admin.to_string())).unwrap();
    good(run(command().args(["clients", "list", "-c"]).arg(&file)));
    good(run(command().args(["healthcheck", "-c"]).arg(&file)));
    good(run(command().arg("healthcheck").env("TOLLGATE_ADMIN", server.admin.to_string())));
}

#[test]
fn nobody_there_is_said_with_the_address() {
    let nobody = free_address().to_string();
    let said = refused(run(command().args(["clients", "list", "--admin", &nobody])), 1);
    assert!(said.starts_with(&format!("tollgate: cannot connect to {nobody}: ")), "{said}");
    assert!(said.ends_with("; is tollgate running with its admin API there? (--admin)\n"), "{said}");
    let said = refused(run(command().args(["clients", "list", "--admin", "no-such-host.invalid:1"])), 1);
    assert!(said.contains("no-such-host.invalid:1") && said.contains("--admin"), "{said}");
    // Something answers, but not the admin API.
    let backend = Backend::scripted("a");
    let said = refused(run(command().args(["clients", "list", "--admin", &backend.address.to_string()])), 1);
    assert!(said.contains("does not answer as tollgate's admin API does"), "{said}");
    for line in ["clients list --admin nowhere", "clients add a --capacity 1", "clients", "clients get"] {
        assert_eq!(run(command().args(line.split(' '))).code, Some(2), "{line}");
    }
}

#[test]
fn healthcheck_is_0_when_ready_and_1_with_one_line_when_not() {
    let backend = Backend::scripted("a");
    let mut server = start(&backend);
    let admin = server.admin.to_string();
    let check = || run(command().args(["healthcheck", "--admin", &admin]));
    // It listens a moment before it says so.
    assert!(eventually(PATIENCE, || check().code == Some(0)), "{:?}", check());
    assert_eq!(good(check()), "");
    server.process.signal("TERM");
    assert_eq!(server.process.wait_exit(PATIENCE).code, Some(0));
    let began = now();
    let said = refused(check(), 1);
    assert!(said.starts_with("tollgate: not ready: ") && said.lines().count() == 1, "{said}");
    // One that accepts and says nothing is asked for 2 s.
    let silent = std::net::TcpListener::bind(free_address()).unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    let said = refused(run(command().args(["healthcheck", "--admin", &silent])), 1);
    assert!(said.starts_with("tollgate: not ready: ") && said.lines().count() == 1, "{said}");
    assert!(now() - began < PATIENCE / 2, "{:?}", now() - began);
    assert_eq!(run(command().args(["healthcheck", "-c", "/no/such/file.yaml"])).code, Some(1), "2 is Docker's own");
}
