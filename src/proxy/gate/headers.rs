//! Headers that say who sent a request, and what they are made of.

use std::net::IpAddr;

use http::HeaderName;

pub(in crate::proxy) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(in crate::proxy) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What becomes of a client's headers with `_` in their name. CGI, WSGI and PHP write every name in capitals with `_` for `-`, so
/// that behind them `X_Forwarded_For` cannot be told from the `X-Forwarded-For` that tollgate wrote.
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
}
