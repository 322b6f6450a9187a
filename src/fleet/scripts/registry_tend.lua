-- Keeps the table of all clients, a piece at a time: folds a bulk in, or drops what tells of clients that were deleted long ago.
-- KEYS: meta, all, the bulks that are not folded in, and of the first of them the stage. ARGV: the caller, how large a piece is, for how many
-- microseconds deletions are kept, for how many seconds a stage is kept that is folded in, and the mark of that stage.
-- Answers MORE or REST, and the mark of the first bulk that is not folded in.
local meta = redis.call('HMGET', KEYS[1], 'generation', 'tender', 'tended', 'folded', 'place', 'trim')
if not meta[1] then return {'REST', ''} end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local bulk, place = redis.call('LINDEX', KEYS[3], 0) or '', meta[5] or '0'
-- One at a time. Who ends in between is waited for a second.
if meta[2] and meta[2] ~= ARGV[1] and now < tonumber(meta[3]) then return {'REST', bulk} end
if bulk == '' and place == '0' and meta[6] and now < tonumber(meta[6]) then return {'REST', ''} end
if bulk ~= '' and bulk ~= ARGV[5] then return {'MORE', bulk} end
redis.call('HSET', KEYS[1], 'tender', ARGV[1], 'tended', string.format('%.0f', now + 1000000))
if bulk ~= '' then
  local from, size = tonumber(meta[4] or '0'), 3 * tonumber(ARGV[2])
  local items = redis.call('LRANGE', KEYS[4], from, from + size - 1)
  for at = 1, #items - 2, 3 do
    if is_newer(redis.call('HGET', KEYS[2], items[at]), items[at + 1], items[at + 2]) then
      redis.call('HSET', KEYS[2], items[at], items[at + 1] .. items[at + 2])
    end
  end
  if #items == size then
    redis.call('HSET', KEYS[1], 'folded', string.format('%.0f', from + size))
  else
    redis.call('LPOP', KEYS[3])
    redis.call('HDEL', KEYS[1], 'folded')
    redis.call('EXPIRE', KEYS[4], ARGV[4])
  end
  return {'MORE', redis.call('LINDEX', KEYS[3], 0) or ''}
end
local found, keep = redis.call('HSCAN', KEYS[2], place, 'COUNT', ARGV[2]), tonumber(ARGV[3])
for at = 1, #found[2], 2 do
  local change = found[2][at + 1]
  local micros = tonumber(change:match('^%d+ (%-?%d+) '))
  if micros + keep < now and change:find('"action":"delete"', 1, true) then redis.call('HDEL', KEYS[2], found[2][at]) end
end
local last = found[1] == '0'
redis.call('HSET', KEYS[1], 'place', found[1], 'trim', string.format('%.0f', last and now + 3600000000 or now))
return {last and 'REST' or 'MORE', ''}
