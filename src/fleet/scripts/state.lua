-- A shared bucket, as all its scripts read, credit and write it. In front of each of them.
-- KEYS: bucket, and more. ARGV: numbers as doubles in one string (capacity, rate in tokens/s and nanotokens/s, and more), and more.
--
-- Numbers in Lua are doubles: exact below 2^53. So a bucket is whole tokens and a rest in units of 10^-15 tokens, a
-- rate is whole tokens and nanotokens a second, and every product here stays below 9 * 10^15. Nothing is rounded.
-- TIME is read once: whether it goes on within a script differs between servers.
--
-- A bucket is one string of doubles as they are, and so is what is asked: to write digits and read them, and each value
-- and each command more, takes longer than all that is computed.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local UNIT, LONGEST, MOST, LEAST = 1000000000000000, 9000000, 1200000000, -4000000000000000
-- How long after an operator filled a bucket or added to it questions under another quota do not change its own: they
-- are of nodes that have not heard of an edit before that, as all have within a second.
local FIRM = 1000000
local pack, read, fmod, max, min = struct.pack, struct.unpack, math.fmod, math.max, math.min

-- The quota from now on: to_c, to_hi + to_lo / 10^9. The bucket: t tokens and f / 10^15 of one at z, under the quota c,
-- hi + lo / 10^9, which is firm until then.
local key, to_c, to_hi, to_lo, more = KEYS[1], read('<ddd', ARGV[1])
local t, f, z, c, hi, lo, firm = to_c, 0, now, to_c, to_hi, to_lo, 0
-- Who holds what, in the order of their names: {name, amount, till, number, ahead, u, v}; and how much that is together.
-- A holder's last question, of that number, took u tokens and v / 10^15, and `ahead` to hold.
local holders, out = {}, 0
local kept = redis.call('GET', key)
if kept then
  local at
  t, f, z, c, hi, lo, firm, at = read('<ddddddd', kept)
  while at <= #kept do
    local name, amount, till, number, ahead, u, v, next = read('<Hc0dddddd', kept, at)
    if till >= now then
      holders[#holders + 1] = {name, amount, till, number, ahead, u, v}
      out = out + amount
    end
    at = next
  end
end

-- By no other clock than this one.
local function is_firm()
  return now < firm and firm <= now + FIRM
end

local function split(n, by)
  local rest = fmod(n, by)
  return (n - rest) / by, rest
end

-- What a holder's last question took comes back when its answer was lost: no more of it than there is room for. Had it
-- not been taken, what was earned since would not all have found room.
local function fit()
  local u, v = c - out - t, 0
  if f > 0 then u, v = u - 1, UNIT - f end
  for i = 1, #holders do
    local held = holders[i]
    if u < 0 then
      held[6], held[7] = 0, 0
    elseif held[6] > u or held[6] == u and held[7] > v then
      held[6], held[7] = u, v
    end
    u, v = u - held[6], v - held[7]
    if v < 0 then u, v = u - 1, v + UNIT end
  end
end

-- Not above what the capacity leaves beside what nodes hold; what was granted above it stays, and so do those of the
-- tokens that have had their room.
local function add(tokens, roomed)
  local cap = c - out
  if t + tokens < cap then t = t + tokens else t, f = max(cap, t + roomed), 0 end
  fit()
end

-- Kept as long as it is not the same as a missing one: full, and nobody holds anything or asked a moment ago, nor is its
-- quota firm.
local function save()
  t = max(LEAST, min(t, MOST))
  fit()
  local count = #holders
  if t == c and count == 0 and not is_firm() then
    redis.call('DEL', key)
    return
  end
  local state, last = pack('<ddddddd', t, f, z, c, hi, lo, firm), is_firm() and firm or now
  for i = 1, count do
    local held = holders[i]
    state = state .. pack('<Hc0dddddd', #held[1], unpack(held))
    if held[3] > last then last = held[3] end
  end
  if t > c then
    redis.call('SET', key, state)
    return
  end
  local micros = (c - t) * UNIT / (hi * 1000000000 + lo)
  if z > now then micros = micros + z - now end
  micros = max(micros, last - now)
  redis.call('SET', key, state, 'PX', min(math.ceil(micros / 1000) + 1000, 100000000000000))
end

-- What was earned since z, and not more than there is room for.
local micros = now - z
if micros < -1000000 then
  -- A clock that steps back: a little is waited for, more is another clock's time.
  z = now
elseif micros >= 0 then
  local seconds, rest = split(micros, 1000000)
  if seconds > LONGEST then seconds, rest = LONGEST, 0 end
  local whole, part = split(rest * hi, 1000000)
  local of_lo, left = split(seconds * lo, 1000000000)
  local carry
  carry, f = split(f + part * 1000000000 + left * 1000000 + rest * lo, UNIT)
  z = z + seconds * 1000000 + rest
  add(seconds * hi + whole + of_lo + carry, 0)
end

-- Another quota from now on: clamped, but for what was above the old one.
local function turn()
  if c == to_c and hi == to_hi and lo == to_lo then return end
  local above = max(0, t + out - c)
  local below, cap = t - above, to_c - out
  if below >= cap then below, f = cap, 0 end
  t, c, hi, lo = below + above, to_c, to_hi, to_lo
  fit()
end
if not is_firm() then turn() end
