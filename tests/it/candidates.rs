//! A limit on trial beside the one in force, and what recorded requests say of limits.

use serde_json::{Value, json};

use crate::harness::backend::Backend;
use crate::harness::client::{Client, Request};
use crate::harness::instance::Instance;
use crate::harness::server::Tollgate;

fn shown(server: &Instance) -> Value {
    server.admin("GET", "/clients/a", "").json()
}

#[test]
fn a_candidate_is_counted_and_refuses_nothing_until_it_is_promoted() {
    let backend = Backend::scripted("a");
    let mut server = Instance::start(backend.address, "");
    let none = server.create("a", 100, 0.001);
    assert_eq!((&none["candidate"], &none["candidate_limited"]), (&json!(null), &json!(0)));
    let set = server.admin("PATCH", "/clients/a", r#"{"candidate":{"capacity":3,"rate_per_sec":0.001}}"#).json();
    assert_eq!(set["candidate"], json!({"capacity": 3, "rate_per_sec": 0.001}));
    // A part of it changes by itself, where there is a whole.
    let part =
        |capacity: u32| server.admin("PATCH", "/clients/a", &json!({"candidate": {"capacity": capacity}}).to_string());
    assert_eq!(part(4).json()["candidate"], json!({"capacity": 4, "rate_per_sec": 0.001}));
    assert_eq!(part(3).status, 200);
    assert_eq!(server.allowed("a", 10), 10);
    let tried = shown(&server);
    assert_eq!((&tried["candidate_limited"], &tried["limited"], &tried["allowed"]), (&json!(7), &json!(0), &json!(10)));
    let metrics = server.admin("GET", "/metrics", "").text();
    for line in [
        "tollgate_candidate_decisions_total{decision=\"allowed\"} 3",
        "tollgate_candidate_decisions_total{decision=\"limited\"} 7",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
    // It is what it was after a crash, and in what is exported.
    server.kill();
    server.start_again();
    assert_eq!(shown(&server)["candidate"]["capacity"], json!(3));
    let export = server.admin("GET", "/clients?format=ndjson", "").text();
    assert_eq!(server.admin("PUT", "/clients", &export).json()["unchanged"], json!(1));
    // In force by one call, which keeps what was spent, and the history knows it.
    let etag = server.admin("GET", "/clients/a", "").header("etag").unwrap().to_owned();
    let promoted = server.admin("POST", "/clients/a/promote", "");
    assert_eq!(promoted.status, 200, "{promoted:?}");
    assert_ne!(promoted.header("etag"), Some(&*etag));
    let promoted = promoted.json();
    assert_eq!((&promoted["capacity"], &promoted["candidate"]), (&json!(3), &json!(null)));
    assert_eq!(server.allowed("a", 5), 3);
    let latest = server.admin("GET", "/clients/a/history", "").json()["items"][0].clone();
    assert_eq!((&latest["before"]["candidate"]["capacity"], &latest["before"]["capacity"]), (&json!(3), &json!(100)));
    let again = server.admin("POST", "/clients/a/promote", "");
    assert_eq!((again.status, again.json()["message"].as_str()), (409, Some("Client a has no candidate")));
    assert_eq!(server.admin("POST", "/clients/nobody/promote", "").status, 404);
    let fields = |method: &str, candidate: &str| -> Vec<_> {
        let body = format!(r#"{{"capacity":1,"rate_per_sec":1,"candidate":{candidate}}}"#);
        let wrong = server.admin(method, "/clients/a", &body).json();
        wrong["errors"].as_array().unwrap().iter().map(|error| error["field"].clone()).collect()
    };
    assert_eq!(fields("PUT", r#"{"capacity":0}"#), [json!("candidate.capacity"), json!("candidate.rate_per_sec")]);
    assert_eq!(fields("PATCH", r#"{"capacity":0}"#), [json!("candidate.capacity")]);
    assert_eq!(fields("PATCH", r#"{"capacity":1}"#), [json!("candidate")], "there is none of which that were a part");
}

#[test]
fn a_line_says_what_a_candidate_would_have_refused() {
    let backend = Backend::scripted("a");
    let server = Tollgate::from_yaml(&format!(
        "listeners: [{{address: $LISTEN}}]\nadmin: {{address: $ADMIN}}\ndatabase: $DIR/t.db\n\
         upstreams:\n  - {{name: app, backends: [{{address: \"{}\"}}], health_check: {{type: none}}}}\n\
         access_log: {{path: $DIR/access.log}}\n",
        backend.address
    ));
    let candidate =
        r#"{"client_id":"a","capacity":9,"rate_per_sec":1,"candidate":{"capacity":1,"rate_per_sec":0.001}}"#;
    assert_eq!(server.ask("POST", "/clients", candidate).status, 201);
    let headers = [("x-api-key", "a")];
    for target in ["/first", "/second"] {
        let request = Request::new("GET", target).headers(&headers);
        assert_eq!(Client::connect(server.address).call(&request).unwrap().status, 200);
    }
    let lines = || std::fs::read_to_string(server.path("access.log")).unwrap();
    assert!(crate::harness::eventually(crate::harness::PATIENCE, || lines().lines().count() == 2), "{}", lines());
    for line in lines().lines() {
        assert_eq!(line.contains(r#""shadow":"candidate""#), line.contains("/second"), "{line}");
    }
}

#[test]
fn what_was_recorded_recommends_a_limit_and_judges_others() {
    let backend = Backend::scripted("a");
    let server = Instance::start(backend.address, "");
    server.create("a", 20, 0.001);
    server.create("idle", 20, 0.001);
    let recommend = |query: &str| server.admin("GET", &format!("/clients/a/recommend{query}"), "");
    let nothing = recommend("");
    let said = "Nothing is recorded of client a in the last 1h";
    assert_eq!((nothing.status, nothing.json()["message"].as_str()), (404, Some(said)));
    assert_eq!(server.allowed("a", 50), 20);
    let told = recommend("?window=1h").json();
    assert_eq!((&told["requests"], &told["would_limit"]), (&json!(50), &json!(0)));
    // However the seconds fell: the rate is that of a minute, and the capacity what is left of fifty at it.
    let (peak, capacity) = (told["peak_per_sec"].as_u64().unwrap(), told["recommended"]["capacity"].as_u64().unwrap());
    assert!((1..=50).contains(&peak) && (45..=50).contains(&capacity), "{told}");
    assert_eq!((&told["recommended"]["rate_per_sec"], &told["in_force_limited"]), (&json!(0.834), &json!(30)));
    assert!(told["model"].as_str().unwrap().contains("as if all came at its start"), "{told}");
    let simulate = |body: &Value| server.admin("POST", "/clients/a/simulate", &body.to_string());
    let judged = |capacity: u64| {
        let answer = simulate(&json!({"capacity": capacity, "rate_per_sec": 0.001, "window": "1h"})).json();
        (answer["requests"].clone(), answer["would_limit"].clone())
    };
    assert_eq!(judged(10), (json!(50), json!(40)));
    assert_eq!(judged(50), (json!(50), json!(0)));
    assert_eq!(server.admin("GET", "/clients/idle/recommend", "").status, 404);
    assert_eq!(server.admin("GET", "/clients/nobody/recommend", "").status, 404);
    for window in ["0s", "2h", "soon", ""] {
        assert_eq!(recommend(&format!("?window={window}")).status, 422, "{window}");
    }
    let wrong = simulate(&json!({"capacity": 0, "window": 7}));
    let fields: Vec<_> = wrong.json()["errors"].as_array().unwrap().iter().map(|one| one["field"].clone()).collect();
    assert_eq!((wrong.status, fields.len()), (422, 3), "{fields:?}");
}
