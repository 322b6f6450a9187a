-- KEYS: turns. ARGV: holder, requests that run there, with them those that may begin there, further ones that it wants,
-- the most of all, valid ms, the question's number. Answers: held, held by others.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local key, mine = KEYS[1], 'n:' .. ARGV[1]
local running, keeps, wants = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local most, till, number = tonumber(ARGV[5]), now + math.ceil(tonumber(ARGV[6]) * 1100), tonumber(ARGV[7])
local fields, had, late, others, last, gone = redis.call('HGETALL', key), 0, false, 0, 0, {}
for i = 1, #fields, 2 do
  local count, ends, said = string.match(fields[i + 1], '^(%d+):(%d+):(%d+)$')
  if tonumber(ends) < now then
    -- Its own is written or taken away below.
    if fields[i] ~= mine then gone[#gone + 1] = fields[i] end
  elseif fields[i] == mine then
    had, late = tonumber(count), tonumber(said) > number
  else
    others, last = others + tonumber(count), math.max(last, tonumber(ends))
  end
end
-- A later question was answered before.
if late then return {had, others} end
-- What runs there now is at least what ran, and at most what could begin.
local held = math.max(running, math.min(keeps, had), math.min(keeps + wants, most - others))
if held > 0 then
  redis.call('HSET', key, mine, string.format('%.0f:%.0f:%.0f', held, till, number))
  last = math.max(last, till)
else
  gone[#gone + 1] = mine
end
for i = 1, #gone do redis.call('HDEL', key, gone[i]) end
if last > 0 then redis.call('PEXPIRE', key, string.format('%.0f', math.ceil((last - now) / 1000) + 1000)) end
return {held, others}
