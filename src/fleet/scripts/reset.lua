-- Full, but for what nodes hold. Answers: tokens.
-- KEYS[2], where there is one, remembers for 30 days that it was done: it is done once.
if KEYS[2] and not redis.call('SET', KEYS[2], '', 'NX', 'PX', 2592000000) then return {t} end
turn()
t, f, z, firm = c - out, 0, now, now + FIRM
save()
return {t}
