//! Variables in the file's values.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::{START, lines};
use crate::config::load::load_text;
use crate::config::{Config, Overrides, Problems, schema};

/// Checks the smallest file and `text` with variables that say all kinds of things.
fn check(text: &str) -> Result<Config, Problems> {
    let variables = |name: &str| {
        let value = match name {
            "HOST" => "app.internal",
            "PORT" => "9002",
            "THREE" => "3",
            "RATE" => "2.5",
            "ON" => "false",
            "EMPTY" => "",
            "NULL" => "null",
            "YAML" => "1, weight: 7}, {address: 10.0.0.1:1",
            "SECRET" => "Bearer hunter2-hunter2",
            "ODD" => "{hunter2}",
            "LATIN" => return Some(OsString::from_vec(b"caf\xe9".to_vec())),
            _ => return None,
        };
        Some(value.into())
    };
    load_text("f.yaml", &format!("{START}{text}"), &Overrides::default(), &variables)
}

#[test]
fn a_variable_is_what_its_key_wants() {
    let yaml = "    retries: ${THREE}
  - name: b
    backends: [{address: \"${HOST}:${PORT}\", weight: '${THREE}'}, {address: \"${NONE:-10.0.0.1}:1\"}]
    retry_on: [connect, \"${STATUS:-502}\", '${BROKEN:-broken}']
rate_limit: {enabled: \"${ON}\", default: {capacity: \"${THREE}0\", rate_per_sec: \"${RATE}\"}}
limits: {max_body: \"${THREE}MiB\", max_connections_per_address: \"${EMPTY:-17}\"}
routes:
  - path: /
    upstream: ${POOL:-app}
    request_headers: {set: {Authorization: \"${SECRET}\", X-Port: \"${PORT}\"}}
";
    let plain = "    retries: 3
  - name: b
    backends: [{address: 'app.internal:9002', weight: 3}, {address: 10.0.0.1:1}]
    retry_on: [connect, 502, broken]
rate_limit: {enabled: false, default: {capacity: 30, rate_per_sec: 2.5}}
limits: {max_body: 3MiB, max_connections_per_address: 17}
routes:
  - path: /
    upstream: app
    request_headers: {set: {Authorization: Bearer hunter2-hunter2, X-Port: '9002'}}
";
    assert_eq!(check(yaml).unwrap(), check(plain).unwrap());
}

#[test]
fn a_literal_is_written_with_two_dollars() {
    let said = |value: &str| check(&format!("database: {value}\n")).unwrap().database.unwrap().display().to_string();
    for (written, meant) in [
        ("'$a $$ $$$ }'", "$a $$ $$$ }"),
        ("'$${{THREE}}'", "${{THREE}}"),
        ("'$$${THREE}'", "$${THREE}"),
        ("'a${THREE}b$${'", "a3b${"),
        ("'${1}-${THREE}'", "${1}-3"),
    ] {
        assert_eq!(said(written), meant, "{written}");
    }
}

#[test]
fn what_cannot_be_put_in_is_a_problem_at_its_key_and_the_only_one() {
    let said = |value: &str| lines(check(&format!("    retries: {value}\n")));
    let literal = "a literal ${ is written $${";
    let at = "upstreams[0].retries";
    for (value, message) in [
        ("${NONE}", format!("the variable NONE is not set, and ${{NONE:-…}} gives no default; {literal}")),
        ("${LATIN}", "the variable LATIN must be text in UTF-8".to_owned()),
        ("'${THREE'", format!("has a ${{ without a }} behind it; {literal}")),
        ("${EMPTY}", "must be a whole number from 0 to 16, not what \"${EMPTY}\" says".to_owned()),
        ("${NULL}", "must be a whole number from 0 to 16, not what \"${NULL}\" says".to_owned()),
        ("'${NONE:-17}'", "must be a whole number from 0 to 16, not what \"${NONE:-17}\" says".to_owned()),
        ("'!!int ${SECRET}'", "must be a whole number from 0 to 16, not what \"!!int ${SECRET}\" says".to_owned()),
    ] {
        assert_eq!(said(value), [format!("{at}: {message} (line 5)")], "{value}");
    }
    for wrong in ["${}", "${A-b}", "${A:?b}", "${env:A}", "${A B}", "'${A:-${THREE}}'"] {
        let got = said(wrong);
        assert!(got.len() == 1 && got[0].contains("must be ${NAME} or ${NAME:-default}"), "{wrong}: {got:?}");
    }
    // Each of several, beside what else is wrong.
    let got =
        lines(check("limits: {max_body: '${NONE}', maximum: 1}\nroutes: [{path: '${GONE}', upstream: '${HOST}'}]\n"));
    assert_eq!(got.len(), 4, "{got:?}");
    for part in
        ["limits.max_body: the variable NONE", "limits.maximum: unknown key", "routes[0].path: the variable GONE"]
    {
        assert!(got.iter().any(|line| line.contains(part)), "{part} in {got:?}");
    }
    let unquoted = lines(check("limits: {max_body: ${NONE}}\n"));
    assert!(unquoted[0].contains("between brackets ${NAME} needs quotes"), "{unquoted:?}");
}

#[test]
fn a_value_is_never_yaml_and_never_said() {
    let got = lines(check("  - name: b\n    backends: [{address: \"${YAML}\"}]\nroutes: [{path: /, upstream: app}]\n"));
    assert!(got.len() == 1 && got[0].starts_with("upstreams[1].backends[0].address: must be "), "{got:?}");
    for yaml in [
        "database: \"${SECRET}/\"\n",
        "    retries: \"${SECRET}\"\n",
        "    balance: \"${SECRET}\"\n",
        "    retry_on: [\"${SECRET}\"]\n",
        "    backends: \"${SECRET}\"\n",
        "  - {name: \"${SECRET}\", backends: [{address: a:1}]}\n",
        "routes: [{path: /, upstream: \"${SECRET}\"}]\n",
        "listeners: [{address: 127.0.0.1:1, tls: {cert: \"${SECRET}\", key: \"${SECRET}\"}}]\n",
        "routes: [{path: /, upstream: app, request_headers: {edit: [{name: A, from: \"(${SECRET}\", to: b}]}}]\n",
        "rate_limit: {policies: [{name: a, key: \"${SECRET}\", capacity: 1, rate_per_sec: 1}]}\n",
        "fleet: {store: \"redis://a:${SECRET}@[/0\"}\n",
        "plans: \"${SECRET}\"\n",
    ] {
        let yaml = if yaml.starts_with("listeners") {
            START.replace("listeners: [{address: 0.0.0.0:8080}]\n", "") + yaml
        } else {
            format!("{START}{yaml}")
        };
        let secret = |name: &str| (name == "SECRET").then(|| "Bearer hunter2-hunter2".into());
        let got = lines(load_text("f.yaml", &yaml, &Overrides::default(), &secret));
        assert!(!got.is_empty() && !got.concat().contains("hunter2"), "{yaml}: {got:?}");
    }
}

/// The schema lets an editor take a variable for every value, and nothing else that it did not.
#[test]
fn the_schema_takes_variables() {
    let schema: serde_json::Value = serde_json::from_str(&schema()).unwrap();
    let at = |path: &str| schema.pointer(path).unwrap_or_else(|| panic!("no {path}"));
    let variable = serde_json::json!({"$ref": "#/$defs/variable"});
    for path in [
        "/properties/direct",
        "/properties/pingora/properties/threads",
        "/properties/listeners/items/properties/address",
        "/properties/upstreams/items/properties/retry_on/items",
        "/properties/rate_limit/properties/policies/items/properties/cost",
        "/properties/upstreams/items/properties/balance",
    ] {
        let kinds = at(path)["anyOf"].as_array().unwrap();
        assert_eq!(kinds.iter().filter(|kind| **kind == variable).count(), 1, "{path}: {kinds:?}");
    }
    assert!(at("/properties/direct")["default"] == true && at("/properties/direct")["description"].is_string());
    assert!(at("/properties/admin").get("anyOf").is_none(), "a section is no text");
    assert!(at("/$defs/variable").is_object());
}
