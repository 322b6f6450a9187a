-- KEYS: bucket. ARGV: capacity, rate (tokens/s, nanotokens/s), tokens. Answers: tokens.
-- Added once, above the capacity if need be.
local c, hi, lo = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local b = load(KEYS[1], c, hi, lo)
credit(b)
edit(b, c, hi, lo)
b.t = b.t + tonumber(ARGV[4])
save(KEYS[1], b)
return {b.t}
