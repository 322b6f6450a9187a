//! Plans: what a client of one may spend is what the plan has now, whatever happens to the process.

use serde_json::json;

use crate::harness::PATIENCE;
use crate::harness::backend::Backend;
use crate::harness::instance::Instance;

const FREE_AND_PRO: &str = "plans: [{name: free, capacity: 3, rate_per_sec: 0.001}, \
                            {name: pro, capacity: 6, rate_per_sec: 0.001}]\n";

/// Writes the file anew with `rest` and has it read.
#[track_caller]
fn reload(server: &Instance, backend: &Backend, rest: &str) -> serde_json::Value {
    let address = backend.address;
    server.configure(&format!(
        "access_log: {{path: null}}\nupstreams:\n  - {{name: app, backends: [{{address: \"{address}\"}}], \
         health_check: {{type: none}}}}\n{rest}"
    ));
    let answer = server.admin("POST", "/config/reload", "");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["changed"].clone()
}

#[test]
fn a_reload_changes_all_clients_of_a_plan_at_once_and_keeps_what_was_spent() {
    let backend = Backend::scripted("a");
    let mut server = Instance::start(backend.address, FREE_AND_PRO);
    for name in ["a", "b"] {
        let made = server.admin("POST", "/clients", &json!({"client_id": name, "plan": "free"}).to_string());
        assert_eq!(made.status, 201, "{made:?}");
        assert_eq!((&made.json()["capacity"], &made.json()["plan"]), (&json!(3), &json!("free")));
    }
    assert_eq!(server.allowed("a", 2), 2);
    let raised = FREE_AND_PRO.replace("capacity: 3", "capacity: 5");
    assert_eq!(reload(&server, &backend, &raised), json!(["plans changed"]));
    // One was left of three; a larger capacity gives no tokens.
    assert_eq!((server.allowed("a", 5), server.allowed("b", 5)), (1, 3));
    // The same after a restart, and after a crash.
    let shown = |server: &Instance| server.admin("GET", "/clients/a", "").json();
    assert_eq!(shown(&server)["capacity"], json!(5));
    server.stop();
    server.start_again();
    assert_eq!((shown(&server)["capacity"].clone(), server.allowed("b", 5)), (json!(5), 0));
    server.kill();
    server.start_again();
    assert_eq!(shown(&server)["capacity"], json!(5));
    // A plan that is gone: each client has what was kept when it got it.
    assert_eq!(reload(&server, &backend, ""), json!(["plans changed"]));
    assert_eq!((shown(&server)["capacity"].clone(), shown(&server)["plan"].clone()), (json!(3), json!("free")));
    let warned = "clients whose plan the configuration does not have: 2, such as ";
    server.process.err.wait_for(&[warned], PATIENCE);
    server.stop();
    server.start_again();
    assert_eq!(shown(&server)["capacity"], json!(3));
    server.process.err.wait_for(&[warned], PATIENCE);
    reload(&server, &backend, FREE_AND_PRO);
    let moved = server.admin("PATCH", "/clients/a", r#"{"plan":"pro"}"#).json();
    assert_eq!((&moved["capacity"], &moved["plan"]), (&json!(6), &json!("pro")));
}

#[test]
fn what_makes_no_sense_of_a_plan_is_refused_in_words() {
    let backend = Backend::scripted("a");
    let server = Instance::start(backend.address, FREE_AND_PRO);
    let refused = |method: &str, target: &str, body: &str| -> Vec<(String, String)> {
        let answer = server.admin(method, target, body);
        assert_eq!(answer.status, 422, "{answer:?}");
        let errors = answer.json()["errors"].as_array().unwrap().clone();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        errors.iter().map(|error| (text(&error["field"]), text(&error["message"]))).collect()
    };
    let unknown = "must be a plan of the configuration (free, pro), or null for none";
    let said = |field: &str, message: &str| vec![(field.to_owned(), message.to_owned())];
    assert_eq!(refused("POST", "/clients", r#"{"client_id":"a","plan":"gold"}"#), said("plan", unknown));
    let bulk = r#"[{"client_id":"a","plan":"gold"}]"#;
    assert_eq!(refused("PUT", "/clients", bulk), said("[0].plan", unknown));
    assert_eq!(server.admin("POST", "/clients", r#"{"client_id":"a","plan":"free"}"#).status, 201);
    let own = "client a has plan free, which says what it may spend; say with it what becomes of plan, such as null";
    assert_eq!(refused("PATCH", "/clients/a", r#"{"capacity":9}"#), said("capacity", own));
    // Whoever leaves it has what it had, but for what is said.
    let left = server.admin("PATCH", "/clients/a", r#"{"plan":null,"capacity":9}"#).json();
    assert_eq!((&left["plan"], &left["capacity"], &left["rate_per_sec"]), (&json!(null), &json!(9), &json!(0.001)));
    // Back to it, and all that was, by the history; then as it is exported.
    let back = server.admin("POST", "/clients/a/rollback", r#"{"version":1}"#).json();
    assert_eq!((&back["plan"], &back["capacity"]), (&json!("free"), &json!(3)));
    let export = server.admin("GET", "/clients?format=ndjson", "").text();
    assert!(export.contains(r#""plan":"free""#), "{export}");
    let applied = server.admin("PUT", "/clients", &export).json();
    assert_eq!((&applied["unchanged"], &applied["changed"]), (&json!(1), &json!([])));
    // What was read is sent back as it is.
    let shown = server.admin("GET", "/clients/a", "").text();
    assert_eq!(server.admin("PUT", "/clients/a", &shown).json()["version"], json!(3));
}

#[test]
fn what_was_read_or_exported_is_taken_back_also_when_its_plan_is_gone() {
    let backend = Backend::scripted("a");
    let server = Instance::start(backend.address, FREE_AND_PRO);
    // It has more of its own than its plan has.
    let own = r#"{"client_id":"a","plan":"free","capacity":1000,"rate_per_sec":100}"#;
    assert_eq!(server.admin("POST", "/clients", own).status, 201);
    let shown = || server.admin("GET", "/clients/a", "");
    let sent_back = || server.admin("PUT", "/clients/a", &shown().text()).json();
    let exported = || {
        let export = server.admin("GET", "/clients?format=ndjson", "").text();
        let items = server.admin("GET", "/clients", "").json()["items"].to_string();
        let unchanged = |body: &str| server.admin("PUT", "/clients", body).json()["unchanged"].clone();
        (unchanged(&export), unchanged(&items))
    };
    let one = (json!(1), json!(1));
    assert_eq!((&shown().json()["capacity"], &sent_back()["version"]), (&json!(3), &json!(1)));
    assert_eq!(exported(), one);
    reload(&server, &backend, "");
    assert_eq!((&shown().json()["capacity"], &sent_back()["version"]), (&json!(1000), &json!(1)));
    assert_eq!(exported(), one);
    // Nobody else gets it.
    for (id, plan) in [("b", "free"), ("a", "gold")] {
        let body = json!({"plan": plan, "capacity": 1, "rate_per_sec": 1}).to_string();
        let refused = server.admin("PUT", &format!("/clients/{id}"), &body);
        assert_eq!((refused.status, &refused.json()["errors"][0]["field"]), (422, &json!("plan")), "{refused:?}");
    }
}
