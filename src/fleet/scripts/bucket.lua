-- ARGV: numbers (the quota, left, want, ahead, divisor, debit, back, valid ms, number, known), holder.
-- Answers doubles in one string, too: granted, ahead, tokens, age in us, held by others, whether the key was missing,
-- whether the question was late.
local name, left, want, most, divisor, debit, back, valid, number, known = ARGV[2], read('<ddddddddd', ARGV[1], more)
local place = 1
while holders[place] and holders[place][1] < name do place = place + 1 end
local had = holders[place]
if had and had[1] ~= name then had = nil end
-- A later one came before: whoever asked has given this one up.
if had and number > 0 and number <= had[4] then return pack('<ddddddd', 0, 0, 0, 0, 0, 0, 1) end
local mine = {name, left, now + math.ceil(valid * 1100), number, 0, 0, 0}
if had then holders[place] = mine else table.insert(holders, place, mine) end
local others = had and out - had[2] or out
out = others + left
-- What comes back of what was held has had its room all the time.
local room = had and max(had[2] - left, 0) or 0
-- The answer to the last one was lost: it has taken nothing.
if had and had[4] > known then
  local carry
  carry, f = split(f + had[7], UNIT)
  local held = min(had[5], room)
  room = room - held
  add(had[5] + had[6] + carry, held)
end
t = t - debit
-- What is held for longer than it counts is nobody's any more.
if back > 0 and had then add(back, min(back, room)) end
local granted = min(max(t, 0), want)
t = t - granted
local ahead = min(math.floor(max(t, 0) / divisor), most)
t, out = t - ahead, out + ahead
mine[2], mine[5], mine[6] = left + ahead, ahead, granted + debit
if mine[2] == 0 and number == 0 then table.remove(holders, place) end
save()
return pack('<ddddddd', granted, ahead, t, math.floor(f / (hi * 1000000000 + lo)), others, kept and 0 or 1, 0)
