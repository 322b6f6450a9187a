//! The hooks of Pingora's request loop, and what it sees of both connections.

pub(in crate::proxy) mod backend_side;
pub(in crate::proxy) mod headers;
pub(in crate::proxy) mod hooks;
pub(in crate::proxy) mod http2_session;
pub(in crate::proxy) mod loan;
pub(in crate::proxy) mod peer;
pub(in crate::proxy) mod send;
