//! What is changed of a request on its way to its backend, and of the answer on its way back, beyond what every request
//! needs: a prefix taken from the path, an API key taken away, the rules of its route.
//!
//! The problem: most routes change nothing, and should pay for nothing; those that do must do it the same way whichever
//! way a request goes and whatever its two ends speak.
//!
//! The rule: a route that changes nothing has no [`RouteChanges`], and a request asks for them once. Where there are
//! some, a header section that is written already is written anew: after everything that tollgate itself says or takes
//! away, so that rules have the last word on all but the framing, which they cannot name. Neither interim answers nor a
//! 101 are changed, and no answer of our own: a rule that hides what backends say must not hide why there is none.
//!
//! An API key that is not to be forwarded is the whole header that is configured for keys, whatever it says, and
//! `Authorization: Bearer` where it holds the key by which the client was known: any other token there is the
//! backend's. The backend gets `X-Client-Id`, and never a stranger's, nor one that CGI could take for it.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderName;
use http::header::AUTHORIZATION;

use crate::client::Client;
use crate::proxy::gate::identify::{Caller, Recognised, bearer};
use crate::proxy::gate::policies::{PaidPolicies, ToldCosts};
use crate::proxy::gate::request_id::RequestId;
use crate::proxy::gate::sticky::StickyCookie;
use crate::proxy::wire::lines::{is, line};
use crate::proxy::wire::order::{behind_first_line, lines};
use crate::route::{HeaderRules, PathPrefix, RuleValues};
use crate::upstream::StickyToken;

/// The name of the line that says who the client is.
const CLIENT_ID: &[u8] = b"X-Client-Id";

/// What is changed of the messages of one route.
#[derive(Debug, Default)]
pub struct RouteChanges {
    /// Taken from the start of the path.
    pub strip_prefix: Option<PathPrefix>,
    /// The header whose API key no backend gets, who gets the client's name instead.
    pub hidden_key: Option<HeaderName>,
    /// Of requests.
    pub request: HeaderRules,
    /// Of backends' answers.
    pub answer: HeaderRules,
}

impl RouteChanges {
    /// The same, when it changes anything.
    pub fn if_any(self) -> Option<Arc<Self>> {
        let any = self.changes_requests() || !self.answer.is_empty();
        any.then(|| Arc::new(self))
    }

    fn changes_requests(&self) -> bool {
        self.strip_prefix.is_some() || self.hidden_key.is_some() || !self.request.is_empty()
    }
}

/// [`RouteChanges`] for one request.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct Rewriting {
    changes: Option<Arc<RouteChanges>>,
    /// The policies whose costs answers tell, to us alone.
    costs: Option<Box<PaidPolicies>>,
    client: Option<Arc<Client>>,
    by_key: bool,
    client_ip: IpAddr,
    request_id: RequestId,
    sticky: Option<StickyCookie>,
}

impl Rewriting {
    /// What `changes` do to the request called `request_id` of `caller`, whose answer tells `costs`.
    pub(in crate::proxy) fn new(
        changes: Option<&Arc<RouteChanges>>,
        costs: Option<&PaidPolicies>,
        caller: &Caller,
        request_id: &RequestId,
    ) -> Self {
        Rewriting {
            changes: changes.cloned(),
            costs: costs.cloned().map(Box::new),
            client: caller.client.as_ref().map(|(client, _)| Arc::clone(client)),
            by_key: matches!(caller.client, Some((_, Recognised::ApiKey))),
            client_ip: caller.address,
            request_id: request_id.clone(),
            sticky: None,
        }
    }

    /// The same with the cookie of its pool.
    pub(in crate::proxy) fn with_cookie(self, sticky: Option<StickyCookie>) -> Self {
        Rewriting { sticky, ..self }
    }

    /// Has the client told `token`, if it is to be told any.
    pub(in crate::proxy) fn tell(&mut self, token: Option<StickyToken>) {
        if let Some(sticky) = &mut self.sticky {
            sticky.set = token;
        }
    }

    /// Writes a request's header section anew.
    pub(in crate::proxy) fn request(&self, head: &mut Vec<u8>) {
        if let Some(sticky) = &self.sticky {
            sticky.take_away(head);
        }
        let Some(changes) = self.changes.as_ref().filter(|changes| changes.changes_requests()) else { return };
        let mut out = Vec::with_capacity(head.len() + 64);
        let first = head.len() - behind_first_line(head).len();
        first_line(changes, &head[..first], &mut out);
        let all = lines(behind_first_line(head)).filter(|(name, value)| !self.is_hidden(changes, name, value));
        changes.request.apply(all.chain(self.client_line(changes)), &self.values(), |name, value| {
            line(&mut out, name, value);
        });
        out.extend_from_slice(b"\r\n");
        *head = out;
    }

    /// Whether answers are changed.
    pub(in crate::proxy) fn changes_answers(&self) -> bool {
        self.costs.is_some()
            || self.sticky.as_ref().is_some_and(|sticky| sticky.set.is_some())
            || self.changes.as_ref().is_some_and(|changes| !changes.answer.is_empty())
    }

    /// What the answer with these lines costs, where it tells.
    pub(in crate::proxy) fn costs<'h, I>(&self, lines: impl Fn() -> I) -> Option<ToldCosts>
    where
        I: Iterator<Item = (&'h [u8], &'h [u8])>,
    {
        self.costs.as_ref().map(|costs| costs.costs(lines))
    }

    /// Hands what becomes of the lines of an answer to `put`.
    pub(in crate::proxy) fn answer<'h>(
        &self,
        lines: impl Iterator<Item = (&'h [u8], &'h [u8])>,
        mut put: impl FnMut(&[u8], &[u8]),
    ) {
        let told = lines.filter(|(name, _)| self.costs.as_ref().is_none_or(|costs| !costs.hides(name)));
        match &self.changes {
            Some(changes) => changes.answer.apply(told, &self.values(), &mut put),
            None => told.for_each(|(name, value)| put(name, value)),
        }
        if let Some(cookie) = self.sticky.as_ref().and_then(StickyCookie::line) {
            put(b"Set-Cookie", &cookie);
        }
    }

    fn values(&self) -> RuleValues<'_> {
        RuleValues {
            client_id: self.client.as_ref().map(|client| client.id.as_str()),
            client_ip: self.client_ip,
            request_id: self.request_id.as_str(),
        }
    }

    /// Whether a line holds what no backend is to get, or claims what tollgate says.
    fn is_hidden(&self, changes: &RouteChanges, name: &[u8], value: &[u8]) -> bool {
        let Some(header) = &changes.hidden_key else { return false };
        is(name, header.as_str().as_bytes())
            || is_like(name, CLIENT_ID)
            || (self.by_key && is(name, AUTHORIZATION.as_str().as_bytes()) && bearer(value).is_some())
    }

    /// The line that says who the client is, where its key does not.
    fn client_line(&self, changes: &RouteChanges) -> Option<(&'static [u8], &[u8])> {
        let client = self.client.as_ref().filter(|_| changes.hidden_key.is_some())?;
        Some((CLIENT_ID, client.id.as_str().as_bytes()))
    }
}

/// Writes the first line with the path that the backend knows.
fn first_line(changes: &RouteChanges, line: &[u8], out: &mut Vec<u8>) {
    let target = line.iter().position(|byte| *byte == b' ').map_or(line.len(), |at| at + 1);
    let (method, target) = line.split_at(target);
    out.extend_from_slice(method);
    match changes.strip_prefix.as_ref().and_then(|prefix| prefix.strip(target)) {
        Some(rest) => {
            if !rest.starts_with(b"/") {
                out.push(b'/');
            }
            out.extend_from_slice(rest);
        }
        None => out.extend_from_slice(target),
    }
}

/// Whether CGI takes two names for the same one.
fn is_like(name: &[u8], other: &[u8]) -> bool {
    let plain = |byte: &u8| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    name.len() == other.len() && name.iter().map(plain).eq(other.iter().map(plain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{ClientId, Quota};

    fn caller(by_key: bool) -> Caller {
        let id = ClientId::parse("team").unwrap();
        let client = Client::new(1, id, Quota::new(1, 1.0).unwrap());
        let how = if by_key { Recognised::ApiKey } else { Recognised::Address("192.0.2.0/24".parse().unwrap()) };
        let client = Some((Arc::new(client), how));
        Caller { address: [192, 0, 2, 1].into(), walk: None, key: None, unknown_key: false, client }
    }

    fn rewritten(changes: RouteChanges, caller: &Caller, head: &str) -> String {
        let changes = changes.if_any().unwrap();
        let mut head = head.as_bytes().to_vec();
        Rewriting::new(Some(&changes), None, caller, &RequestId::random()).request(&mut head);
        String::from_utf8(head).unwrap()
    }

    fn none() -> RouteChanges {
        let (request, answer) = (HeaderRules::default(), HeaderRules::default());
        RouteChanges { strip_prefix: None, hidden_key: None, request, answer }
    }

    #[test]
    fn what_changes_nothing_is_not_there() {
        assert!(none().if_any().is_none());
    }

    #[test]
    fn a_prefix_is_taken_from_the_path_and_nothing_else_of_it_changes() {
        for (target, expected) in [
            ("/git", "/"),
            ("/git/", "/"),
            ("/git/x", "/x"),
            ("/git?a=/git", "/?a=/git"),
            ("/git/?a", "/?a"),
            ("/git/%2F..//x?y#", "/%2F..//x?y#"),
            ("/git//x", "//x"),
            ("/gitx", "/gitx"),
            ("/git%2Fx", "/git%2Fx"),
            ("/Git/x", "/Git/x"),
            ("/", "/"),
            ("*", "*"),
        ] {
            let changes = RouteChanges { strip_prefix: Some(PathPrefix::parse("/git").unwrap()), ..none() };
            let head = rewritten(changes, &caller(true), &format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
            assert_eq!(head, format!("GET {expected} HTTP/1.1\r\nHost: a\r\n\r\n"));
        }
    }

    #[test]
    fn a_key_is_hidden_and_a_name_takes_its_place() {
        let head = "GET / HTTP/1.1\r\nX-Key: k\r\nHost: a\r\nauthorization: bearer k\r\nAuthorization: Basic b\r\n\
                    X-Client-Id: root\r\nx_client-ID: root\r\n\r\n";
        let hidden = || RouteChanges { hidden_key: Some("x-key".parse().unwrap()), ..none() };
        let expected = "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Basic b\r\nX-Client-Id: team\r\n\r\n";
        assert_eq!(rewritten(hidden(), &caller(true), head), expected);
        let bearer = "GET / HTTP/1.1\r\nHost: a\r\nauthorization: bearer k\r\nAuthorization: Basic b\r\n";
        let known = format!("{bearer}X-Client-Id: team\r\n\r\n");
        assert_eq!(rewritten(hidden(), &caller(false), head), known, "the token is not tollgate's");
        let nobody = Caller { client: None, ..caller(true) };
        assert_eq!(rewritten(hidden(), &nobody, head), format!("{bearer}\r\n"));
    }
}
