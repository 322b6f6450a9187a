//! What only HTTP/2 has of a client.

pub(in crate::proxy) mod ends;
pub(in crate::proxy) mod request;
pub(in crate::proxy) mod sections;
pub(in crate::proxy) mod unseen;
pub(in crate::proxy) mod upload;
pub(in crate::proxy) mod windows;
