//! HTTP/1.1 as bytes, whichever side they come from.

pub(in crate::proxy) mod chunked;
pub(in crate::proxy) mod keep_alive;
pub(in crate::proxy) mod lines;
pub(in crate::proxy) mod order;
pub(in crate::proxy) mod request_body;
pub(in crate::proxy) mod rewrite;
pub(in crate::proxy) mod trailers;
