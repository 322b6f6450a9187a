//! One Lua call a request, as Traefik's distributed rate limit does: a token bucket by the node's clock in a hash. Calls
//! of a moment share the connection and go out together.

use redis::aio::MultiplexedConnection;

use crate::{Fallible, Quota, Way};

const BUCKET: &str = r"
local rate, capacity, now = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local kept = redis.call('HMGET', KEYS[1], 'last', 'tokens')
local last, tokens = tonumber(kept[1]) or now, tonumber(kept[2]) or capacity
tokens = math.min(capacity, tokens + math.max(0, now - last) * rate)
local there = tokens >= 1
if there then tokens = tokens - 1 end
redis.call('HSET', KEYS[1], 'last', now, 'tokens', tokens)
redis.call('EXPIRE', KEYS[1], ARGV[4])
return there and 1 or 0";

/// One instance.
pub struct LuaWay {
    wire: MultiplexedConnection,
    sha: String,
    quota: Quota,
}

impl Way for LuaWay {
    const NAME: &'static str = "a Lua call a request";

    async fn open(url: &str, _: usize, _: usize, quota: Quota) -> Fallible<Self> {
        let mut wire = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
        let sha = redis::cmd("SCRIPT").arg("LOAD").arg(BUCKET).query_async(&mut wire).await?;
        Ok(LuaWay { wire, sha, quota })
    }

    async fn decide(&self, client: usize) -> bool {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let mut call = redis::cmd("EVALSHA");
        call.arg(&self.sha).arg(1).arg(format!("lua:{client}")).arg(self.quota.rate).arg(self.quota.capacity);
        call.arg(format!("{:.6}", now.as_secs_f64())).arg(self.quota.capacity / self.quota.rate + 1);
        call.query_async::<i64>(&mut self.wire.clone()).await.is_ok_and(|there| there == 1)
    }

    fn trips(&self) -> Option<u64> {
        None
    }
}
