//! What is known of one request between the hooks. Dropped with the request, whatever ends it, and its guards with it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::admit::Admission;
use super::{Caller, Rejection, RequestId};
use crate::limit::Standing;
use crate::upstream::{BackendId, Lease, Pool};

/// One request.
#[derive(Debug)]
pub struct Context {
    pub(super) request_id: RequestId,
    pub(super) started: Instant,
    pub(super) started_wall: SystemTime,
    /// The address at the other end of the connection.
    pub(super) peer: IpAddr,
    pub(super) admission: Admission,
    /// The largest body that it may have, in bytes.
    pub(super) max_body: u64,
    /// Whether its answer says how the bucket stands.
    pub(super) rate_headers: bool,
    /// The backend that holds the request now.
    pub(super) lease: Option<Lease>,
    /// The last backend that had it.
    pub(super) backend: Option<SocketAddr>,
    /// The backends that failed this request. Allocates only then.
    pub(super) tried: Vec<BackendId>,
    /// Backends that the request was given to, the present one included.
    pub(super) attempts: u32,
    /// The backend on whose kept connection the request died, when it is sent again for that.
    pub(super) resent: Option<BackendId>,
    /// Why tollgate answers itself.
    pub(super) rejection: Option<Rejection>,
    /// What went wrong, in words.
    pub(super) error: Option<String>,
}

impl Context {
    pub(super) fn new(started: Instant, started_wall: SystemTime) -> Self {
        Context {
            request_id: RequestId::random(),
            started,
            started_wall,
            peer: IpAddr::from([0, 0, 0, 0]),
            admission: Admission::default(),
            max_body: 0,
            rate_headers: false,
            lease: None,
            backend: None,
            tried: Vec::new(),
            attempts: 0,
            resent: None,
            rejection: None,
            error: None,
        }
    }

    /// The pool that serves it, once it is let in.
    pub(super) fn pool(&self) -> Option<&Arc<Pool>> {
        self.admission.pool.as_ref()
    }

    /// Whether its connection comes from a trusted proxy.
    pub(super) fn behind_proxy(&self) -> bool {
        self.admission.caller.as_ref().is_some_and(Caller::behind_proxy)
    }

    /// How its caller's bucket stands, when it has one.
    pub(super) fn standing(&self) -> Option<&Standing> {
        self.admission.limit.as_ref()?.standing()
    }

    /// The same, when the answer is to say it.
    pub(super) fn told_standing(&self) -> Option<&Standing> {
        self.standing().filter(|_| self.rate_headers)
    }

    /// Whether the pool allows another attempt.
    pub(super) fn may_try_again(&self) -> bool {
        self.pool().is_some_and(|pool| self.attempts <= pool.settings().retries)
    }

    /// Gives up the present backend, not to be chosen again for this request.
    pub(super) fn give_up_backend(&mut self) -> Option<BackendId> {
        let id = self.lease.take()?.backend().id();
        self.tried.push(id);
        Some(id)
    }

    /// Leases a backend for the next attempt: one not tried yet, or, when a kept connection died under the request and
    /// there is no other, the same one.
    pub(super) fn lease(&mut self) -> Option<&Lease> {
        let pool = self.admission.pool.as_ref()?;
        let lease = pool.lease(&self.tried).or_else(|| {
            let died = self.resent?;
            let others: Vec<_> = self.tried.iter().copied().filter(|id| *id != died).collect();
            pool.lease(&others)
        })?;
        self.backend = Some(lease.backend().address());
        self.attempts += 1;
        Some(self.lease.insert(lease))
    }
}
