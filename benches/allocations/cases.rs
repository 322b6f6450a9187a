//! What is measured.

/// Requests before those that count.
pub(crate) const WARM_UP: u32 = 300;

/// The answer that a client waits for is as long as the backend's body for this path.
pub(crate) const SMALL: &str = "/small";
/// 100 KB.
pub(crate) const LARGE: &str = "/large";

/// How the proxy is set up, beside what all cases share.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Settings {
    /// Limits on, as by default with their headers; no access log.
    Limits,
    /// No limits, no access log.
    Bare,
    /// Limits on, and an access log in JSON to a file.
    Log,
    /// Limits that let nothing in.
    Refusing,
}

/// What clients speak.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Protocol {
    /// HTTP/1.1 without TLS.
    Plain,
    /// HTTP/1.1 over TLS.
    Tls,
    /// HTTP/2 over TLS.
    Http2,
}

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) settings: Settings,
    pub(crate) protocol: Protocol,
    pub(crate) path: &'static str,
    /// How many header lines a request has beside `Host`.
    pub(crate) headers: usize,
    /// Bytes of the request's body; with some it is a POST.
    pub(crate) body: usize,
    /// The status of every answer.
    pub(crate) status: u16,
    /// How many are counted.
    pub(crate) requests: u32,
}

const GET: Case = Case {
    name: "",
    settings: Settings::Limits,
    protocol: Protocol::Plain,
    path: SMALL,
    headers: 1,
    body: 0,
    status: 200,
    requests: 4_000,
};

/// All of them.
pub(crate) const CASES: [Case; 10] = [
    Case { name: "GET, no limits", settings: Settings::Bare, ..GET },
    Case { name: "GET", ..GET },
    Case { name: "GET, JSON access log", settings: Settings::Log, ..GET },
    Case { name: "GET with 20 headers", headers: 20, ..GET },
    Case { name: "refused (429)", settings: Settings::Refusing, status: 429, ..GET },
    Case { name: "POST of 16 KB", body: 16 << 10, requests: 2_000, ..GET },
    Case { name: "answer of 100 KB", path: LARGE, requests: 1_000, ..GET },
    Case { name: "GET over TLS", protocol: Protocol::Tls, ..GET },
    Case { name: "GET over HTTP/2", protocol: Protocol::Http2, ..GET },
    Case {
        name: "refused (429) over HTTP/2",
        settings: Settings::Refusing,
        protocol: Protocol::Http2,
        status: 429,
        ..GET
    },
];
