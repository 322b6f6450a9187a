//! Who asks, and whether it may: plain values in and out. Every answer of our own is made here.

pub(in crate::proxy) mod admit;
pub(in crate::proxy) mod affinity;
pub(in crate::proxy) mod certificate;
pub(in crate::proxy) mod changes;
pub(in crate::proxy) mod explain;
pub(in crate::proxy) mod grpc;
pub(in crate::proxy) mod headers;
pub(in crate::proxy) mod identify;
pub(in crate::proxy) mod own_lines;
pub(in crate::proxy) mod policies;
pub(in crate::proxy) mod policy_settings;
pub(in crate::proxy) mod problem;
pub(in crate::proxy) mod rate_headers;
pub(in crate::proxy) mod rejection;
pub(in crate::proxy) mod request_id;
pub(in crate::proxy) mod rules;
pub(in crate::proxy) mod settings;
pub(in crate::proxy) mod site;
pub(in crate::proxy) mod split;
pub(in crate::proxy) mod standing;
pub(in crate::proxy) mod sticky;
