-- KEYS: turns. ARGV: holder, slots that it wants to hold, the most of all, valid ms. Answers: held, held by others.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local key, mine = KEYS[1], 'n:' .. ARGV[1]
local use, most, till = tonumber(ARGV[2]), tonumber(ARGV[3]), now + math.ceil(tonumber(ARGV[4]) * 1100)
local fields, others, last, gone = redis.call('HGETALL', key), 0, 0, {}
for i = 1, #fields, 2 do
  local count, ends = string.match(fields[i + 1], '^(%d+):(%d+)$')
  if tonumber(ends) < now then
    gone[#gone + 1] = fields[i]
  elseif fields[i] ~= mine then
    others, last = others + tonumber(count), math.max(last, tonumber(ends))
  end
end
local held = math.min(use, math.max(most - others, 0))
if held > 0 then
  redis.call('HSET', key, mine, string.format('%.0f:%.0f', held, till))
  last = math.max(last, till)
else
  gone[#gone + 1] = mine
end
if #gone > 0 then redis.call('HDEL', key, unpack(gone)) end
if last > 0 then redis.call('PEXPIRE', key, string.format('%.0f', math.ceil((last - now) / 1000) + 1000)) end
return {held, others}
