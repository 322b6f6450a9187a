-- Whether a change of a client is newer than the one that is there: by its order ("version micros number "), or as a client that is made anew
-- by who has forgotten that it was deleted, half a day or more after that.
local function is_newer(there, order, change)
  if not there then return true end
  local pattern = '^(%d+) (%-?%d+) (%d+) '
  local v, u, n = there:match(pattern)
  local w, x, m = order:match(pattern)
  v, u, w, x = tonumber(v), tonumber(u), tonumber(w), tonumber(x)
  -- Numbers have more digits than a double.
  if w > v or (w == v and (x > u or (x == u and (#m > #n or (#m == #n and m > n))))) then return true end
  return x - u >= 43200000000 and change:find('"action":"create"', 1, true) ~= nil
end
