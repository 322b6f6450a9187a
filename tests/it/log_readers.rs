//! The access log as the programs read it that people read logs with: GoAccess and lnav.

use std::process::Command;

use serde_json::Value;

use crate::harness::backend::Backend;
use crate::harness::client::Request;
use crate::harness::http2::Http2;
use crate::harness::process::{is_installed, run};
use crate::harness::server::{LISTEN, Tollgate};
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::{PATIENCE, eventually};

/// A server that has written a line for each of some requests, most of them odd, to `access.log`; how many.
fn written(form: &str) -> (Tollgate, usize) {
    let backend = [Backend::scripted("a")];
    let limit = "rate_limit: {default: {capacity: 1000, rate_per_sec: 0.001}}";
    let setup = Setup::app(&backend, NO_CHECK).line(&format!("access_log: {{path: $DIR/access.log, format: {form}}}"));
    let setup = setup.line(limit).line("identity: {trusted_proxies: [127.0.0.1/32]}");
    let yaml = setup.yaml().replacen(&format!("{{address: {LISTEN}"), &format!("{{h2c: true, address: {LISTEN}"), 1);
    let server = Tollgate::from_yaml(&yaml);
    server.ask("POST", "/clients", r#"{"client_id":"user1","capacity":1,"rate_per_sec":0.001}"#);
    let mut count = 0;
    let agents = ["curl/8.5.0", "a \"b\" \\c [d]", "\u{1f600}\u{e4}", "", "- \"-\" 200 1"];
    let paths = ["/", "/a%20b?key=s3cret", "/\"quoted\"/\\x22", "/[1]/{2}", "//a//"];
    for (agent, path) in agents.iter().flat_map(|agent| paths.map(|path| (agent, path))) {
        let referer = format!("https://a.example{path}");
        let headers = [("User-Agent", *agent), ("Referer", &referer), ("X-Forwarded-For", "2001:db8::7")];
        server.client().call(&Request::new("GET", path).headers(&headers)).unwrap();
        count += 1;
    }
    for status in [200, 204, 404, 500, 503] {
        server.client().get(&format!("/status?status={status}")).unwrap();
        count += 1;
    }
    for _ in 0..2 {
        server.client().call(&Request::new("GET", "/limited").headers(&[("X-Api-Key", "user1")])).unwrap();
        count += 1;
    }
    Http2::plain(server.address).get("/two").unwrap();
    count += 1;
    for bytes in [
        "GARBAGE\r\n\r\n",
        "\"x\" / y\r\n\r\n",
        "GET /cut HTTP/1.0\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "\u{e4}\r\n\r\n",
        "- - -",
    ] {
        let mut client = server.client();
        client.send(bytes.as_bytes()).unwrap();
        client.finish();
        client.rest(PATIENCE).unwrap();
        count += 1;
    }
    let lines = || std::fs::read_to_string(server.path("access.log")).unwrap_or_default().lines().count();
    assert!(eventually(PATIENCE, || lines() == count), "{} of {count}", lines());
    (server, count)
}

#[test]
fn goaccess_reads_every_line_of_text_as_combined() {
    if !is_installed("goaccess") {
        return;
    }
    let (server, count) = written("text");
    let report = server.path("report.json");
    let finished = run(Command::new("goaccess")
        .arg(server.path("access.log"))
        .args(["--log-format=COMBINED", "--no-global-config", "--no-progress", "-o"])
        .arg(&report));
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    let general = |key: &str| report["general"][key].as_u64();
    let read = (general("total_requests"), general("valid_requests"), general("failed_requests"));
    assert_eq!(read, (Some(count as u64), Some(count as u64), Some(0)), "{report}");
    let all = |panel: &str| report[panel]["data"].as_array().cloned().unwrap_or_default();
    let asked = all("requests").into_iter().chain(all("not_found")).chain(all("static_requests"));
    let asked: Vec<_> =
        asked.map(|one| (one["data"].clone(), one["method"].clone(), one["protocol"].clone())).collect();
    for (path, protocol) in [("/limited", "HTTP/1.1"), ("/two", "HTTP/2"), ("/cut", "HTTP/1.0")] {
        assert!(asked.contains(&(path.into(), "GET".into(), protocol.into())), "{path} {protocol}: {asked:?}");
    }
    let hosts = all("hosts");
    assert!(hosts.iter().any(|host| host["data"] == "2001:db8::7" && host["hits"]["count"] == 25), "{hosts:?}");
    let text = report.to_string();
    assert!(text.contains("a.example") && !text.contains("s3cret"), "{text}");
}

#[test]
fn lnav_reads_every_line_of_json_by_the_format_that_is_packaged() {
    if !is_installed("lnav") {
        return;
    }
    let (server, count) = written("json");
    let formats = server.path("lnav/formats/tollgate");
    std::fs::create_dir_all(&formats).unwrap();
    std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/lnav.json"), formats.join("lnav.json")).unwrap();
    let lnav = || {
        let mut lnav = Command::new("lnav");
        lnav.env("HOME", server.path("")).arg("-I").arg(server.path("lnav"));
        lnav
    };
    let checked = run(lnav().arg("-C"));
    assert_eq!((checked.code, checked.err.as_str()), (Some(0), ""), "{checked:?}");
    let ask = |query: &str| {
        let query = [format!(";{query}"), ":write-csv-to -".to_owned()];
        let finished = run(lnav().args(["-n", "-c", &query[0], "-c", &query[1]]).arg(server.path("access.log")));
        assert_eq!(finished.code, Some(0), "{finished:?}");
        finished.out.lines().skip(1).map(str::to_owned).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(ask("SELECT count(*) FROM tollgate_access"), count.to_string());
    let limited = "SELECT client_id, status, path, log_level, limited_by, typeof(duration_ms) FROM tollgate_access WHERE status = 429";
    assert_eq!(ask(limited), "user1,429,/limited,warning,default,real");
    assert_eq!(ask("SELECT count(*) FROM tollgate_access WHERE client_ip = '2001:db8::7' AND attempts = 1"), "25");
    assert_eq!(ask("SELECT count(*) FROM tollgate_access WHERE log_level = 'error'"), "2");
    let shown = run(lnav().arg("-n").arg(server.path("access.log"))).out;
    assert_eq!(shown.lines().count(), count, "{shown}");
}
