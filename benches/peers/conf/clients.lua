-- Requests with the keys of {{count}} clients, spread Zipf(1.1): the inverse of the continuous distribution. Ranks are
-- scattered over the keys, so that neighbours in rank are none in the proxy's tables.
local format, random, floor = string.format, math.random, math.floor
local count, span = {{count}}, 1 - {{count}} ^ -0.1
local threads = 0
function setup(thread)
  threads = threads + 1
  thread:set("seed", threads)
end
function init() math.randomseed(seed) end
function request()
  local rank = floor((1 - random() * span) ^ -10) - 1
  return format("GET / HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: key-%07d\r\n\r\n", rank * 7919 % count)
end
