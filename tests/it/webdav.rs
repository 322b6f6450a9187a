//! WebDAV through a TLS listener to Apache's mod_dav, which speaks plain HTTP: with the one rule that docs/tls.md
//! names.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use tempfile::TempDir;

use crate::harness::client::{Body, Client, Request};
use crate::harness::http2::{Http2, request};
use crate::harness::ports::free_address;
use crate::harness::process::Process;
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::tls::{NOW, Tunnel, config, write_pair};
use crate::harness::{PATIENCE, eventually};

/// Where Debian's package `apache2-bin`, which `make setup-tests` installs, has them.
const APACHE: &str = "/usr/sbin/apache2";
const MODULES: &str = "/usr/lib/apache2/modules";

/// A directory under Apache's mod_dav; dropping it ends Apache.
struct Dav {
    address: SocketAddr,
    dir: TempDir,
    _process: Process,
}

impl Dav {
    #[track_caller]
    fn start() -> Self {
        let (address, dir) = (free_address(), TempDir::new().unwrap());
        let path = dir.path().display();
        let modules: String = ["mpm_event", "authz_core", "dav", "dav_fs"]
            .map(|name| format!("LoadModule {name}_module {MODULES}/mod_{name}.so\n"))
            .concat();
        let text = format!(
            "{modules}ServerRoot {path}\nListen {address}\nServerName test.example\nPidFile {path}/pid\n\
             ErrorLog {path}/error.log\nDavLockDB {path}/state/lock\nDocumentRoot {path}/files\nUser nobody\nGroup nogroup\n\
             <Directory {path}/files>\nDav On\nRequire all granted\n</Directory>\n"
        );
        std::fs::write(dir.path().join("httpd.conf"), text).unwrap();
        // Where the test runs as root, Apache's children do not.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["files", "state"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            std::fs::set_permissions(dir.path().join(name), std::fs::Permissions::from_mode(0o777)).unwrap();
        }
        assert!(std::path::Path::new(APACHE).exists(), "{APACHE} is missing; `make setup-tests` installs it");
        let mut command = Command::new(APACHE);
        command.arg("-DFOREGROUND").arg("-f").arg(dir.path().join("httpd.conf"));
        let process = Process::start(&mut command);
        assert!(
            eventually(PATIENCE, || Client::try_connect(address).is_ok()),
            "Apache does not listen: {}{:?}",
            process.err.text(),
            std::fs::read_to_string(dir.path().join("error.log"))
        );
        Dav { address, dir, _process: process }
    }

    fn has(&self, name: &str) -> bool {
        self.dir.path().join("files").join(name).exists()
    }
}

#[track_caller]
fn proxy(dav: &Dav, tls: &TempDir, direct: bool, route: &str) -> Tollgate {
    let setup = Setup::default().pool("dav", &[dav.address], NO_CHECK).tls(tls.path());
    setup.line(&format!("direct: {direct}")).line(&format!("routes: [{{upstream: dav, {route}}}]")).start()
}

/// The rule of the documentation.
const RULE: &str = "path: /, request_headers: {edit: [{name: Destination, from: '^https:', to: 'http:'}]}";

#[test]
fn a_move_works_with_one_rule_and_not_without() {
    let (dav, tls) = (Dav::start(), TempDir::new().unwrap());
    write_pair(tls.path(), NOW);
    for (direct, way) in [(true, "direct"), (false, "loop")] {
        let server = proxy(&dav, &tls, direct, RULE);
        let tunnel = Tunnel::to(server.address, &config(rustls::ALL_VERSIONS, &["http/1.1"]));
        let mut client = Client::connect(tunnel.address);
        let (from, to) = (format!("{way}.txt"), format!("{way} moved.txt"));
        let put = Request::new("PUT", &from).body(Body::Length(b"hello"));
        let target = format!("/{from}");
        assert_eq!(client.call(&Request { target: &target, ..put }).unwrap().status, 201);
        let destination = format!("https://test.example/{}", to.replace(' ', "%20"));
        let headers = [("Destination", destination.as_str())];
        let moved = client.call(&Request::new("MOVE", &target).headers(&headers)).unwrap();
        assert_eq!(moved.status, 201, "{moved:?}");
        assert!(dav.has(&to) && !dav.has(&from));
        // The way back over HTTP/2.
        let mut client = Http2::connect(server.address);
        let mut back = request("MOVE", &format!("/{}", to.replace(' ', "%20")));
        back.headers_mut().insert("destination", format!("https://test.example{target}").parse().unwrap());
        assert_eq!(client.call(back, &[]).unwrap().status, 201);
        assert!(dav.has(&from) && !dav.has(&to));
        // Without the rule Apache refuses: the destination is on another scheme.
        let plain = proxy(&dav, &tls, direct, "path: /");
        let tunnel = Tunnel::to(plain.address, &config(rustls::ALL_VERSIONS, &["http/1.1"]));
        let refused = Client::connect(tunnel.address).call(&Request::new("MOVE", &target).headers(&headers)).unwrap();
        assert_eq!(refused.status, 502, "{refused:?}");
        assert!(dav.has(&from) && !dav.has(&to));
    }
}

#[test]
fn a_move_below_a_stripped_prefix_works_with_the_rule_that_the_documentation_names() {
    let (dav, tls) = (Dav::start(), TempDir::new().unwrap());
    write_pair(tls.path(), NOW);
    let rule = "{name: Destination, from: '^https?://([^/]+)/dav', to: 'http://$1'}";
    let route = format!("path: /dav, strip_prefix: /dav, request_headers: {{edit: [{rule}]}}");
    let server = proxy(&dav, &tls, true, &route);
    let mut client = Http2::connect(server.address);
    assert_eq!(client.call(request("PUT", "/dav/a"), b"hello").unwrap().status, 201);
    let mut copy = request("COPY", "/dav/a");
    copy.headers_mut().insert("destination", "https://test.example/dav/b".parse().unwrap());
    assert_eq!(client.call(copy, &[]).unwrap().status, 201);
    assert!(dav.has("a") && dav.has("b"));
}
