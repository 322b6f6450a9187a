-- A shared bucket, as all its scripts read, credit and write it. In front of each of them.
--
-- Numbers in Lua are doubles: exact below 2^53. So a bucket is whole tokens and a rest in units of 10^-15 tokens, a
-- rate is whole tokens and nanotokens a second, and every product here stays below 9 * 10^15. Nothing is rounded.
-- TIME is read once: whether it goes on within a script differs between servers.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local UNIT, LONGEST, MOST, LEAST = 1000000000000000, 9000000, 1200000000, -4000000000000000

local function split(n, by)
  local rest = math.fmod(n, by)
  return (n - rest) / by, rest
end

local function text(...)
  local parts = {}
  for i, n in ipairs({...}) do parts[i] = string.format('%.0f', n) end
  return table.concat(parts, ' ')
end

-- The bucket of a key: t tokens and f / 10^15 of one at z, under the quota c, hi + lo / 10^9; and who holds what.
local function load(key, c, hi, lo)
  local b = {t = c, f = 0, z = now, c = c, hi = hi, lo = lo, holders = {}, gone = {}, missing = true}
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    if fields[i] == 's' then
      local n = {}
      for part in string.gmatch(fields[i + 1], '%S+') do n[#n + 1] = tonumber(part) end
      b.t, b.f, b.z, b.c, b.hi, b.lo, b.missing = n[1], n[2], n[3], n[4], n[5], n[6], false
    else
      local n = {}
      for part in string.gmatch(fields[i + 1], '%d+') do n[#n + 1] = tonumber(part) end
      local held = {amount = n[1], till = n[2], number = n[3] or 0, ahead = n[4] or 0, u = n[5] or 0, v = n[6] or 0}
      if held.till < now then b.gone[#b.gone + 1] = fields[i] else b.holders[fields[i]] = held end
    end
  end
  return b
end

local function out(b)
  local sum = 0
  for _, held in pairs(b.holders) do sum = sum + held.amount end
  return sum
end

-- What a holder's last question took, u tokens and v / 10^15, comes back when its answer was lost: no more of it than
-- there is room for. Had it not been taken, what was earned since would not all have found room.
local function fit(b)
  local names = {}
  for name, held in pairs(b.holders) do
    if held.u > 0 or held.v > 0 then names[#names + 1] = name end
  end
  if #names == 0 then return end
  table.sort(names)
  local u, v = b.c - out(b) - b.t, 0
  if b.f > 0 then u, v = u - 1, UNIT - b.f end
  for _, name in ipairs(names) do
    local held = b.holders[name]
    if u < 0 then
      held.u, held.v = 0, 0
    elseif held.u > u or held.u == u and held.v > v then
      held.u, held.v = u, v
    end
    u, v = u - held.u, v - held.v
    if v < 0 then u, v = u - 1, v + UNIT end
  end
end

-- Not above what the capacity leaves beside what nodes hold; what was granted above it stays.
local function add(b, tokens)
  local cap = b.c - out(b)
  if b.t + tokens >= cap then b.t, b.f = math.max(b.t, cap), 0 else b.t = b.t + tokens end
  fit(b)
end

-- What was earned since z, and not more than there is room for.
local function credit(b)
  local micros = now - b.z
  if micros < 0 then
    -- A clock that steps back: a little is waited for, more is another clock's time.
    if micros < -1000000 then b.z = now end
    return
  end
  local seconds, rest = split(micros, 1000000)
  if seconds > LONGEST then seconds, rest = LONGEST, 0 end
  local a, b1 = split(rest * b.hi, 1000000)
  local b2, c = split(seconds * b.lo, 1000000000)
  local carry, f = split(b.f + b1 * 1000000000 + c * 1000000 + rest * b.lo, UNIT)
  b.z = b.z + seconds * 1000000 + rest
  b.f = f
  add(b, seconds * b.hi + a + b2 + carry)
end

-- Another quota from now on: clamped, but for what was above the old one.
local function edit(b, c, hi, lo)
  if b.c == c and b.hi == hi and b.lo == lo then return end
  local above = math.max(0, b.t - b.c)
  local below, cap = b.t - above, c - out(b)
  if below >= cap then below, b.f = cap, 0 end
  b.t, b.c, b.hi, b.lo = below + above, c, hi, lo
  fit(b)
end

-- Kept as long as it is not the same as a missing one: full, and nobody holds anything or asked a moment ago.
local function save(key, b)
  b.t = math.max(LEAST, math.min(b.t, MOST))
  fit(b)
  local last = nil
  for _, held in pairs(b.holders) do last = math.max(last or 0, held.till) end
  if b.t == b.c and not last then
    redis.call('DEL', key)
    return
  end
  local fields = {'s', text(b.t, b.f, b.z, b.c, b.hi, b.lo)}
  for name, held in pairs(b.holders) do
    fields[#fields + 1] = name
    local taken = held.ahead > 0 or held.u > 0 or held.v > 0
    local rest = taken and string.format(':%.0f:%.0f:%.0f', held.ahead, held.u, held.v) or ''
    fields[#fields + 1] = string.format('%.0f:%.0f:%.0f', held.amount, held.till, held.number) .. rest
  end
  -- First: whoever held something until a moment ago may hold something again.
  if #b.gone > 0 then redis.call('HDEL', key, unpack(b.gone)) end
  redis.call('HSET', key, unpack(fields))
  if b.t > b.c then
    redis.call('PERSIST', key)
    return
  end
  local micros = math.max((b.c - b.t) * UNIT / (b.hi * 1000000000 + b.lo) + math.max(b.z - now, 0), (last or now) - now)
  redis.call('PEXPIRE', key, string.format('%.0f', math.min(math.ceil(micros / 1000) + 1000, 100000000000000)))
end

-- The microseconds that the rest of a token was earned in.
local function age(b)
  return math.floor(b.f / (b.hi * 1000000000 + b.lo))
end
