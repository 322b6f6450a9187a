-- KEYS: bucket. ARGV: capacity, rate (tokens/s, nanotokens/s). Changes nothing.
-- Answers: tokens, thousandths of the next one, held by nodes.
local n = {}
for i = 1, #ARGV do n[i] = tonumber(ARGV[i]) end
local b = load(KEYS[1], n[1], n[2], n[3])
credit(b)
edit(b, n[1], n[2], n[3])
return {b.t, math.floor(b.f / 1000000000000), out(b)}
