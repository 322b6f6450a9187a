-- Makes a registry where there is none, or begins a new generation of one that has lost something.
-- KEYS: meta, log. ARGV: lineage, generation, secret, the generation that has lost ("" where there is to be none).
local meta = redis.call('HMGET', KEYS[1], 'lineage', 'generation', 'secret', 'seq', 'mark')
if (meta[2] or '') == ARGV[4] then
  redis.call('DEL', KEYS[2])
  if not meta[1] then
    redis.call('HSET', KEYS[1], 'lineage', ARGV[1], 'secret', ARGV[3])
  end
  redis.call('HSET', KEYS[1], 'generation', ARGV[2], 'seq', '1', 'mark', '0')
  meta = redis.call('HMGET', KEYS[1], 'lineage', 'generation', 'secret', 'seq', 'mark')
end
return meta
