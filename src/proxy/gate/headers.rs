//! Headers that say who sent a request, and what they are made of.

use std::net::IpAddr;

use http::HeaderName;

use crate::decimal::put_address;
use crate::proxy::gate::own_lines::{OwnLines, OwnName, OwnValue};
use crate::proxy::gate::request_id::RequestId;
use crate::telemetry::{RequestTrace, TraceParent};

pub(in crate::proxy) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Under which the name of a request is told.
pub(in crate::proxy) static REQUEST_ID: OwnName = OwnName::new("X-Request-Id: ", || X_REQUEST_ID);

pub(in crate::proxy) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(in crate::proxy) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(in crate::proxy) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(in crate::proxy) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(in crate::proxy) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

static HOPS: OwnName = OwnName::new("X-Forwarded-For: ", || X_FORWARDED_FOR);
static CALLER: OwnName = OwnName::new("X-Real-IP: ", || X_REAL_IP);
static PROTO: OwnName = OwnName::new("X-Forwarded-Proto: ", || X_FORWARDED_PROTO);
/// In lower case also where names are spelt, as the recommendation asks.
static TRACE: OwnName = OwnName::new("traceparent: ", || TRACEPARENT);
static HOST: OwnName = OwnName::new("X-Forwarded-Host: ", || X_FORWARDED_HOST);

/// What becomes of a client's headers with `_` in their name. CGI, WSGI and PHP write every name in capitals with `_`
/// for `-`, so that behind them `X_Forwarded_For` cannot be told from the `X-Forwarded-For` that tollgate wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Underscores {
    /// No backend gets them.
    #[default]
    Drop,
    /// They are passed on as they came.
    Pass,
}

/// Who sent a request, and how, as the backend learns it.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Sender {
    /// At the other end of the connection.
    pub(in crate::proxy) peer: IpAddr,
    /// Who sent it, as it was found out: the same, or whom a trusted proxy names.
    pub(in crate::proxy) caller: IpAddr,
    /// Whether the other end of the connection is a trusted proxy.
    pub(in crate::proxy) trusted: bool,
    /// Whether the connection is TLS.
    pub(in crate::proxy) secure: bool,
    /// What becomes of headers with `_` in their name.
    pub(in crate::proxy) underscores: Underscores,
    /// The trace, where the backend is told of it.
    pub(in crate::proxy) trace: Option<ToldTrace>,
}

/// What a backend is told of a request's trace.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct ToldTrace {
    /// The trace, and our place in it.
    pub(in crate::proxy) parent: TraceParent,
    /// Whether the trace is the sender's, and what it says of it in `tracestate` stays.
    pub(in crate::proxy) goes_on: bool,
}

impl ToldTrace {
    /// What is told of this one.
    #[cold]
    pub(in crate::proxy) fn of(trace: &RequestTrace) -> Option<Self> {
        trace.propagates.then(|| ToldTrace { parent: trace.own, goes_on: trace.parent.is_some() })
    }
}

/// What a trusted proxy has said that stays.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::proxy) struct Vouched {
    /// By which protocol the caller came.
    pub(in crate::proxy) proto: bool,
    /// To which host.
    pub(in crate::proxy) host: bool,
}

impl Sender {
    /// Says into `lines` who sent the request called `id`: behind the `hops` that a trusted proxy names, and to `host`,
    /// unless such a one has `said` that.
    #[inline]
    pub(in crate::proxy) fn write<'h, I: Iterator<Item = &'h [u8]>>(
        self,
        lines: &mut impl OwnLines,
        hops: impl Fn() -> I,
        (said, host): (Vouched, Option<&[u8]>),
        id: &RequestId,
    ) {
        lines.line(&HOPS, Hops(hops, self.peer));
        lines.line(&CALLER, self.caller);
        if !said.proto {
            lines.line(&PROTO, if self.secure { "https" } else { "http" });
        }
        if let (false, Some(host)) = (said.host, host) {
            lines.line(&HOST, host);
        }
        lines.line(&REQUEST_ID, id);
        if let Some(trace) = self.trace {
            lines.line(&TRACE, trace.parent);
        }
    }
}

/// Whom a request has come by, the last of them at the other end of the connection.
struct Hops<F>(F, IpAddr);

impl<'h, F: Fn() -> I, I: Iterator<Item = &'h [u8]>> OwnValue for Hops<F> {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        for hop in (self.0)().filter(|hop| !hop.is_empty()) {
            out.extend_from_slice(hop);
            out.extend_from_slice(b", ");
        }
        put_address(self.1, out);
    }
}
