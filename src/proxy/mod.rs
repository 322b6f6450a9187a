//! The way of one request, and every answer of our own.
//!
//! Each is admitted once, before its way is chosen. A plain request, and one that asks for another protocol, goes
//! directly (room `exchange`), or, where the configuration says so, through Pingora's hooks (room `pingora`). Both ways
//! take the same steps and share what decides in them.
//!
//! ```text
//! connection: header read and checked ─ malformed, too large, too slow ─────► reject
//!   │
//!   ▼ Proxy::admit = who, bucket, route, announced length ── no ─────────────► reject
//!   │
//!   ▼ upstream_peer: lease a backend not yet tried ───── none left ──────────► reject 503
//!   │      ▲
//!   │      └── fail_to_connect: mark it tried, tell its health, next
//!   │      └── error_while_proxy: the connection died under an idempotent request: once more, elsewhere
//!   ▼ upstream_request_filter: X-Forwarded-*, X-Request-Id
//!   ▼ response_filter: rate headers on (what counts for one connection only, `backend_side` has taken away)
//!   ▼ logging: one line, always; the lease drops with the context
//! ```
//!
//! Retries: a request that could not connect has not been sent and may go on to another backend, whatever its method.
//! One that was sent may have been carried out. It is sent again only when it is idempotent (RFC 9110 section 9.2.2),
//! its body is still at hand, and nothing of an answer has been passed on: where the connection died or nothing came in
//! time, and, where its pool says so, where the answer was a 5xx. Each attempt goes to a backend not tried yet; where
//! there never was another, once more to the same, unless that has answered or was late. `retries` bounds the attempts
//! of a request, `retry_budget` those of a pool. Refused: never after a timeout, as it was at first, since what is slow
//! would have more to do. The budget bounds that, and without it one backend of three that hangs costs a third of all
//! requests.

mod backend;
mod downstream;
mod exchange;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod pingora;
mod service;
mod wire;

pub use downstream::activity::{Activity, Busy, Tunnels};
pub use downstream::patience::Patience;
pub use downstream::seats::{SeatRoom, Seats};
pub use downstream::socket::ClientSocket;
pub use exchange::context::Context;
pub use exchange::parts::ProxyParts;
pub use exchange::proxy::Proxy;
pub use exchange::untaken::UntakenAnswers;
pub use gate::admit::{Admission, Asked, Destination, Gate, Limit, RequestTarget};
pub use gate::certificate::ShownCertificate;
pub use gate::changes::RouteChanges;
pub use gate::headers::Underscores;
pub use gate::identify::{Caller, Identity, KeySource, Recognised, UnknownKey, Walk, identify};
pub use gate::policies::Policies;
pub use gate::policy_settings::{OWN, PolicyCost, PolicyKey, PolicySettings};
pub use gate::rejection::Rejection;
pub use gate::request_id::RequestId;
pub use gate::rules::{RateRules, Rules};
pub use gate::settings::{HeaderVersions, Limits, ListenerRules};
pub use gate::site::{STATUSES, SiteAnswer, SiteAnswerError, SiteAnswers};
pub use gate::split::PoolSplit;
pub use service::downstream::Downstream;
pub use wire::lines::Fields;
