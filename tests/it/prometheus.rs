//! The metrics as a real Prometheus scrapes them, and the traces that they name.

use std::net::SocketAddr;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::backend::Backend;
use crate::harness::client::{Client, Request};
use crate::harness::ports::free_address;
use crate::harness::process::{Process, tell_skipped};
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::{PATIENCE, eventually};

/// A running Prometheus; dropping it kills it.
struct Prometheus {
    process: Process,
    address: SocketAddr,
    _dir: TempDir,
}

impl Prometheus {
    /// Scrapes `target`; none where there is no Prometheus.
    fn scraping(target: SocketAddr) -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).find(|place| place.join("prometheus").is_file())?;
        let (dir, address) = (TempDir::new().unwrap(), free_address());
        let file = dir.path().join("prometheus.yml");
        let config = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": [{"job_name": "tollgate", "static_configs": [{"targets": [target]}]}],
        });
        std::fs::write(&file, config.to_string()).unwrap();
        let mut command = Command::new("prometheus");
        command.current_dir(dir.path()).args(["--log.level=warn", "--storage.tsdb.path=data"]);
        command.arg("--enable-feature=exemplar-storage");
        command.arg(format!("--web.listen-address={address}")).arg(format!("--config.file={}", file.display()));
        Some(Prometheus { process: Process::start(&mut command), address, _dir: dir })
    }

    /// What its API says at `target`; null while it does not answer.
    fn ask(&self, target: &str) -> Value {
        let answer = Client::try_connect(self.address).and_then(|mut client| client.get(target));
        answer.ok().filter(|answer| answer.status == 200).map_or(Value::Null, |answer| answer.json()["data"].clone())
    }

    /// The values of a query, without the times they were seen at.
    fn values(&self, query: &str) -> Vec<String> {
        let result = self.ask(&format!("/api/v1/query?query={query}"))["result"].clone();
        let values = result.as_array().into_iter().flatten().map(|series| series["value"][1].as_str().unwrap().into());
        values.collect()
    }
}

#[test]
fn a_real_prometheus_scrapes_the_metrics() {
    let backend = Backend::scripted("a");
    let setup = Setup::app(std::slice::from_ref(&backend), NO_CHECK).line("tracing: {sample: 0}");
    let server = setup.line("identity: {trusted_proxies: [127.0.0.1]}").start();
    let Some(mut prometheus) = Prometheus::scraping(server.admin) else {
        return tell_skipped("prometheus");
    };
    let mut client = server.client();
    for flags in ["00", "01", "00"] {
        let trace = format!("00-{flags}f92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}");
        let headers = [("traceparent", trace.as_str())];
        assert_eq!(client.call(&Request::new("GET", "/").headers(&headers)).unwrap().status, 200);
    }
    let target = |prometheus: &Prometheus| prometheus.ask("/api/v1/targets")["activeTargets"][0].clone();
    let seen = eventually(PATIENCE, || {
        !prometheus.process.is_running()
            || target(&prometheus)["health"] == "up"
                && prometheus.values("tollgate_requests_total{status=\"200\",upstream=\"app\"}") == ["3"]
    });
    assert!(seen && prometheus.process.is_running(), "{} {}", target(&prometheus), prometheus.process.err.text());
    let buckets = "tollgate_request_duration_seconds_bucket{upstream=\"app\",le=\"%2BInf\"}";
    assert_eq!(prometheus.values(buckets), ["3"]);
    let exemplars = "/api/v1/query_exemplars?start=0&end=9999999999&query=tollgate_request_duration_seconds_bucket";
    let named = || prometheus.ask(exemplars);
    assert!(eventually(PATIENCE, || !named()[0].is_null()), "{}", prometheus.process.err.text());
    // Only that which a trusted proxy has sampled, behind one bucket, however often it was scraped.
    let named = named();
    assert_eq!((named.as_array().unwrap().len(), &named[0]["seriesLabels"]["upstream"]), (1, &json!("app")), "{named}");
    let [one] = &named[0]["exemplars"].as_array().unwrap()[..] else { panic!("{named}") };
    assert_eq!(one["labels"], json!({"trace_id": "01f92f3577b34da6a3ce929d0e0e4736"}), "{named}");
    let (took, end) = (one["value"].as_str().unwrap().parse::<f64>().unwrap(), named[0]["seriesLabels"]["le"].as_str());
    assert!(took <= end.unwrap().replace("+Inf", "inf").parse().unwrap(), "{named}");
    // It prefers OpenMetrics, where a counter is called so; and has no other way to know of a type.
    let metadata = prometheus.ask("/api/v1/metadata");
    assert_eq!(metadata["tollgate_requests"][0]["type"], "counter", "{metadata}");
    assert_eq!(metadata["tollgate_request_duration_seconds"][0]["type"], "histogram", "{metadata}");
}
