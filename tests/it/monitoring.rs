//! What is shipped for those who watch: the alerts, each with its cases and its runbook, and Grafana's dashboard.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use regex::Regex;
use serde_json::Value;

use crate::harness::process::{is_installed, run};

const PACKAGING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging");
const ALERTS: &str = include_str!("../../packaging/alerts.yaml");
const CASES: &str = include_str!("../../packaging/alerts_test.yaml");
const DASHBOARD: &str = include_str!("../../packaging/grafana.json");
const OPERATIONS: &str = include_str!("../../docs/operations.md");
/// Where `make setup-tests` installs Grafana's own types.
const PYTHON: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/grafana/bin/python");

/// Runs promtool, which must have nothing against it.
#[track_caller]
fn promtool(arguments: &[&str], directory: &Path) {
    let mut promtool = Command::new("promtool");
    let done = run(promtool.args(arguments).current_dir(directory));
    assert_eq!(done.code, Some(0), "{done:?}");
}

/// The metrics that a text names.
fn metrics_of(text: &str) -> BTreeSet<&str> {
    Regex::new("tollgate_[a-z0-9_]+").unwrap().find_iter(text).map(|found| found.as_str()).collect()
}

/// Those that operators are told of; that each is there, and no other, is for `pages`.
fn is_told(metric: &str) -> bool {
    let histogram = ["_bucket", "_count", "_sum"].iter().find_map(|end| metric.strip_suffix(end)).unwrap_or(metric);
    OPERATIONS.contains(&format!("| `{metric}` |")) || OPERATIONS.contains(&format!("| `{histogram}` |"))
}

#[test]
fn the_alerts_come_when_they_should() {
    if is_installed("promtool") {
        promtool(&["check", "rules", "alerts.yaml"], Path::new(PACKAGING));
        promtool(&["test", "rules", "alerts_test.yaml"], Path::new(PACKAGING));
    }
}

#[test]
fn each_alert_has_cases_and_a_runbook() {
    let names: Vec<&str> = ALERTS.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() > 8, "{names:?}");
    for name in &names {
        assert!(OPERATIONS.contains(&format!("\n### {name}\n")), "{name} has no runbook");
        let runbook = format!("runbook: docs/operations.md#{}", name.to_lowercase());
        assert!(ALERTS.contains(&runbook), "{name} does not say where its runbook is");
        // Once when it must not come, once when it must.
        let cases = CASES.matches(&format!("alertname: {name}")).count();
        assert!(cases >= 2 && CASES.contains(&runbook), "{name}: {cases} cases");
    }
    let unknown: Vec<_> = metrics_of(ALERTS).into_iter().filter(|metric| !is_told(metric)).collect();
    assert_eq!(unknown, [""; 0]);
}

/// All values of a key, wherever they stand.
fn values<'v>(json: &'v Value, wanted: &str) -> Vec<&'v Value> {
    match json {
        Value::Array(items) => items.iter().flat_map(|item| values(item, wanted)).collect(),
        Value::Object(fields) => {
            let here = fields.get(wanted).into_iter();
            here.chain(fields.values().flat_map(|value| values(value, wanted))).collect()
        }
        _ => Vec::new(),
    }
}

#[test]
fn the_dashboard_asks_for_what_there_is() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let unknown: Vec<_> = metrics_of(DASHBOARD).into_iter().filter(|metric| !is_told(metric)).collect();
    assert_eq!(unknown, [""; 0]);
    let asked: Vec<&str> = values(&dashboard, "expr").into_iter().map(|expr| expr.as_str().unwrap()).collect();
    assert!(asked.len() > 30, "{}", asked.len());
    let mut rules = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    for (number, expr) in asked.iter().enumerate() {
        assert!(expr.contains(r#"job="$job", instance=~"$instance""#), "not of the chosen ones alone: {expr}");
        let expr = expr.replace("$__rate_interval", "1m").replace("$job", "tollgate").replace("$instance", ".+");
        writeln!(rules, "      - {{record: 'asked:{number}', expr: {}}}", Value::from(expr)).unwrap();
    }
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("asked.yaml"), rules).unwrap();
    if is_installed("promtool") {
        promtool(&["check", "rules", "asked.yaml"], place.path());
    }
}

#[test]
fn the_dashboard_is_whole() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut taken = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{panel}");
        for (x, y) in (0..place("w")).flat_map(|x| (0..place("h")).map(move |y| (x, y))) {
            assert!(taken.insert((place("x") + x, place("y") + y)), "two panels in one place: {panel}");
        }
        let said = |key: &str| panel[key].as_str().is_some_and(|text| !text.is_empty());
        assert!(said("title") && (panel["type"] == "row" || said("description")), "{panel}");
    }
    let ids = values(&dashboard["panels"], "id");
    let different: BTreeSet<_> = ids.iter().filter_map(|id| id.as_u64()).collect();
    assert_eq!(different.len(), dashboard["panels"].as_array().unwrap().len());
    if is_installed(PYTHON) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/monitoring/dashboard.py");
        let mut python = Command::new(PYTHON);
        python.env("PYTHONDONTWRITEBYTECODE", "1").args([script, &format!("{PACKAGING}/grafana.json")]);
        let done = run(&mut python);
        assert_eq!((done.code, done.out.trim()), (Some(0), ""), "{done:?}");
    }
}
