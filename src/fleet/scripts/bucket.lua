-- KEYS: bucket. ARGV: capacity, rate (tokens/s, nanotokens/s), holder, left, want, ahead, divisor, debit, back, valid ms,
-- number, known.
-- Answers: granted, ahead, tokens, age in us, held by others, whether the key was missing, whether the question was late.
local n = {}
for i = 1, #ARGV do n[i] = tonumber(ARGV[i]) end
local key, name = KEYS[1], 'n:' .. ARGV[4]
local b = load(key, n[1], n[2], n[3])
credit(b)
edit(b, n[1], n[2], n[3])
local had = b.holders[name]
-- A later one came before: whoever asked has given this one up.
if had and n[12] > 0 and n[12] <= had.number then return {0, 0, 0, 0, 0, 0, 1} end
b.holders[name] = nil
local others = out(b)
local mine = {amount = n[5], till = now + math.ceil(n[11] * 1100), number = n[12], ahead = 0, u = 0, v = 0}
b.holders[name] = mine
-- The answer to the last one was lost: it has taken nothing.
if had and had.number > n[13] then
  local carry, f = split(b.f + had.v, UNIT)
  b.f = f
  add(b, had.ahead + had.u + carry)
end
b.t = b.t - n[9]
-- What is held for longer than it counts is nobody's any more.
if n[10] > 0 and had then add(b, n[10]) end
local granted = math.min(math.max(b.t, 0), n[6])
b.t = b.t - granted
local ahead = math.min(n[7], math.floor(math.max(b.t, 0) / n[8]))
b.t = b.t - ahead
mine.amount, mine.ahead, mine.u = n[5] + ahead, ahead, granted + n[9]
if mine.amount == 0 and mine.number == 0 then
  b.holders[name] = nil
  if had then b.gone[#b.gone + 1] = name end
end
save(key, b)
return {granted, ahead, b.t, age(b), others, b.missing and 1 or 0, 0}
