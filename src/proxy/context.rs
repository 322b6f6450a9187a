//! What is known of one request between the hooks. Dropped with the request, whatever ends it, and its guards with it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::{Rejection, RequestId};
use crate::upstream::{BackendId, Lease, Pool};

/// One request.
#[derive(Debug)]
pub struct Context {
    pub(super) request_id: RequestId,
    pub(super) started: Instant,
    pub(super) started_wall: SystemTime,
    pub(super) client: Option<IpAddr>,
    pub(super) pool: Option<Arc<Pool>>,
    /// The backend that holds the request now.
    pub(super) lease: Option<Lease>,
    /// The backends that failed this request. Allocates only then.
    pub(super) tried: Vec<BackendId>,
    /// Backends that the request was given to, the present one included.
    pub(super) attempts: u32,
    /// Whether the request was sent again after a kept connection had died under it.
    pub(super) resent: bool,
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
            client: None,
            pool: None,
            lease: None,
            tried: Vec::new(),
            attempts: 0,
            resent: false,
            rejection: None,
            error: None,
        }
    }

    /// Whether the pool allows another attempt.
    pub(super) fn may_try_again(&self) -> bool {
        self.pool.as_ref().is_some_and(|pool| self.attempts <= pool.settings().retries)
    }

    /// Gives up the present backend, not to be chosen again for this request.
    pub(super) fn give_up_backend(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.tried.push(lease.backend().id());
        }
    }
}
