-- Adds changes of clients at the end of the line, if the caller has seen all that is in it.
-- KEYS: meta, all, log, the bulks that are not folded in, and a stage if there is one. ARGV: generation, the caller's number and mark, the new
-- mark, how many are answered at most, the log's length, the caller; then of each change its client, its order ("version micros number ") and
-- itself, or how many the stage has of these. Or, in place of both, for how many microseconds nobody else may add; 0 when the caller does not
-- need that any more.
-- Answers the last number, and the mark of the first bulk that is not folded in.
local meta = redis.call('HMGET', KEYS[1], 'generation', 'seq', 'mark', 'holder', 'held')
if not meta[1] then return {'EMPTY'} end
if meta[1] ~= ARGV[1] then return {'OTHER'} end
local seq, mine = tonumber(meta[2]), tonumber(ARGV[2])
if seq < mine or (seq == mine and mine > 0 and meta[3] ~= ARGV[3]) then return {'LOST'} end
if ARGV[8] == '0' then
  if meta[4] == ARGV[7] then redis.call('HDEL', KEYS[1], 'holder', 'held') end
elseif ARGV[8] then
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
  if meta[4] and meta[4] ~= ARGV[7] and now < tonumber(meta[5]) then return {'HELD'} end
  if #ARGV == 8 and not KEYS[5] then
    redis.call('HSET', KEYS[1], 'holder', ARGV[7], 'held', string.format('%.0f', now + tonumber(ARGV[8])))
  end
end
if seq > mine then
  local from = mine > 0 and string.format('%.0f-0', mine) or '-'
  local log = redis.call('XRANGE', KEYS[3], from, '+', 'COUNT', ARGV[5])
  return {'BEHIND', meta[2], meta[3], log}
end
local function add(...)
  seq = seq + 1
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[6], string.format('%.0f-0', seq), 'm', ARGV[4], ...)
end
if KEYS[5] then
  if redis.call('LLEN', KEYS[5]) ~= 3 * tonumber(ARGV[8]) then return {'STAGE'} end
  redis.call('PERSIST', KEYS[5])
  redis.call('RPUSH', KEYS[4], ARGV[4])
  add('b', ARGV[8])
else
  for at = 8, #ARGV - 2, 3 do
    redis.call('HSET', KEYS[2], ARGV[at], ARGV[at + 1] .. ARGV[at + 2])
    add('c', ARGV[at + 2])
  end
end
if seq > mine then
  redis.call('HDEL', KEYS[1], 'holder', 'held')
  redis.call('HSET', KEYS[1], 'seq', string.format('%.0f', seq), 'mark', ARGV[4])
end
return {'DONE', string.format('%.0f', seq), redis.call('LINDEX', KEYS[4], 0) or ''}
