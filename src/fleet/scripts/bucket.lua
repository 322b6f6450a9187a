-- KEYS: bucket. ARGV: capacity, rate (tokens/s, nanotokens/s), holder, left, want, ahead, divisor, debit, back, valid ms.
-- Answers: granted, ahead, tokens, age in us, held by others, whether the key was missing.
local n = {}
for i = 1, #ARGV do n[i] = tonumber(ARGV[i]) end
local key, name = KEYS[1], 'n:' .. ARGV[4]
local b = load(key, n[1], n[2], n[3])
credit(b)
edit(b, n[1], n[2], n[3])
local had = b.holders[name]
b.holders[name] = nil
local others = out(b)
b.t = b.t - n[9]
if n[10] > 0 then add(b, n[10], b.c - others - n[5]) end
local granted = math.min(math.max(b.t, 0), n[6])
b.t = b.t - granted
local ahead = math.min(n[7], math.floor(math.max(b.t, 0) / n[8]))
b.t = b.t - ahead
local mine = n[5] + ahead
if mine > 0 then
  b.holders[name] = {mine, now + math.ceil(n[11] * 1100)}
elseif had then
  b.gone[#b.gone + 1] = name
end
save(key, b)
return {granted, ahead, b.t, age(b), others, b.missing and 1 or 0}
