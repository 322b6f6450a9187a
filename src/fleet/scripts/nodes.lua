-- KEYS: nodes. ARGV: how many us a node counts, node, process (20 digits of where it is, and its own); version and leased,
-- but for one that leaves.
-- Answers: node, version, seen (us), leased, of each that counts; and whether one elsewhere has this node's name.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local key, node, process, counts = KEYS[1], ARGV[2], ARGV[3], tonumber(ARGV[1])
local mine, elsewhere = redis.call('HGET', key, node), 0
if mine then
  local at, last = string.match(mine, '^(%d+):%d+:(%d+):')
  if last ~= process and string.sub(last, 1, 20) ~= string.sub(process, 1, 20) and tonumber(at) + counts >= now then
    elsewhere = 1
  end
end
if ARGV[4] then
  redis.call('HSET', key, node, string.format('%.0f:%s:%s:%s', now, ARGV[5], process, ARGV[4]))
else
  -- Not what another process of the same node, its next version, says.
  if mine and string.match(mine, '^%d+:%d+:(%d+):') == process then redis.call('HDEL', key, node) end
end
local fields, seen = redis.call('HGETALL', key), {}
for i = 1, #fields, 2 do
  local at, leased, version = string.match(fields[i + 1], '^(%d+):(%d+):%d+:(.*)$')
  if tonumber(at) + counts < now then
    redis.call('HDEL', key, fields[i])
  else
    seen[#seen + 1] = fields[i]
    seen[#seen + 1] = version
    seen[#seen + 1] = at
    seen[#seen + 1] = leased
  end
end
redis.call('PEXPIRE', key, string.format('%.0f', math.ceil(counts / 1000)))
seen[#seen + 1] = elsewhere
return seen
