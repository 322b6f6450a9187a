//! The proxies: which there are, how each is configured for a case, and how it is started.
//!
//! Equal for all: connections kept both ways, up to 1,024 idle ones to the backends, the same headers to the backend, a
//! rate limit for each caller, TLS 1.3 with one certificate, as many threads or workers as cores. Everything else is as
//! an expert would leave it; the configurations are in `conf/`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::case::{Limit, Speech};
use crate::connect::NAME;
use crate::process::{Cores, Launch, Process};
use crate::stop::{Fallible, Stop};
use crate::template::fill;
use crate::{address, parse};

/// The requests a second that nobody reaches.
const NO_BOUND: u64 = 1_000_000;

/// What makes one proxy another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// nginx, which the others are compared with.
    Nginx,
    /// HAProxy.
    Haproxy,
    /// tollgate, ours.
    Tollgate,
}

/// One proxy that takes part.
#[derive(Clone, Debug)]
pub(crate) struct Contender {
    /// Its name in tables.
    pub(crate) name: String,
    /// Which it is.
    pub(crate) kind: Kind,
    /// Its binary.
    pub(crate) program: PathBuf,
    /// What it says of its version.
    pub(crate) version: String,
}

/// Where tollgate has its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Database {
    /// It has none.
    None,
    /// In a new file.
    New,
    /// In a copy of this file.
    Copy(PathBuf),
}

/// What a case asks of every proxy.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// The cores of the proxy.
    pub(crate) cores: Cores,
    /// Whether each request is logged to a file.
    pub(crate) access_log: bool,
    /// Whether bodies of requests are to be sent on as they come. HAProxy and tollgate always do.
    pub(crate) streams: bool,
    /// How callers are limited.
    pub(crate) limit: Limit,
    /// What the backends speak.
    pub(crate) speech: Speech,
    /// Whether clients are believed in headers of the PROXY protocol.
    pub(crate) introduced: bool,
    /// Where the requests go.
    pub(crate) backends: Vec<SocketAddr>,
    /// tollgate's database.
    pub(crate) database: Database,
    /// The directory of `cert.pem`, `key.pem`, and `bundle.pem`, which is both.
    pub(crate) certificates: PathBuf,
    /// How many connections have to fit.
    pub(crate) connections: usize,
    /// How many files a process may open.
    pub(crate) files: u64,
}

/// A proxy that runs.
#[derive(Debug)]
pub(crate) struct Running {
    /// The contender's name.
    pub(crate) name: String,
    /// Its processes.
    pub(crate) process: Process,
    /// Where it speaks HTTP/1.1.
    pub(crate) plain: SocketAddr,
    /// Where it speaks HTTP/1.1 and HTTP/2 over TLS.
    pub(crate) tls: SocketAddr,
    /// Where it speaks HTTP/2 without TLS.
    pub(crate) h2c: SocketAddr,
    /// Where connections begin with a header of the PROXY protocol, in the case that is about it.
    pub(crate) introduced: SocketAddr,
    /// Its admin API; tollgate only.
    pub(crate) admin: SocketAddr,
}

impl Contender {
    /// The proxy at `program`, or why it cannot take part.
    pub(crate) fn find(name: &str, kind: Kind, program: &Path) -> Result<Self, String> {
        let flag = if kind == Kind::Tollgate { "--version" } else { "-v" };
        let said = Command::new(program).arg(flag).output();
        let said = said.map_err(|error| format!("{name} is left out: {}: {error}", program.display()))?;
        // nginx tells its version on standard error.
        let text = [said.stdout, said.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let version =
            parse::version(text.lines().next().unwrap_or_default()).unwrap_or("of unknown version").to_owned();
        if kind == Kind::Haproxy && parse::release(&version).is_some_and(|release| release < (2, 5)) {
            return Err(format!("haproxy is left out: 2.5 or newer is needed, and this is {version}"));
        }
        Ok(Contender { name: name.to_owned(), kind, program: program.to_owned(), version })
    }

    /// Starts it in an empty `directory` and waits until it serves.
    ///
    /// # Errors
    ///
    /// When it does not start, with what it said.
    pub(crate) fn start(&self, stop: &Stop, setting: &Setting, directory: &Path) -> Fallible<Running> {
        std::fs::create_dir_all(directory)?;
        let [plain, tls, h2c, introduced, admin] = address::free()?;
        let mut values = self.common(setting, directory);
        values.extend([("plain", plain.to_string()), ("tls", tls.to_string())]);
        values.push(("listener", self.listener(setting, h2c, introduced)));
        let launch = Launch::new(&self.program, &setting.cores, directory.join("stderr"));
        let launch = match self.kind {
            Kind::Nginx => {
                values.extend(nginx(setting, directory));
                let file = write(directory, "nginx.conf", include_str!("conf/nginx.conf"), &values)?;
                launch.arg("-p").arg(directory).arg("-c").arg(file)
            }
            Kind::Haproxy => {
                values.extend(haproxy(setting));
                let file = write(directory, "haproxy.cfg", include_str!("conf/haproxy.cfg"), &values)?;
                launch.arg("-db").arg("-f").arg(file).stdout(directory.join("access.log"))
            }
            Kind::Tollgate => {
                values.push(("admin", format!("\"{admin}\"")));
                values.extend(tollgate(setting, directory)?);
                let file = write(directory, "tollgate.yaml", include_str!("conf/tollgate.yaml"), &values)?;
                launch.arg("run").arg("-c").arg(file)
            }
        };
        let mut running =
            Running { name: self.name.clone(), process: launch.start()?, plain, tls, h2c, introduced, admin };
        // A million clients take some seconds to read.
        let what = format!("{} to serve", self.name);
        let served = stop.until(&what, Duration::from_secs(60), || match running.process.ended()? {
            Some(status) => Err(running.process.said(&format!("ended with {status}"))),
            None => Ok(address::answers(plain).then_some(())),
        });
        served.map_err(|error| running.process.said(&error.to_string()))?;
        Ok(running)
    }

    fn common(&self, setting: &Setting, directory: &Path) -> Vec<(&'static str, String)> {
        let certificates = &setting.certificates;
        let servers: Vec<_> =
            setting.backends.iter().enumerate().map(|(place, address)| self.server(place, address, setting)).collect();
        let between = if self.kind == Kind::Tollgate { "\n      " } else { "\n        " };
        vec![
            ("workers", setting.cores.count().to_string()),
            ("cores", setting.cores.to_string().replace(',', " ")),
            ("affinity", setting.cores.masks()),
            ("files", setting.files.to_string()),
            ("connections", setting.connections.to_string()),
            ("directory", directory.display().to_string()),
            ("certificate", certificates.join("cert.pem").display().to_string()),
            ("key", certificates.join("key.pem").display().to_string()),
            ("bundle", certificates.join("bundle.pem").display().to_string()),
            ("servers", servers.join(between)),
        ]
    }

    fn server(&self, place: usize, address: &SocketAddr, setting: &Setting) -> String {
        match self.kind {
            Kind::Nginx => format!("server {address};"),
            Kind::Haproxy => {
                let speech = match setting.speech {
                    Speech::Plain => String::new(),
                    Speech::Tls => {
                        let authority = setting.certificates.join("cert.pem");
                        format!(" ssl verify required ca-file {} sni str({NAME}) alpn http/1.1", authority.display())
                    }
                    Speech::Http2 | Speech::Grpc => " proto h2".to_owned(),
                };
                format!("server backend{place} {address}{speech}")
            }
            Kind::Tollgate => format!("- address: \"{address}\""),
        }
    }

    /// The listener that only some cases have: for HTTP/2 without TLS, or for connections that begin with a header of
    /// the PROXY protocol, which is believed.
    fn listener(&self, setting: &Setting, h2c: SocketAddr, introduced: SocketAddr) -> String {
        match (self.kind, setting.introduced, setting.speech) {
            (Kind::Nginx, true, _) => format!(
                "listen {introduced} backlog=8192 reuseport proxy_protocol;\n        \
                 set_real_ip_from 127.0.0.1;\n        real_ip_header proxy_protocol;"
            ),
            (Kind::Haproxy, true, _) => format!("bind {introduced} shards by-thread backlog 8192 accept-proxy"),
            (Kind::Tollgate, true, _) => format!("- {{address: \"{introduced}\", proxy_protocol: v2}}"),
            (Kind::Nginx, _, Speech::Grpc) => format!("listen {h2c} backlog=8192 reuseport http2;"),
            (Kind::Haproxy, _, Speech::Grpc) => format!("bind {h2c} shards by-thread backlog 8192 proto h2"),
            (Kind::Tollgate, _, Speech::Grpc) => format!("- {{address: \"{h2c}\", h2c: true}}"),
            _ => String::new(),
        }
    }
}

/// Fills the gaps of `template` and writes it to `directory`.
pub(crate) fn write(directory: &Path, name: &str, template: &str, values: &[(&str, String)]) -> Fallible<PathBuf> {
    let file = directory.join(name);
    std::fs::write(&file, fill(template, values).map_err(|error| format!("{name}: {error}"))?)?;
    Ok(file)
}

fn nginx(setting: &Setting, directory: &Path) -> Vec<(&'static str, String)> {
    let (key, zone) = match setting.limit {
        // A state takes 128 bytes here, so this holds more than a million.
        Limit::Key => ("$http_x_api_key", "256m"),
        Limit::Address | Limit::Refuse => ("$binary_remote_addr", "10m"),
    };
    let (rate, burst) = match setting.limit {
        Limit::Refuse => (1, "nodelay".to_owned()),
        Limit::Address | Limit::Key => (NO_BOUND, format!("burst={NO_BOUND} nodelay")),
    };
    let log = directory.join("access.log");
    let log = if setting.access_log { format!("{} line buffer=64k flush=1s", log.display()) } else { "off".to_owned() };
    vec![
        ("limit_key", key.to_owned()),
        ("limit_zone", zone.to_owned()),
        ("limit_rate", format!("{rate}r/s")),
        ("limit_burst", burst),
        ("access_log", log),
        ("buffering", if setting.streams { "off" } else { "on" }.to_owned()),
        (
            "pass",
            match setting.speech {
                Speech::Plain => "proxy_http_version 1.1; proxy_pass http://app;".to_owned(),
                Speech::Tls => format!(
                    "proxy_ssl_trusted_certificate {};\n            proxy_ssl_verify on;\n            \
                     proxy_ssl_server_name on;\n            proxy_ssl_name {NAME};\n            \
                     proxy_http_version 1.1; proxy_pass https://app;",
                    setting.certificates.join("cert.pem").display()
                ),
                Speech::Http2 => "proxy_http_version 2; proxy_pass http://app;".to_owned(),
                Speech::Grpc => "grpc_pass grpc://app;".to_owned(),
            },
        ),
    ]
}

fn haproxy(setting: &Setting) -> Vec<(&'static str, String)> {
    let (kind, size, key) = match setting.limit {
        Limit::Key => ("string len 16", "2m", "req.hdr(x-api-key)"),
        Limit::Address | Limit::Refuse => ("ip", "100k", "src"),
    };
    let rate = if setting.limit == Limit::Refuse { 1 } else { NO_BOUND };
    let (target, format) = if setting.access_log {
        // It writes no file, but standard output can be one. A line for each request, without a buffer.
        let line = "{\"ts\":\"%tr\",\"request_id\":\"%ID\",\"client_ip\":\"%ci\",\"method\":\"%HM\",\"path\":\"%HP\",\
                    \"status\":%ST,\"duration_ms\":%Ta,\"bytes_in\":%U,\"bytes_out\":%B,\"backend\":\"%s\"}";
        ("log stdout len 4096 format raw local0", format!("log global\n    log-format '{line}'"))
    } else {
        ("", String::new())
    };
    vec![
        ("limit_type", kind.to_owned()),
        ("limit_size", size.to_owned()),
        ("limit_key", key.to_owned()),
        ("limit_rate", rate.to_string()),
        ("log_target", target.to_owned()),
        ("log_format", format),
    ]
}

fn tollgate(setting: &Setting, directory: &Path) -> Fallible<Vec<(&'static str, String)>> {
    let file = directory.join("tollgate.db");
    if let Database::Copy(prepared) = &setting.database {
        std::fs::copy(prepared, &file)?;
    }
    let database = match setting.database {
        Database::None => "null".to_owned(),
        Database::New | Database::Copy(_) => format!("\"{}\"", file.display()),
    };
    let limit = match setting.limit {
        Limit::Refuse => "{capacity: 1, rate_per_sec: 1}",
        Limit::Address | Limit::Key => "{capacity: 1000000000, rate_per_sec: 1000000000}",
    };
    let log = directory.join("access.log");
    let log = if setting.access_log { format!("\"{}\"", log.display()) } else { "null".to_owned() };
    let transport = match setting.speech {
        Speech::Plain => String::new(),
        Speech::Tls => {
            let authority = setting.certificates.join("cert.pem");
            format!("tls: {{ca: \"{}\", server_name: {NAME}}}", authority.display())
        }
        Speech::Http2 | Speech::Grpc => "protocol: h2".to_owned(),
    };
    let trusted = if setting.introduced { "127.0.0.1/32" } else { "" };
    Ok(vec![
        ("database", database),
        ("limit", limit.to_owned()),
        ("access_log", log),
        ("transport", transport),
        ("trusted", trusted.to_owned()),
    ])
}
