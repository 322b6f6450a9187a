//! Whether a request is let in, and to which pool: plain values in, plain values out, so that it is tested without a
//! socket.

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, HOST};
use pingora_http::RequestHeader;

use super::{Limits, Rejection};
use crate::route::RouteTable;
use crate::upstream::Pool;

/// A request that is let in.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// The pool that serves it.
    pub pool: Arc<Pool>,
}

/// Decides on a request by its header.
///
/// # Errors
/// Why it is not let in.
pub fn admit(head: &RequestHeader, routes: &RouteTable<Arc<Pool>>, limits: &Limits) -> Result<Admitted, Rejection> {
    let pool = routes.find(host(head), head.uri.path()).ok_or(Rejection::NoRoute)?;
    if announced_length(head).is_some_and(|length| length > limits.max_body) {
        return Err(Rejection::BodyTooLarge);
    }
    Ok(Admitted { pool: Arc::clone(pool) })
}

/// The host that the client asked for, with its port when it named one; empty when it named none.
pub(super) fn host(head: &RequestHeader) -> &str {
    let header = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    header.or_else(|| Some(head.uri.authority()?.as_str())).unwrap_or_default()
}

fn announced_length(head: &RequestHeader) -> Option<u64> {
    head.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{HostPattern, PathPrefix};
    use crate::upstream::{HealthSettings, PoolSettings, Timeouts};

    fn routes(host: &str, path: &str) -> RouteTable<Arc<Pool>> {
        let pool = Pool::new(PoolSettings {
            name: "app".into(),
            balance: Default::default(),
            backends: Vec::new(),
            health: HealthSettings::default(),
            retries: 0,
            timeouts: Timeouts::default(),
        });
        RouteTable::new([(HostPattern::parse(host).unwrap(), PathPrefix::parse(path).unwrap(), Arc::new(pool))])
    }

    fn head(target: &str, headers: &[(&'static str, &str)]) -> RequestHeader {
        let mut head = RequestHeader::build("POST", target.as_bytes(), None).unwrap();
        headers.iter().for_each(|(name, value)| head.insert_header(*name, *value).unwrap());
        head
    }

    #[test]
    fn the_route_decides() {
        let (routes, limits) = (routes("api.example.com", "/v1"), Limits::default());
        let outcome = |target: &str, host: &str| admit(&head(target, &[("host", host)]), &routes, &limits).map(|_| ());
        assert_eq!(outcome("/v1/users?id=1", "api.example.com:8080"), Ok(()));
        assert_eq!(outcome("http://api.example.com/v1", "api.example.com"), Ok(()));
        assert_eq!(outcome("/v2", "api.example.com"), Err(Rejection::NoRoute));
        assert_eq!(outcome("/v1", "www.example.com"), Err(Rejection::NoRoute));
    }

    #[test]
    fn a_body_that_is_announced_too_large_is_refused_before_it_comes() {
        let routes = routes("a", "/");
        let limits = Limits { max_body: 1000, ..Limits::default() };
        let outcome = |length| admit(&head("/", &[("host", "a"), ("content-length", length)]), &routes, &limits);
        assert!(outcome("1000").is_ok());
        assert_eq!(outcome("1001").unwrap_err(), Rejection::BodyTooLarge);
    }
}
