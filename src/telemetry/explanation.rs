//! What an operator is told who asks how a caller is treated.

use std::net::IpAddr;

use crate::client::{ClientId, Mode};
use crate::limit::Standing;

/// Who a caller would be, and what it would get.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// How that was found out, step by step, in words. No keys.
    pub steps: Vec<String>,
    /// The trusted proxy whose `X-Forwarded-For` was believed, when the connection is from one.
    pub trusted_proxy: Option<IpAddr>,
    /// The address that counts as the caller's.
    pub client_ip: IpAddr,
    /// The header that an API key was read from, when there was one: its name, not its value.
    pub api_key_from: Option<String>,
    /// The client, when the caller is one.
    pub client_id: Option<ClientId>,
    /// The client's network that matched, when it was recognised by address.
    pub network: Option<String>,
    /// `api_key`, `certificate`, `address` or `anonymous`.
    pub identity: &'static str,
    /// The client's mode; none for an anonymous caller.
    pub mode: Option<Mode>,
    /// How its bucket stands; none when it has none.
    pub standing: Option<Standing>,
    /// What the limiter would say: `allowed`, `limited`, `blocked` or `unlimited`; none when it would not be asked.
    pub decision: Option<&'static str>,
    /// The pool that its route leads to; none when it leads nowhere, or is not known.
    pub upstream: Option<String>,
    /// The status and message of the refusal; none when the request would go on to its route.
    pub refusal: Option<(u16, String)>,
    /// The rate headers and `Retry-After` that the answer would carry: their names and values.
    pub headers: Vec<(String, String)>,
}
