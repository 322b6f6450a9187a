//! A client's side: what comes over its connection, how long that may take, and how many there may be.

pub(in crate::proxy) mod activity;
pub(in crate::proxy) mod address;
pub(in crate::proxy) mod arrival;
pub(in crate::proxy) mod arrived;
pub(in crate::proxy) mod budget;
pub(in crate::proxy) mod closing;
pub(in crate::proxy) mod coming;
pub(in crate::proxy) mod half_closed;
pub(in crate::proxy) mod head;
pub(in crate::proxy) mod head_reading;
pub(in crate::proxy) mod http2;
pub(in crate::proxy) mod introduction;
pub(in crate::proxy) mod pace;
pub(in crate::proxy) mod parcel;
pub(in crate::proxy) mod patience;
pub(in crate::proxy) mod seats;
pub(in crate::proxy) mod socket;
