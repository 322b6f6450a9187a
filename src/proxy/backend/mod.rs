//! A backend's side of an exchange: its connections, and its answers as they are read from them.

pub(in crate::proxy) mod answer;
pub(in crate::proxy) mod body;
pub(in crate::proxy) mod connection;
pub(in crate::proxy) mod sink;
pub(in crate::proxy) mod stream;
