//! What the pages have to describe: every configuration key with its default, every metric, every call, every flag.

use std::collections::BTreeMap;

use serde_json::Value;

use super::markdown::Page;
use super::stage::Stage;
use super::{CLIENTS, CONFIGURATION, CONTRIBUTING, LIMITS, OPERATIONS, PAGES, README, TLS};

const SCHEMA: &str = include_str!("../../../conf/tollgate.schema.json");
const OPENAPI: &str = include_str!("../../../docs/openapi.json");
const MAKEFILE: &str = include_str!("../../../Makefile");

/// The keys of a schema that hold values, below `path`, with their defaults.
fn keys(schema: &Value, path: &str, found: &mut BTreeMap<String, Option<Value>>) {
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, value) in properties.into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        // A section that may be null is the first of its kinds, and a value, too.
        if let Some(section) = value.pointer("/anyOf/0").filter(|kind| kind.get("properties").is_some()) {
            keys(section, &path, found);
        }
        match (value.get("properties"), value.pointer("/items/properties")) {
            (None, None) => drop(found.insert(path, value.get("default").cloned())),
            (Some(_), _) => keys(value, &path, found),
            (None, Some(_)) => keys(&value["items"], &format!("{path}[]"), found),
        }
    }
}

/// The keys that a page describes, with what it says of their defaults.
fn described() -> BTreeMap<&'static str, &'static str> {
    let rows = CONFIGURATION.rows();
    let rows = rows.iter().filter(|row| row.len() == 4);
    rows.filter_map(|row| Some((row[0].strip_prefix('`')?.strip_suffix('`')?, row[2]))).collect()
}

#[test]
fn every_configuration_key_is_described_with_its_default() {
    let mut expected = BTreeMap::new();
    keys(&serde_json::from_str(SCHEMA).unwrap(), "", &mut expected);
    let described = described();
    let missing: Vec<_> = expected.keys().filter(|key| !described.contains_key(&***key)).collect();
    let unknown: Vec<_> = described.keys().filter(|key| !expected.contains_key(**key)).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "missing: {missing:?}, unknown: {unknown:?}");
    assert!(expected.len() > 60, "only {} keys", expected.len());
    for (key, default) in expected {
        let Some(default) = default else { continue };
        let said = described[&*key].trim_matches('`');
        let text = default.as_str().map_or_else(|| default.to_string(), str::to_owned);
        assert!(said == text || said.trim_matches('"') == text, "{key}: the schema has {text}, the page {said}");
    }
}

#[test]
fn every_metric_is_described() {
    let mut stage = Stage::for_commands(&[]);
    let text = stage.admin("/metrics");
    let names: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert!(names.len() >= 15, "{text}");
    let described: Vec<_> = OPERATIONS.code().into_iter().map(|(_, code)| code).collect();
    let missing: Vec<_> = names
        .iter()
        .filter(|name| !described.iter().any(|one| one == *name || one.strip_suffix("_total") == Some(name)))
        .collect();
    assert!(missing.is_empty(), "{}: {missing:?}", OPERATIONS.path);
}

#[test]
fn every_call_of_the_admin_api_is_described() {
    let api: Value = serde_json::from_str(OPENAPI).unwrap();
    let described = CLIENTS.code();
    let mut count = 0;
    for (path, methods) in api["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let call = format!("{} {}", method.to_uppercase(), path.replace("{client_id}", "{id}"));
            let there = described.iter().any(|(_, code)| code.split('?').next() == Some(&*call));
            assert!(there, "{} does not have `{call}`", CLIENTS.path);
            count += 1;
        }
    }
    assert!(count >= 20, "{count}");
}

/// The words of a help text that start with `--`.
fn flags(help: &str) -> impl Iterator<Item = &str> {
    let words = help.split([' ', '\n', ',', '[', ']', '=']);
    words.filter(|word| word.len() > 2 && word.starts_with("--"))
}

#[test]
fn every_command_and_every_flag_of_run_is_described() {
    let mut stage = Stage::for_commands(&["tollgate run"]);
    let help = stage.tollgate("--help");
    let commands = help.split_once("Commands:\n").unwrap().1.split_once("\n\n").unwrap().0;
    let commands = commands.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let commands: Vec<_> = commands.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(commands.len() >= 9, "{help}");
    let code = CONFIGURATION.code();
    for command in commands.into_iter().filter(|command| *command != "help") {
        let there = code.iter().any(|(_, code)| code.split(' ').next() == Some(command));
        assert!(there, "{} does not have `{command}`", CONFIGURATION.path);
    }
    let help = stage.tollgate("run --help");
    assert!(flags(&help).count() >= 8, "{help}");
    for flag in flags(&help).filter(|flag| !matches!(*flag, "--help" | "--version")) {
        let there = code.iter().any(|(_, code)| code.split(' ').next() == Some(flag));
        assert!(there, "{} does not have `{flag}`", CONFIGURATION.path);
    }
}

#[test]
fn every_command_of_make_is_described() {
    let described: Vec<_> = CONTRIBUTING.rows().into_iter().map(|row| row[0]).collect();
    let targets: Vec<_> = MAKEFILE.lines().filter_map(|line| Some(line.split_once(": ")?.0)).collect();
    let targets = targets.into_iter().filter(|target| target.chars().all(|c| c.is_ascii_lowercase() || c == '-'));
    let mut count = 0;
    for target in targets.filter(|target| !matches!(*target, "help" | "setup")) {
        assert!(described.contains(&&*format!("`make {target}`")), "{} does not have {target}", CONTRIBUTING.path);
        count += 1;
    }
    assert!(count >= 12, "{count}");
}

#[test]
fn every_configuration_that_a_page_shows_is_valid() {
    let mut stage = Stage::for_commands(&["tollgate run"]);
    std::fs::create_dir_all(stage.dir().join("conf/tls")).unwrap();
    crate::harness::tls::write_pair(&stage.dir().join("conf/tls"), crate::harness::tls::NOW);
    std::fs::copy(stage.dir().join("conf/tls/cert.pem"), stage.dir().join("conf/tls/ca.pem")).unwrap();
    let mut count = 0;
    for page in PAGES {
        for block in page.sections().into_iter().flat_map(|section| section.blocks) {
            if block.language != "yaml" {
                continue;
            }
            count += 1;
            let mut text = block.lines.join("\n");
            for (key, rest) in [
                ("listeners:", "[{address: 0.0.0.0:8080}]"),
                ("upstreams:", "[{name: app, backends: [{address: 127.0.0.1:9001}]}]"),
            ] {
                if !block.lines.iter().any(|line| line.starts_with(key)) {
                    text.push_str(&format!("\n{key} {rest}\n"));
                }
            }
            std::fs::write(stage.dir().join("shown.yaml"), text).unwrap();
            let said = stage.type_in("tollgate check -c shown.yaml", page.path);
            assert!(said.contains(" is valid"), "{}: {said}", page.path);
        }
    }
    assert!(count >= 3, "{count}");
}

#[test]
fn every_json_that_a_page_shows_is_json() {
    for page in PAGES {
        for block in page.sections().into_iter().flat_map(|section| section.blocks) {
            let text = block.lines.join("\n");
            if block.language == "json" {
                assert!(serde_json::from_str::<Value>(&text).is_ok(), "{}: {text}", page.path);
            }
        }
    }
}

#[test]
fn the_readme_is_short_and_nothing_is_said_twice() {
    assert!(README.text.lines().count() <= 250, "{} lines", README.text.lines().count());
    let mut seen = BTreeMap::<&str, &str>::new();
    for page in PAGES.iter().filter(|page| page.path != "CHANGELOG.md") {
        for (line, text) in page.prose() {
            if text.len() >= 90
                && let Some(other) = seen.insert(text, page.path)
                && other != page.path
            {
                panic!("{}:{line} says what {other} says: {text}", page.path);
            }
        }
    }
}

/// The figures behind a label in a table of ratios: `0.87 (0.80–0.92)` is `0.87`.
fn figures(page: &Page, label: &str) -> Vec<&'static str> {
    let rows = page.rows();
    let row = rows.iter().find(|row| row[0] == label).unwrap_or_else(|| panic!("{} has no {label:?}", page.path));
    row[1..].iter().map(|cell| cell.split(' ').next().unwrap()).collect()
}

#[test]
fn the_figures_of_the_readme_are_those_of_the_benchmarks() {
    let benchmarks = PAGES.iter().find(|page| page.path == "docs/benchmarks.md").unwrap();
    let is_ratio = |cell: &&str| cell.len() == 4 && cell.parse::<f64>().is_ok();
    let labels: Vec<_> =
        README.rows().into_iter().filter(|row| row.len() == 5 && is_ratio(&row[1])).map(|row| row[0]).collect();
    assert!(labels.len() >= 5, "{labels:?}");
    for label in labels {
        let [cpu, _aim, p99, haproxy_cpu, haproxy_p99] = figures(benchmarks, label)[..] else {
            panic!("{label}: another table")
        };
        let measured = [cpu, p99, haproxy_cpu, haproxy_p99];
        assert_eq!(figures(&README, label), measured, "{label}: README.md, and docs/benchmarks.md");
    }
}

#[test]
fn what_cannot_be_done_is_said() {
    let anchors = LIMITS.anchors();
    assert!(anchors.iter().any(|anchor| anchor == "what-cannot-be-done"), "{anchors:?}");
    let anchors = OPERATIONS.anchors();
    assert!(anchors.iter().any(|anchor| anchor == "at-3-am"), "{anchors:?}");
}

#[test]
fn every_answer_of_our_own_is_in_the_table() {
    let described: Vec<_> = TLS.rows().into_iter().map(|row| row[0]).collect();
    for status in ["308", "400", "401", "403", "404", "405", "408", "413", "429", "431", "500", "502", "503", "504"] {
        assert!(described.contains(&status), "{} does not have {status}", TLS.path);
    }
}
