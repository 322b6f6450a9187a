-- KEYS: bucket. ARGV: capacity, rate (tokens/s, nanotokens/s). Answers: tokens.
-- Full, but for what nodes hold.
local c, hi, lo = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local b = load(KEYS[1], c, hi, lo)
b.t, b.f, b.z, b.c, b.hi, b.lo = c - out(b), 0, now, c, hi, lo
save(KEYS[1], b)
return {b.t}
