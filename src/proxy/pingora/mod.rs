//! The hooks of Pingora's request loop, and what it sees of both connections.
//!
//! The loop serves requests where `direct` is `false`, and then all but what offers another protocol: that keeps to
//! [`exchange`](crate::proxy::exchange), for the loop may cut what a backend sends right behind its 101 (Pingora issue
//! 946), has one timeout for a read and for a silence, and ends both directions with the first.
//!
//! Whether a request is let in was decided before its way was ([`admitted`]); one that is not never comes here. The
//! hooks decide only on requests of sessions that are not our own.
//!
//! What differs: a body without a length whose end came with its header is told in chunks here, and with its length
//! there; and trailers end where they come from. Backends of HTTP/2 it does not know: pools with such ones never go by
//! it. `tests/it/harness/way.rs` lists the tests that see it.

pub(in crate::proxy) mod admitted;
pub(in crate::proxy) mod backend_side;
pub(in crate::proxy) mod headers;
pub(in crate::proxy) mod hooks;
pub(in crate::proxy) mod http2_session;
pub(in crate::proxy) mod loan;
pub(in crate::proxy) mod loop_request;
pub(in crate::proxy) mod peer;
pub(in crate::proxy) mod send;
