//! The cases: what is asked of each proxy, and our aim for it.

use super::figures::Figures;

/// How many idle connections are opened.
pub(crate) const IDLE: usize = 10_000;
/// Requests a second of the case that stays below saturation.
pub(crate) const STEADY: usize = 8_000;
/// The length of a message in a call of gRPC, in bytes.
pub(crate) const CALL: usize = 100;
/// How many messages one stream of gRPC has.
pub(crate) const MESSAGES: u64 = 100_000;

/// How callers are limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// By address, at a rate that nobody reaches.
    Address,
    /// By API key, at a rate that nobody reaches.
    Key,
    /// By address, at one request a second, so that nearly all are refused.
    Refuse,
}

/// What a backend speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speech {
    /// HTTP/1.1.
    Plain,
    /// The same over TLS.
    Tls,
    /// HTTP/2 without TLS.
    Http2,
    /// gRPC over that.
    Grpc,
}

/// What is done to a proxy in one round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// `GET` of this path over kept connections.
    Get(&'static str),
    /// The same at [`STEADY`] requests a second.
    Steady,
    /// `POST` of so many bytes over kept connections, which the proxy is not to gather before it sends them on.
    Post {
        /// How long the body is.
        bytes: usize,
        /// Whether it comes in chunks of 16 KiB, and without a length.
        chunked: bool,
    },
    /// The same over HTTP/2 and TLS, one stream at a time on each connection.
    Http2Post(usize),
    /// `GET` to a backend that writes the header and the body of its answer one after the other.
    Apart,
    /// Messages of 64 bytes over WebSockets, each sent back by the backend before the next one.
    Messages,
    /// A new connection for each request.
    Reconnect,
    /// `GET` over kept TLS connections.
    Tls,
    /// A new TLS connection for each request, with a full handshake.
    Handshake,
    /// HTTP/2 over TLS, 10 streams at a time on each connection.
    Http2,
    /// `GET` to a backend over TLS.
    TlsBackend,
    /// [`Http2`](Work::Http2) to a backend that speaks HTTP/2, too.
    Http2Backend,
    /// Calls of gRPC, each with [`CALL`] bytes and as many in the answer, as [`Http2`](Work::Http2).
    Calls,
    /// [`MESSAGES`] messages of gRPC on one stream over HTTP/2 without TLS, beside the same without a proxy.
    Stream {
        /// Whether they come from the client.
        up: bool,
    },
    /// `GET` over kept connections that begin with a header of the PROXY protocol, beside the same without.
    Introduced,
    /// `GET` with the keys of many known clients.
    Clients,
    /// `GET` to three backends, one of which is killed in the middle.
    Dying,
    /// [`IDLE`] connections are opened, each with one request or none, and stay.
    Idle {
        /// Whether each makes a request first.
        spoken: bool,
        /// Whether they are TLS.
        tls: bool,
    },
}

impl Work {
    /// The program that makes the load, where the benchmark does not do so itself.
    pub(crate) fn tool(self) -> Option<&'static str> {
        match self {
            Work::Steady | Work::Http2 | Work::Http2Post(_) | Work::Http2Backend | Work::Calls => Some("h2load"),
            Work::Reconnect | Work::Handshake | Work::Messages | Work::Stream { .. } | Work::Introduced => None,
            _ => Some("wrk"),
        }
    }

    /// Whether the backend is the benchmark's own, since nginx cannot be it.
    pub(crate) fn has_own_backend(self) -> bool {
        matches!(self, Work::Apart | Work::Messages | Work::Calls | Work::Stream { .. })
    }

    /// What the backend speaks.
    pub(crate) fn speech(self) -> Speech {
        match self {
            Work::TlsBackend => Speech::Tls,
            Work::Http2Backend => Speech::Http2,
            Work::Calls | Work::Stream { .. } => Speech::Grpc,
            _ => Speech::Plain,
        }
    }

    /// What it is measured beside by each proxy itself, if anything.
    pub(crate) fn beside(self) -> Option<&'static str> {
        match self {
            Work::Stream { .. } => Some("the time without a proxy"),
            Work::Introduced => Some("the CPU without the header"),
            _ => None,
        }
    }

    /// Whether bodies of requests are sent on as they come.
    pub(crate) fn streams(self) -> bool {
        matches!(self, Work::Post { bytes: 32_768.., .. } | Work::Http2Post(_))
    }
}

/// One case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    /// Its name for `--only` and in `figures.json`.
    pub(crate) name: &'static str,
    /// Its name in tables.
    pub(crate) title: &'static str,
    /// The ratio to nginx that we aim at, of CPU time a request.
    pub(crate) aim: Option<f64>,
    /// The same for the ratio to HAProxy.
    pub(crate) aim_haproxy: Option<f64>,
    /// The same for the ratio to what it is measured [beside](Work::beside).
    pub(crate) aim_beside: Option<f64>,
    /// How many cores the proxy has.
    pub(crate) cores: usize,
    /// How many connections the load opens.
    pub(crate) connections: usize,
    /// What is done.
    pub(crate) work: Work,
    /// How callers are limited.
    pub(crate) limit: Limit,
    /// Whether requests are logged.
    pub(crate) access_log: bool,
}

impl Case {
    /// Why it is left out on a machine with so many cores, if it is: the load wants one beside those of the proxy.
    pub(crate) fn too_few(&self, cores: usize) -> Option<String> {
        let needed = self.cores + 1;
        (cores < needed)
            .then(|| format!("it needs {needed} cores, {} of them for the proxy, and here are {cores}", self.cores))
    }

    /// Whether over 1 % of the requests went another way than they should: refused where none should be, or let through
    /// where all should be refused. Those that fail as a backend dies are the result, and spoil nothing.
    pub(crate) fn is_spoilt(&self, figures: &Figures) -> bool {
        let wrong = match (self.limit, self.work) {
            (Limit::Refuse, _) => figures.failed + (figures.requests - figures.refused.min(figures.requests)),
            (_, Work::Dying) => 0,
            _ => figures.failed + figures.refused,
        };
        let asked = figures.requests + figures.failed;
        wrong * 100 > asked || (asked == 0 && !matches!(self.work, Work::Idle { .. }))
    }
}

const PLAIN: Case = Case {
    name: "get-64",
    title: "tiny GET, 64 connections",
    aim: Some(1.2),
    aim_haproxy: None,
    aim_beside: None,
    cores: 1,
    connections: 64,
    work: Work::Get("/"),
    limit: Limit::Address,
    access_log: false,
};

/// A body of 1 MiB, which nginx takes by its default, too.
const LARGE: usize = 1 << 20;

const UPLOAD: Case = Case { aim: Some(1.0), connections: 16, ..PLAIN };

const STREAM: Case = Case { aim: None, aim_beside: Some(1.5), connections: 1, ..PLAIN };

const TLS: Case = Case { name: "tls", title: "TLS, kept connections", aim: Some(1.1), work: Work::Tls, ..PLAIN };

/// The cases that show what a second core is worth: with one, with two, and over which connections. Over plain ones
/// load and backends need as much of the other cores as the proxy has, over TLS much less.
pub(crate) const SCALING: [(&str, &str, &str); 2] = [("get-64", "two-cores", "plain"), ("tls", "tls-two-cores", "TLS")];

/// All cases, in the order in which they run.
pub(crate) const CASES: &[Case] = &[
    PLAIN,
    Case { name: "two-cores", title: "tiny GET, 128 connections, two cores", cores: 2, connections: 128, ..PLAIN },
    Case { name: "get-512", title: "tiny GET, 512 connections", connections: 512, ..PLAIN },
    Case {
        name: "steady",
        title: "tiny GET, 8,000 a second over 64 connections",
        aim: None,
        work: Work::Steady,
        ..PLAIN
    },
    Case { name: "access-log", title: "tiny GET, 64 connections, access log", aim: None, access_log: true, ..PLAIN },
    Case { name: "large", title: "answer of 100 KB", aim: Some(1.0), work: Work::Get("/large"), ..PLAIN },
    Case { name: "post", title: "POST of 16 KB", work: Work::Post { bytes: 16 << 10, chunked: false }, ..PLAIN },
    Case {
        name: "upload-32k",
        title: "upload of 32 KiB",
        work: Work::Post { bytes: 32 << 10, chunked: false },
        ..UPLOAD
    },
    Case {
        name: "upload",
        title: "upload of 1 MiB",
        aim: Some(0.9),
        work: Work::Post { bytes: LARGE, chunked: false },
        ..UPLOAD
    },
    Case {
        name: "upload-chunked",
        title: "upload of 1 MiB in chunks",
        work: Work::Post { bytes: LARGE, chunked: true },
        ..UPLOAD
    },
    Case { name: "upload-http2", title: "upload of 1 MiB over HTTP/2 and TLS", work: Work::Http2Post(LARGE), ..UPLOAD },
    Case { name: "apart", title: "an answer in two writes", work: Work::Apart, ..PLAIN },
    Case { name: "messages", title: "WebSocket messages of 64 bytes", work: Work::Messages, ..PLAIN },
    Case { name: "reconnect", title: "a new connection for each request", aim: None, work: Work::Reconnect, ..PLAIN },
    TLS,
    Case { name: "tls-two-cores", title: "TLS, 128 kept connections, two cores", cores: 2, connections: 128, ..TLS },
    Case {
        name: "handshake",
        title: "TLS, a full handshake for each request",
        aim: Some(0.85),
        work: Work::Handshake,
        ..PLAIN
    },
    Case {
        name: "http2",
        title: "HTTP/2 over TLS, 64 connections of 10 streams",
        aim: Some(0.9),
        work: Work::Http2,
        ..PLAIN
    },
    Case {
        name: "tls-backend",
        title: "tiny GET to a backend over TLS",
        aim: Some(0.9),
        work: Work::TlsBackend,
        ..PLAIN
    },
    Case {
        name: "http2-backend",
        title: "HTTP/2 on both sides, 64 connections of 10 streams",
        aim: None,
        aim_haproxy: Some(0.9),
        work: Work::Http2Backend,
        ..PLAIN
    },
    Case {
        name: "grpc",
        title: "gRPC calls of 100 bytes, 64 connections of 10 streams",
        aim: Some(0.7),
        aim_haproxy: Some(0.9),
        work: Work::Calls,
        ..PLAIN
    },
    Case {
        name: "grpc-down",
        title: "100,000 gRPC messages on one stream, from the backend",
        work: Work::Stream { up: false },
        ..STREAM
    },
    Case {
        name: "grpc-up",
        title: "100,000 gRPC messages on one stream, from the client",
        work: Work::Stream { up: true },
        ..STREAM
    },
    Case {
        name: "proxy-protocol",
        title: "tiny GET, 64 connections, with the PROXY protocol",
        aim: None,
        aim_beside: Some(1.02),
        work: Work::Introduced,
        ..PLAIN
    },
    Case {
        name: "clients",
        title: "1,000,000 known clients, Zipf 1.1",
        aim: None,
        work: Work::Clients,
        limit: Limit::Key,
        ..PLAIN
    },
    Case { name: "refused", title: "all refused with 429", aim: Some(1.0), limit: Limit::Refuse, ..PLAIN },
    Case { name: "dying", title: "three backends, one killed midway", aim: None, work: Work::Dying, ..PLAIN },
    Case {
        name: "idle-spoken",
        title: "10,000 idle connections, after a request each",
        aim: None,
        connections: IDLE,
        work: Work::Idle { spoken: true, tls: false },
        ..PLAIN
    },
    Case {
        name: "idle-silent",
        title: "10,000 idle connections, without a request",
        aim: None,
        connections: IDLE,
        work: Work::Idle { spoken: false, tls: false },
        ..PLAIN
    },
    Case {
        name: "idle-tls",
        title: "10,000 idle TLS connections, without a request",
        aim: None,
        connections: IDLE,
        work: Work::Idle { spoken: false, tls: true },
        ..PLAIN
    },
];
