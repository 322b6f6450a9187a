//! A header that has begun to come, and has its line in the log when it goes no further.

use bytes::BytesMut;
use pingora_core::protocols::Stream;

use crate::proxy::downstream::arrival::Arrival;
use crate::proxy::service::downstream::Downstream;

/// A header of which a part is there. If it is lost when this is dropped, that is logged: by its client, by us, or
/// since the server stops and drops it.
pub(super) struct BegunHead<'h> {
    pub(super) downstream: &'h Downstream,
    pub(super) stream: &'h mut Stream,
    pub(super) buffer: &'h mut BytesMut,
    pub(super) since: Arrival,
    /// Why it is lost, unless it is not.
    pub(super) lost: Option<&'static str>,
}

impl Drop for BegunHead<'_> {
    fn drop(&mut self) {
        if let Some(why) = self.lost {
            self.downstream.record_lost(self.stream, self.buffer, why, self.since);
        }
    }
}
