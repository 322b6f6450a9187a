-- Adds changes of clients at the end of the line, if the caller has seen all that is in it.
-- KEYS: meta, all, log, and a stage if there is one. ARGV: generation, the caller's number and mark, the new mark, how many are answered at most,
-- the log's length; then of each change, or in triples in a fourth key, a stage, its client, its order ("version micros number ") and itself.
local meta = redis.call('HMGET', KEYS[1], 'generation', 'seq', 'mark')
if not meta[1] then return {'EMPTY'} end
if meta[1] ~= ARGV[1] then return {'OTHER'} end
local seq, mine = tonumber(meta[2]), tonumber(ARGV[2])
if seq < mine or (seq == mine and mine > 0 and meta[3] ~= ARGV[3]) then return {'LOST'} end
if seq > mine then
  local from = mine > 0 and string.format('%.0f-0', mine) or '-'
  local log = redis.call('XRANGE', KEYS[3], from, '+', 'COUNT', ARGV[5])
  return {'BEHIND', meta[2], meta[3], log}
end
local function add(id, order, change)
  seq = seq + 1
  redis.call('HSET', KEYS[2], id, order .. change)
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[6], string.format('%.0f-0', seq), 'm', ARGV[4], 'c', change)
end
for at = 7, #ARGV, 3 do add(ARGV[at], ARGV[at + 1], ARGV[at + 2]) end
if KEYS[4] then
  for from = 0, redis.call('LLEN', KEYS[4]) - 1, 3000 do
    local items = redis.call('LRANGE', KEYS[4], from, from + 2999)
    for at = 1, #items, 3 do add(items[at], items[at + 1], items[at + 2]) end
  end
  redis.call('DEL', KEYS[4])
end
if seq == mine then return {'DONE', meta[2]} end
redis.call('HSET', KEYS[1], 'seq', string.format('%.0f', seq), 'mark', ARGV[4])
return {'DONE', string.format('%.0f', seq)}
