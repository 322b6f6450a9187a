//! Certificates of clients: who gets in by them, who is known by them, and how they are revoked.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::backend::Backend;
use crate::harness::client::Response;
use crate::harness::process::{Finished, run};
use crate::harness::server::{LISTEN, Tollgate, command};
use crate::harness::setup::NO_CHECK;
use crate::harness::tls::{NAME, NOW, write_pair};

/// An authority that signs certificates of clients.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// Writes a certificate with these names and its key as `STEM.pem` and `STEM.key`; its fingerprint as openssl says
    /// it.
    fn sign(&self, dir: &Path, stem: &str, serial: u64, names: &[&str]) -> String {
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.serial_number = Some(SerialNumber::from(serial));
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let file = dir.join(format!("{stem}.pem"));
        fs::write(&file, cert.pem()).unwrap();
        fs::write(dir.join(format!("{stem}.key")), key.serialize_pem()).unwrap();
        let said = run(Command::new("openssl").args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]).arg(&file));
        said.out.trim().split_once('=').unwrap().1.to_owned()
    }

    /// A list that revokes the certificate with this number.
    fn revoked(&self, serial: u64) -> String {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2021, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2021, 1, 1),
            next_update: date_time_ymd(2090, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

fn yaml(backend: SocketAddr, dir: &Path, keys: &str, more: &str) -> String {
    let dir = dir.display();
    format!(
        "listeners: [{{address: {LISTEN}, tls: {{cert: {dir}/cert.pem, key: {dir}/key.pem, client_ca: {dir}/ca.pem{keys}}}}}]\n\
         upstreams: [{{name: app, backends: [{{address: \"{backend}\"}}], {NO_CHECK}}}]\n{more}\n"
    )
}

/// Asks by curl with the certificate of this stem, or with none.
fn curl(server: SocketAddr, dir: &Path, stem: Option<&str>, more: &[&str]) -> Finished {
    let port = server.port();
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-w", "%{http_code} %{http_version}", "-o", "/dev/null", "--cacert"]).arg(dir.join("cert.pem"));
    curl.args(["--resolve", &format!("{NAME}:{port}:127.0.0.1")]).args(more);
    if let Some(stem) = stem {
        curl.arg("--cert").arg(dir.join(format!("{stem}.pem"))).arg("--key").arg(dir.join(format!("{stem}.key")));
    }
    run(curl.arg(format!("https://{NAME}:{port}/")))
}

fn create(server: &Tollgate, body: &str) -> Response {
    let answer = server.ask("POST", "/clients", body);
    assert_eq!(answer.status, 201, "{answer:?}");
    answer
}

#[test]
fn clients_have_the_limits_that_their_certificates_stand_for() {
    let (backend, dir) = (Backend::scripted("a"), TempDir::new().unwrap());
    write_pair(dir.path(), NOW);
    let authority = Authority::new("clients");
    fs::write(dir.path().join("ca.pem"), &authority.pem).unwrap();
    let fingerprint = authority.sign(dir.path(), "one", 1, &["one.example"]);
    authority.sign(dir.path(), "two", 2, &["Two.example"]);
    authority.sign(dir.path(), "three", 3, &["three.example"]);
    let more = "identity: {client_certificates: true}\nrate_limit: {default: {capacity: 3, rate_per_sec: 0.0001}}";
    let server = Tollgate::from_yaml(&yaml(backend.address, dir.path(), "", more));
    create(&server, &format!(r#"{{"client_id":"cert:{fingerprint}","capacity":1,"rate_per_sec":0.0001}}"#));
    create(&server, r#"{"client_id":"two","api_key":"cert-san:two.example","capacity":2,"rate_per_sec":0.0001}"#);
    let statuses = |stem: Option<&str>, count: usize, more: &[&str]| {
        let called = (0..count).map(|_| curl(server.address, dir.path(), stem, more).out);
        called.map(|out| out.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    for option in ["--http1.1", "--http2"] {
        assert!(curl(server.address, dir.path(), None, &[option]).out.starts_with("200 "));
    }
    assert_eq!(statuses(Some("one"), 2, &["--http1.1"]), ["200", "429"]);
    assert_eq!(statuses(Some("two"), 3, &["--http2"]), ["200", "200", "429"]);
    // Of a stranger's certificate nothing follows, and none is had by saying so.
    assert_eq!(statuses(Some("three"), 1, &[]), ["200"]);
    assert_eq!(statuses(None, 1, &["-H", "X-Api-Key: cert-san:two.example"]), ["429"], "it goes by its address");
    let lines = server.access_lines(9);
    let seen = |index: usize| (lines[index]["client_id"].clone(), lines[index]["identity"].clone());
    assert_eq!(seen(2), (format!("cert:{fingerprint}").into(), "certificate".into()));
    assert_eq!((seen(4), seen(7)), (("two".into(), "certificate".into()), (Value::Null, "anonymous".into())));
    for (shown, client, how) in [
        (format!("\"cert:{fingerprint}\""), format!("cert:{fingerprint}").into(), "certificate"),
        (r#"["cert-san:other.example","cert-san:TWO.example"]"#.into(), "two".into(), "certificate"),
        (r#""cert-san:three.example""#.into(), Value::Null, "anonymous"),
    ] {
        let told =
            server.ask("POST", "/explain", &format!(r#"{{"address":"127.0.0.1","certificate":{shown}}}"#)).json();
        assert_eq!((&told["client_id"], &told["matched_by"]), (&client, &how.into()), "{told}");
        assert_eq!(told["answer"]["status"], 429, "{told}");
    }
}

#[test]
fn without_the_key_a_certificate_lets_in_and_says_nothing() {
    let (backend, dir) = (Backend::scripted("a"), TempDir::new().unwrap());
    write_pair(dir.path(), NOW);
    let authority = Authority::new("clients");
    fs::write(dir.path().join("ca.pem"), &authority.pem).unwrap();
    authority.sign(dir.path(), "one", 1, &["one.example"]);
    let server = Tollgate::from_yaml(&yaml(backend.address, dir.path(), "", ""));
    create(&server, r#"{"client_id":"cert-san:one.example","capacity":1,"rate_per_sec":0.0001}"#);
    for _ in 0..2 {
        assert!(curl(server.address, dir.path(), Some("one"), &[]).out.starts_with("200 "));
    }
    assert_eq!(server.access_lines(2)[1]["identity"], "anonymous");
}

#[test]
fn who_must_show_one_is_refused_without_and_a_reload_revokes() {
    let (backend, dir) = (Backend::scripted("a"), TempDir::new().unwrap());
    write_pair(dir.path(), NOW);
    let (authority, other) = (Authority::new("clients"), Authority::new("others"));
    fs::write(dir.path().join("ca.pem"), &authority.pem).unwrap();
    authority.sign(dir.path(), "one", 1, &["one.example"]);
    authority.sign(dir.path(), "two", 2, &["two.example"]);
    other.sign(dir.path(), "other", 1, &["one.example"]);
    let more = "rate_limit: {enabled: false}";
    let server = Tollgate::from_yaml(&yaml(backend.address, dir.path(), ", client_certs: required", more));
    let gets_in = |stem: Option<&str>| {
        let [one, two] = ["--http1.1", "--http2"].map(|option| curl(server.address, dir.path(), stem, &[option]));
        assert_eq!(one.code == Some(0), two.code == Some(0), "{one:?} {two:?}");
        one.code == Some(0) && one.out.starts_with("200 ")
    };
    let reload = |ca: &str| {
        fs::write(dir.path().join("ca.pem"), ca).unwrap();
        let answer = server.ask("POST", "/config/reload", "");
        assert!(answer.text().contains("listeners changed"), "{answer:?}");
    };
    assert_eq!([Some("one"), Some("two"), Some("other"), None].map(gets_in), [true, true, false, false]);
    // One certificate by a list, one authority by its absence.
    reload(&format!("{}{}", authority.pem, authority.revoked(2)));
    assert_eq!([Some("one"), Some("two"), Some("other"), None].map(gets_in), [true, false, false, false]);
    reload(&other.pem);
    assert_eq!([Some("one"), Some("two"), Some("other"), None].map(gets_in), [false, false, true, false]);
    fs::write(dir.path().join("ca.pem"), "").unwrap();
    let refused = server.ask("POST", "/config/reload", "");
    assert!(refused.status == 422 && refused.text().contains("listeners[0].tls.client_ca"), "{refused:?}");
    assert!(gets_in(Some("other")));
}

#[test]
fn no_session_is_resumed_where_clients_are_asked() {
    let (backend, dir) = (Backend::scripted("a"), TempDir::new().unwrap());
    write_pair(dir.path(), NOW);
    let authority = Authority::new("clients");
    fs::write(dir.path().join("ca.pem"), &authority.pem).unwrap();
    authority.sign(dir.path(), "one", 1, &["one.example"]);
    let server = Tollgate::from_yaml(&yaml(backend.address, dir.path(), "", "rate_limit: {enabled: false}"));
    for version in ["-tls1_2", "-tls1_3"] {
        let session = dir.path().join("session");
        let asks = |option: &str| {
            let mut openssl = Command::new("openssl");
            openssl.args([
                "s_client",
                "-connect",
                &server.address.to_string(),
                "-servername",
                NAME,
                version,
                "-ign_eof",
            ]);
            openssl.arg("-cert").arg(dir.path().join("one.pem")).arg("-key").arg(dir.path().join("one.key"));
            openssl.arg(option).arg(&session);
            let request = "GET / HTTP/1.1\r\nHost: test.example\r\nConnection: close\r\n\r\n";
            let finished = crate::harness::process::run_with_input(&mut openssl, request);
            assert!(finished.out.contains("HTTP/1.1 200 "), "{finished:?}");
            assert!(finished.out.contains("\nNew, TLSv1"), "{finished:?}");
        };
        let _ = fs::remove_file(&session);
        asks("-sess_out");
        if session.exists() {
            asks("-sess_in");
        }
    }
}

#[test]
fn check_names_what_is_wrong() {
    let dir = TempDir::new().unwrap();
    write_pair(dir.path(), NOW);
    let file = dir.path().join("tollgate.yaml");
    let check = |keys: &str, more: &str| {
        let yaml = yaml("127.0.0.1:9".parse().unwrap(), dir.path(), keys, more).replace(LISTEN, "127.0.0.1:1");
        fs::write(&file, yaml).unwrap();
        run(command().args(["check", "-c"]).arg(&file))
    };
    let missing = check("", "");
    assert!(missing.code == Some(2) && missing.out.contains("listeners[0].tls.client_ca: "), "{missing:?}");
    fs::write(dir.path().join("ca.pem"), Authority::new("clients").pem).unwrap();
    assert_eq!(check("", "").code, Some(0));
    let wrong = check(", client_certs: maybe", "");
    assert!(
        wrong.out.contains("listeners[0].tls.client_certs: must be optional or required, not \"maybe\""),
        "{wrong:?}"
    );
    fs::write(&file, "listeners: [{address: 127.0.0.1:1}]\nidentity: {client_certificates: true}\nupstreams: [{name: app, backends: [{address: 127.0.0.1:9}]}]\n").unwrap();
    let useless = run(command().args(["check", "-c"]).arg(&file));
    assert!(
        useless.code == Some(0) && useless.err.contains("identity.client_certificates: is of no use"),
        "{useless:?}"
    );
}
