//! When the API closes, for answers that go on for long.
//!
//! A stop waits for the answers that are under way, within its grace period. An answer that nobody ends, such as a
//! stream of events, would hold it for all of that; so whoever streams watches this, and ends.

use axum::extract::Request;
use tokio::sync::watch;

/// Tells when the API closes. An extension of each request that came over a connection.
#[derive(Clone, Debug)]
pub(in crate::admin) struct Stopping(pub(in crate::admin) watch::Receiver<bool>);

impl Stopping {
    /// Waits until the API over which `request` came closes; for ever when it came over none.
    pub(in crate::admin) fn of(request: &Request) -> impl Future<Output = ()> + Send + 'static {
        let stopping = request.extensions().get::<Stopping>().cloned();
        async move {
            let Some(Stopping(mut stopping)) = stopping else { return std::future::pending().await };
            // Nobody is left who could stop it when there is no sender.
            if stopping.wait_for(|stopping| *stopping).await.is_err() {
                std::future::pending().await
            }
        }
    }
}
