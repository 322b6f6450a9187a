//! A connection from its first byte to its last: which way each of its requests goes.

mod begun_head;
pub(in crate::proxy) mod connection;
pub(in crate::proxy) mod direct;
pub(in crate::proxy) mod downstream;
pub(in crate::proxy) mod handshake;
pub(in crate::proxy) mod http2;
pub(in crate::proxy) mod introduce;
#[cfg(test)]
mod simulation;
mod stream_way;
