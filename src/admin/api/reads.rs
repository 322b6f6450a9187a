//! Blocking reads, off the threads that serve connections.
//!
//! The store's reads block. They run on threads of their own, so many at once and no more: whoever asks for many pages
//! in parallel waits for his own, and the memory that pages take is bounded. Exports, which may last minutes, have
//! their own few places, so that they cannot keep a page waiting.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::ApiError;

/// How many reads run at once.
const MAX_READS: usize = 8;
/// How many exports and bulk imports run at once, of each.
const MAX_LONG: usize = 2;
/// How long one waits for its turn.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where blocking reads run.
#[derive(Debug)]
pub(in crate::admin) struct Reads {
    short: Arc<Semaphore>,
    exports: Arc<Semaphore>,
    imports: Arc<Semaphore>,
}

impl Default for Reads {
    fn default() -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        Reads { short: places(MAX_READS), exports: places(MAX_LONG), imports: places(MAX_LONG) }
    }
}

impl Reads {
    /// Runs `read` on a thread where it may block.
    ///
    /// # Errors
    /// 503 when it does not get its turn; those of `read`.
    pub(in crate::admin) async fn run<T, E, F>(&self, read: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        E: Into<ApiError> + Send + 'static,
        F: FnOnce() -> Result<T, E> + Send + 'static,
    {
        let _place = turn(&self.short).await?;
        blocking(read).await?.map_err(Into::into)
    }

    /// A place for an export, to be held while it runs.
    ///
    /// # Errors
    /// 503 when there is none.
    pub(in crate::admin) async fn export(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        turn(&self.exports).await
    }

    /// A place for a bulk import, to be held while it runs.
    ///
    /// # Errors
    /// 503 when there is none.
    pub(in crate::admin) async fn import(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        turn(&self.imports).await
    }
}

/// Runs `work` on a thread where it may block.
///
/// # Errors
/// 500 when it panics.
pub(in crate::admin) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    spawn_blocking(work).await.map_err(|error| {
        log::error!("admin: a read failed: {error}");
        ApiError::new(http::StatusCode::INTERNAL_SERVER_ERROR, "Internal error; the log says more")
    })
}

async fn turn(places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, ApiError> {
    match timeout(PATIENCE, Arc::clone(places).acquire_owned()).await {
        Ok(Ok(place)) => Ok(place),
        _ => Err(ApiError::unavailable("Too much is being asked at once; try again")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_more_than_so_many_at_once() {
        let reads = Reads::default();
        let places = [reads.export().await.unwrap(), reads.export().await.unwrap()];
        assert_eq!(reads.export().await.unwrap_err().status, 503);
        drop(places);
        assert!(reads.export().await.is_ok());
        assert_eq!(reads.run(|| Err::<(), _>(ApiError::not_found("x"))).await.unwrap_err().status, 404);
        assert_eq!(reads.run(|| Ok::<_, ApiError>(7)).await.unwrap(), 7);
    }
}
