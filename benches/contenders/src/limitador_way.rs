//! The crate `limitador`, with counters that are cached and written to Redis every second at the latest, as it comes.
//!
//! It counts in windows: what a quota lets in at once is the limit of a window as long as that takes to come back, so
//! that over any time it promises as much as a bucket.

use std::collections::HashMap;

use limitador::AsyncRateLimiter;
use limitador::limit::{Context, Expression, Limit, Namespace};
use limitador::storage::redis::CachedRedisStorage;

use crate::{Fallible, Quota, Way};

/// One instance.
pub struct LimitadorWay {
    limiter: AsyncRateLimiter,
    namespace: Namespace,
}

impl Way for LimitadorWay {
    const NAME: &'static str = "limitador, cached";

    async fn open(url: &str, _: usize, _: usize, quota: Quota) -> Fallible<Self> {
        let limiter = AsyncRateLimiter::new_with_storage(Box::new(CachedRedisStorage::new(url).await?));
        let window = u64::from(quota.capacity / quota.rate);
        let client: Expression = "client".try_into().map_err(|_| "an expression that limitador does not take")?;
        limiter.add_limit(Limit::new("bench", u64::from(quota.capacity), window, Vec::new(), [client]));
        Ok(LimitadorWay { limiter, namespace: "bench".into() })
    }

    async fn decide(&self, client: usize) -> bool {
        let of = Context::from(HashMap::from([("client".to_owned(), client.to_string())]));
        let checked = self.limiter.check_rate_limited_and_update(&self.namespace, &of, 1).await;
        checked.is_ok_and(|checked| !checked.limited)
    }

    fn trips(&self) -> Option<u64> {
        // It does not tell.
        Some(0)
    }
}
