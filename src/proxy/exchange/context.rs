//! What is known of one request, from its admission to its log line. Dropped with the request, whatever ends it, and
//! its guards with it.
//!
//! Long because all that is known of a request from one step to the next is one list.

use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::clock::Clock;
use crate::limit::{Standing, Telling};
use crate::proxy::downstream::arrival::Arrival;
use crate::proxy::exchange::course::Course;
use crate::proxy::exchange::scratch::Origin;
use crate::proxy::gate::admit::Admission;
use crate::proxy::gate::affinity::Affinity;
use crate::proxy::gate::changes::Rewriting;
use crate::proxy::gate::grpc::AnswerForm;
use crate::proxy::gate::headers::{Sender, ToldTrace, Underscores};
use crate::proxy::gate::identify::Caller;
use crate::proxy::gate::rate_headers::Standings;
use crate::proxy::gate::rejection::{Rejection, ToldOfRequest};
use crate::proxy::gate::request_id::RequestId;
use crate::proxy::gate::site::SiteAnswer;
use crate::proxy::gate::sticky::StickyCookie;
use crate::telemetry::RequestTrace;
use crate::upstream::{
    BackendId, ClientEnds, ConnectAddress, Lease, Pool, Protocol, Requester, RetryOn, Site, StickyToken, Timeouts,
    Waiter,
};

/// The most interim answers to one request: each is a sign of life that a backend could give without end.
const MAX_INTERIM: u32 = 64;

/// One request.
#[derive(Debug)]
pub struct Context {
    pub(in crate::proxy) request_id: RequestId,
    pub(in crate::proxy) started: Instant,
    pub(in crate::proxy) started_wall: SystemTime,
    /// The trace that it belongs to, where there are traces.
    pub(in crate::proxy) trace: Option<Box<RequestTrace>>,
    /// When the buckets were asked last.
    pub(in crate::proxy) decided: Instant,
    /// The address at the other end of the connection.
    pub(in crate::proxy) peer: IpAddr,
    /// The version of TLS on the connection, where there is one.
    pub(in crate::proxy) tls_version: Option<&'static str>,
    /// Both ends of the connection, where its backend is told of them.
    ends: Option<Box<ClientEnds>>,
    pub(in crate::proxy) admission: Admission,
    /// The longest silence in its body; `None` is no bound.
    pub(in crate::proxy) body_timeout: Option<Duration>,
    /// The fewest bytes a second that its body may come at, while that counts.
    pub(in crate::proxy) min_body_rate: Option<NonZeroU64>,
    /// How many interim answers it has had.
    pub(in crate::proxy) interim: u32,
    /// Whether its answer says how the bucket stands.
    pub(in crate::proxy) rate_headers: bool,
    /// What that says of time.
    pub(in crate::proxy) telling: Telling,
    /// What becomes of its headers with `_` in their name.
    pub(in crate::proxy) underscores: Underscores,
    /// Whether it may go without Pingora's loop, as far as the configuration has a say.
    pub(in crate::proxy) direct: bool,
    /// The backend that holds the request now.
    pub(in crate::proxy) lease: Option<Lease>,
    /// The backend for the next attempt, once there is to be one.
    next: Option<Lease>,
    /// The last backend that had it.
    pub(in crate::proxy) backend: Option<ConnectAddress>,
    /// The backends that failed this request. Allocates only then.
    pub(in crate::proxy) tried: Vec<BackendId>,
    /// Backends that the request was given to, the present one included.
    pub(in crate::proxy) attempts: u32,
    /// Whether another backend is asked, by Pingora's loop, since the present one has answered so.
    pub(in crate::proxy) asks_another: bool,
    /// How long the connection to the backend had nothing to do before, when it is one that was kept.
    pub(in crate::proxy) idled: Option<Duration>,
    /// Whether a connection died under it. Then it gets a new one: of the kept ones others may be dead, too.
    pub(in crate::proxy) fresh: bool,
    /// Whether it was given to a backend once more that had failed it, as there was no other.
    repeated: bool,
    /// How the present attempt goes, as its connection sees it.
    pub(in crate::proxy) course: Arc<Course>,
    /// Why tollgate answers itself.
    pub(in crate::proxy) rejection: Option<Rejection>,
    /// In which form it does; known when it does.
    pub(in crate::proxy) form: AnswerForm,
    /// After how many refusals in a row its connection is closed.
    pub(in crate::proxy) close_after: Option<NonZeroU32>,
    /// Whether its connection ends with our own answer.
    pub(in crate::proxy) closes: bool,
    /// What the site says in its place; known when it does.
    pub(in crate::proxy) site: Option<Arc<SiteAnswer>>,
    /// Where its client is to ask instead, or all that it is told.
    pub(in crate::proxy) location: Option<Box<[u8]>>,
    /// What went wrong, in words.
    pub(in crate::proxy) error: Option<String>,
}

impl Context {
    /// One that came `since` then from there.
    pub(in crate::proxy) fn of(since: Arrival, origin: Origin<'_>) -> Self {
        Context { tls_version: origin.tls_version, ..Context::new(since, origin.peer) }
    }

    /// One that came `since` then over a connection from `peer`.
    pub(in crate::proxy) fn new(since: Arrival, peer: IpAddr) -> Self {
        Context {
            request_id: RequestId::random(),
            started: since.at,
            started_wall: since.wall,
            trace: None,
            decided: since.at,
            peer,
            tls_version: None,
            ends: None,
            admission: Admission::default(),
            body_timeout: None,
            min_body_rate: None,
            interim: 0,
            rate_headers: false,
            telling: Telling::default(),
            underscores: Underscores::Drop,
            direct: true,
            lease: None,
            next: None,
            backend: None,
            tried: Vec::new(),
            attempts: 0,
            asks_another: false,
            idled: None,
            fresh: false,
            repeated: false,
            course: Arc::default(),
            rejection: None,
            form: AnswerForm::Json,
            close_after: None,
            closes: false,
            site: None,
            location: None,
            error: None,
        }
    }

    /// The time of day at `now`.
    pub(in crate::proxy) fn wall(&self, now: Instant) -> SystemTime {
        self.started_wall + now.saturating_duration_since(self.started)
    }

    /// The pool that serves it, once it is let in.
    pub(in crate::proxy) fn pool(&self) -> Option<&Arc<Pool>> {
        self.admission.pool.as_ref()
    }

    /// Whether it is decided already whether it is let in.
    pub(in crate::proxy) fn is_decided(&self) -> bool {
        self.admission.pool.is_some() || self.rejection.is_some()
    }

    /// Has it answered what a certificate authority is to be.
    pub(in crate::proxy) fn answer_challenge(&mut self, answer: &str) {
        (self.rejection, self.location) = (Some(Rejection::AcmeChallenge), Some(answer.as_bytes().into()));
    }

    /// The time limits of its exchange with a backend, once it is let in.
    pub(in crate::proxy) fn timeouts(&self) -> Option<Timeouts> {
        let pool = self.pool()?.settings().timeouts;
        Some(Timeouts { read: self.admission.read_timeout.unwrap_or(pool.read), ..pool })
    }

    /// What its backends speak, once it is let in.
    pub(in crate::proxy) fn protocol(&self) -> Protocol {
        self.pool().map_or(Protocol::Http1, |pool| pool.settings().manner.protocol)
    }

    /// Counts an interim answer; whether it is one too many.
    pub(in crate::proxy) fn has_too_many_interim(&mut self) -> bool {
        self.interim += 1;
        self.interim > MAX_INTERIM
    }

    /// Whether its connection comes from a trusted proxy.
    pub(in crate::proxy) fn behind_proxy(&self) -> bool {
        self.admission.caller.as_ref().is_some_and(Caller::behind_proxy)
    }

    /// What its backend learns of who sent it, over a connection that is TLS or not.
    pub(in crate::proxy) fn sender(&self, secure: bool) -> Sender {
        let caller = self.admission.caller.as_ref();
        Sender {
            peer: self.peer,
            caller: caller.map_or(self.peer, |caller| caller.address),
            trusted: self.behind_proxy(),
            secure,
            underscores: self.underscores,
            trace: self.trace.as_deref().and_then(ToldTrace::of),
        }
    }

    /// What is changed of its messages beyond what every request needs, once it is let in.
    /// Its client speaks TLS, or does not.
    pub(in crate::proxy) fn rewriting(&self, secure: bool) -> Option<Rewriting> {
        let sticky = self.pool().and_then(|pool| pool.settings().sticky.clone());
        let changes = self.admission.changes.as_ref();
        let costs = self.admission.paid.as_deref().filter(|paid| paid.has_costs());
        if changes.is_none() && costs.is_none() && sticky.is_none() {
            return None;
        }
        let secure = secure || self.admission.affinity.as_ref().is_some_and(|affinity| affinity.secure);
        let cookie = sticky.map(|name| StickyCookie { name, secure, set: self.new_token() });
        let rewriting = Rewriting::new(changes, costs, self.admission.caller.as_ref()?, &self.request_id);
        Some(rewriting.with_cookie(cookie))
    }

    /// The token of the present backend, where the client is to have one and has another.
    pub(in crate::proxy) fn new_token(&self) -> Option<StickyToken> {
        let token = self.pool()?.token(self.lease.as_ref()?)?;
        (self.admission.affinity.as_ref()?.token != Some(token)).then_some(token)
    }

    /// Takes note of both ends of its connection, where its backend is told of them.
    pub(in crate::proxy) fn meet(&mut self, ends: impl FnOnce() -> Option<ClientEnds>) {
        if self.pool().is_some_and(|pool| pool.settings().manner.proxy_protocol.is_some()) {
            self.ends = ends().map(Box::new);
        }
    }

    /// Whose connection the backend at `site` is told that it is, where it is told: the caller's, whose port is known
    /// where it is the other end of the connection.
    pub(in crate::proxy) fn whose(&self, site: &Site) -> Option<Box<ClientEnds>> {
        site.proxy_protocol()?;
        let caller = self.admission.caller.as_ref().map_or(self.peer, |caller| caller.address);
        let nowhere = SocketAddr::new(self.peer, 0);
        let ends = self.ends.as_deref().copied().unwrap_or(ClientEnds { client: nowhere, here: nowhere });
        let is_peer = ends.client.ip().to_canonical() == caller;
        let port = if is_peer { ends.client.port() } else { 0 };
        Some(Box::new(ClientEnds { client: SocketAddr::new(caller, port), here: ends.here }))
    }

    /// How its caller's own bucket stands, when it has one.
    pub(in crate::proxy) fn standing(&self) -> Option<&Standing> {
        self.admission.limit.as_ref()?.standing()
    }

    /// How the buckets stand that it pays into, when the answer is to say it.
    pub(in crate::proxy) fn told_standing(&self) -> Option<Standings<'_>> {
        if self.rate_headers { self.standings() } else { None }
    }

    /// The same, with what has to be known to tell it.
    pub(in crate::proxy) fn standings(&self) -> Option<Standings<'_>> {
        let standings = self.admission.standings()?;
        Some(Standings { telling: self.telling, at: self.wall(self.decided), ..standings })
    }

    /// Counts it among the refusals in a `row` of its connection, which ends with the last that is borne. Whatever else
    /// it gets ends the row.
    pub(in crate::proxy) fn count_in(&mut self, row: &mut u32) {
        let refused = self.rejection.is_some_and(Rejection::is_of_caller);
        *row = if refused { row.saturating_add(1) } else { 0 };
        self.closes = self.close_after.is_some_and(|most| *row >= most.get());
    }

    /// What an answer of our own tells of it.
    pub(in crate::proxy) fn told(&self) -> ToldOfRequest<'_> {
        ToldOfRequest {
            standing: self.told_standing(),
            refused_by: self.standings().filter(|standings| standings.refused_by().is_some()),
            said: self.location.as_deref(),
            site: self.site.as_deref(),
        }
    }

    /// What the pool makes another attempt for.
    pub(in crate::proxy) fn retry_on(&self) -> RetryOn {
        self.pool().map_or(RetryOn::NOTHING, |pool| pool.settings().retry_on)
    }

    /// Whether the pool allows another attempt.
    pub(in crate::proxy) fn may_try_again(&self) -> bool {
        self.pool().is_some_and(|pool| self.attempts <= pool.settings().retries)
    }

    /// Whether a connection that dies under the request costs nothing, since it is `idempotent` and may be sent again.
    pub(in crate::proxy) fn outlives_connections(&self, idempotent: bool) -> bool {
        idempotent && self.may_try_again() && self.retry_on().broken
    }

    /// Gives up the present backend and chooses the one for the next attempt. That is one not tried yet, or, where
    /// there never was another, the same, but only once. When only a `kept` connection died, the backend has not had
    /// its turn yet, and gets it unless another can have the request; nor is such an attempt paid for. One that was too
    /// `late` is not asked again. The request has its place there until it is known that it goes elsewhere: whoever
    /// waits for one would get it at once.
    pub(in crate::proxy) fn goes_on(&mut self, (kept, late): (bool, bool), clock: &dyn Clock) -> Onward {
        let Some(place) = self.lease.take() else { return Onward::NoBackend };
        let failed = place.backend().id();
        let alone = self.tried.iter().all(|tried| *tried == failed);
        self.tried.push(failed);
        let Some(pool) = self.admission.pool.as_ref().filter(|_| self.may_try_again()) else { return Onward::NoMore };
        let by = Asking { affinity: self.admission.affinity.as_deref(), clock };
        self.next = pool.lease(&self.tried, &by);
        if kept {
            self.tried.pop();
        }
        let once_more = if kept { !self.tried.contains(&failed) } else { alone && !self.repeated };
        if self.next.is_none() && !late && once_more {
            self.next = Some(place).filter(|place| place.backend().is_ready()).map(|place| place.again(clock.now()));
            self.repeated |= !kept;
        }
        if self.next.is_none() {
            Onward::NoBackend
        } else if kept || pool.affords_retry(clock.now()) {
            Onward::Again
        } else {
            self.next = None;
            Onward::Unaffordable
        }
    }

    /// The same where the present backend has answered, but with a status for which another one is asked. That one
    /// keeps its request where there is none.
    pub(in crate::proxy) fn asks_another(&mut self, clock: &dyn Clock) -> bool {
        let Some(answered) = self.lease.as_ref().map(|lease| lease.backend().id()) else { return false };
        let Some(pool) = self.admission.pool.as_ref().filter(|_| self.may_try_again()) else { return false };
        self.tried.push(answered);
        let by = Asking { affinity: self.admission.affinity.as_deref(), clock };
        self.next = pool.lease(&self.tried, &by).filter(|_| pool.affords_retry(clock.now()));
        if self.next.is_none() {
            self.tried.pop();
        }
        self.next.is_some()
    }

    /// Why `pool` has no backend for it that it has not tried.
    pub(in crate::proxy) fn why_none(&self, pool: &Pool) -> Rejection {
        if pool.is_busy(&self.tried) {
            return Rejection::BackendsBusy;
        }
        Rejection::NoHealthyBackend(pool.retry_after())
    }

    /// Why no backend is left for another attempt, and what a request that may wait for one waits with.
    pub(in crate::proxy) fn queue_up(&self) -> (Rejection, Option<Waiter>) {
        let Some(pool) = self.pool() else { return (Rejection::Internal, None) };
        let why = self.why_none(pool);
        if why != Rejection::BackendsBusy || !self.tried.is_empty() {
            return (why, None);
        }
        let caller = self.admission.caller.as_ref();
        let waiter = match caller.and_then(|caller| caller.client.as_ref()) {
            Some((client, _)) => pool.wait(client.id.as_str()),
            None => pool.wait(network(caller.map_or(self.peer, |caller| caller.address))),
        };
        (why, waiter)
    }

    /// Takes up the backend that has come free; whether the request can be sent there. After a reload it may be one
    /// that is spoken to in another protocol than the one in which the request is written.
    pub(in crate::proxy) fn take_up(&mut self, lease: Lease) -> bool {
        self.next = Some(lease).filter(|lease| lease.backend().site().protocol() == self.protocol());
        self.next.is_some()
    }

    /// Takes up the backend for the next attempt: the one that was chosen when the last attempt failed, or any.
    pub(in crate::proxy) fn lease(&mut self, clock: &dyn Clock) -> Option<&Lease> {
        let by = Asking { affinity: self.admission.affinity.as_deref(), clock };
        let lease = match self.next.take() {
            Some(next) => next,
            None => self.admission.pool.as_ref()?.lease(&self.tried, &by)?,
        };
        let backend = lease.backend().address().clone();
        if let Some(trace) = &mut self.trace {
            let since = clock.now().saturating_duration_since(self.started);
            trace.begin_attempt(self.started_wall + since, &backend);
        }
        self.backend = Some(backend);
        self.attempts += 1;
        Some(self.lease.insert(lease))
    }
}

/// Whether there is to be another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Onward {
    /// There is.
    Again,
    /// Every backend that can have it has been tried.
    NoBackend,
    /// It has had all its attempts.
    NoMore,
    /// The pool's budget for them is spent.
    Unaffordable,
}

/// A request, as its pool asks it what to choose by.
struct Asking<'c> {
    affinity: Option<&'c Affinity>,
    clock: &'c dyn Clock,
}

impl Requester for Asking<'_> {
    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn key(&self) -> impl AsRef<[u8]> {
        self.affinity.and_then(|affinity| affinity.key.as_ref()).map_or(&[][..], AsRef::as_ref)
    }

    fn stuck(&self) -> Option<StickyToken> {
        self.affinity?.token
    }
}

/// What those who share a network count as when they wait: an IPv4 address, or the first 64 bits of one of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
    }
}
