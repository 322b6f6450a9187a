//! What there can be more of, as configurations and requests.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// What there is more of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dimension {
    /// Backends of one pool.
    Backends,
    /// Known clients, in the database; requests come from all of them alike.
    Clients,
    /// Routes of a host and a path each; requests go to all of them alike.
    Routes,
    /// Connections that ask at the same time.
    Connections,
}

impl Dimension {
    /// All of them.
    pub(crate) const ALL: [Dimension; 4] =
        [Dimension::Backends, Dimension::Clients, Dimension::Routes, Dimension::Connections];

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Dimension::Backends => "backends",
            Dimension::Clients => "clients",
            Dimension::Routes => "routes",
            Dimension::Connections => "connections",
        }
    }

    /// How many there are, in the order of the columns.
    pub(crate) fn counts(self) -> &'static [usize] {
        match self {
            Dimension::Backends => &[1, 10, 100, 1_000],
            Dimension::Clients => &[1, 1_000, 1_000_000],
            Dimension::Routes => &[1, 1_000, 100_000],
            Dimension::Connections => &[10, 1_000, 10_000],
        }
    }

    /// The rows of its table: what each is called, and by which rule backends are chosen.
    pub(crate) fn rows(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Dimension::Backends => &[
                ("`round_robin`", "round_robin"),
                ("`random`", "random"),
                ("`least_connections`", "least_connections"),
            ],
            Dimension::Clients => &[("a client at random", "round_robin")],
            Dimension::Routes => &[("a route at random, and as often the last one", "round_robin")],
            Dimension::Connections => &[("all ask all the time", "round_robin")],
        }
    }
}

/// One column: so many of one thing, of everything else as few as can be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) dimension: Dimension,
    pub(crate) count: usize,
    /// How backends are chosen.
    rule: &'static str,
}

impl Shape {
    pub(crate) fn new(dimension: Dimension, count: usize, rule: &'static str) -> Self {
        Shape { dimension, count, rule }
    }

    /// How many there are of what this may be about.
    pub(crate) fn of(&self, dimension: Dimension) -> usize {
        if self.dimension == dimension { self.count } else { 1 }
    }

    /// How many connections ask.
    pub(crate) fn connections(&self) -> usize {
        if self.dimension == Dimension::Connections { self.count } else { 64 }
    }

    /// The pools and the routes of the configuration: backends at so many loopback addresses, all with this `port`,
    /// checked by connections with `checks`. Another `edition` differs in the weight of one backend and in one route.
    pub(crate) fn configuration(&self, port: u16, checks: bool, edition: usize) -> String {
        let check = if checks { "tcp" } else { "none" };
        let mut text = format!("upstreams:\n  - name: app\n    balance: {}\n", self.rule);
        writeln!(text, "    connect_timeout: 10s\n    health_check: {{type: {check}}}\n    backends:").expect(TEXT);
        let backends = self.of(Dimension::Backends);
        for number in 0..backends {
            let weight = if number + 1 == backends { edition } else { 1 };
            writeln!(text, "      - {{address: \"{}\", weight: {weight}}}", backend(number, port)).expect(TEXT);
        }
        text += "routes:\n  - {path: /, upstream: app}\n";
        for number in 0..self.of(Dimension::Routes) {
            let more = if number == 0 { edition } else { 0 };
            writeln!(text, "  - {{host: h{}.example.com, path: /p{number}/{more}, upstream: app}}", number / 10)
                .expect(TEXT);
        }
        text
    }

    /// What wrk asks for; empty for a plain GET.
    pub(crate) fn script(&self) -> String {
        let ask = match self.dimension {
            Dimension::Backends | Dimension::Connections => return String::new(),
            Dimension::Clients => {
                "return format('GET / HTTP/1.1\\r\\nHost: localhost\\r\\nX-Api-Key: key-%07d\\r\\n\\r\\n', n)"
            }
            Dimension::Routes => {
                "if random(2) == 1 then n = count - 1 end\n  \
                 return format('GET /p%d/0 HTTP/1.1\\r\\nHost: h%d.example.com\\r\\n\\r\\n', n, floor(n / 10))"
            }
        };
        format!(
            "local format, random, floor, count, threads = string.format, math.random, math.floor, {}, 0\n\
             function setup(thread)\n  threads = threads + 1\n  thread:set('seed', threads)\nend\n\
             function init() math.randomseed(seed) end\n\
             function request()\n  local n = random(0, count - 1)\n  {ask}\nend",
            self.count
        )
    }
}

const TEXT: &str = "text can be written to";

/// The address of a backend: one listener on all of loopback is as many backends as there are addresses.
fn backend(number: usize, port: u16) -> SocketAddr {
    let first = u32::from(Ipv4Addr::LOCALHOST);
    let address = first + u32::try_from(number).expect("loopback has 16 million addresses");
    SocketAddr::new(IpAddr::from(Ipv4Addr::from(address)), port)
}

/// A number with commas between its thousands.
pub(crate) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
