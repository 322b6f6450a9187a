-- Adds those changes of clients that are newer than what is there, whatever the caller has seen.
-- KEYS: meta, all, log. ARGV: generation, the new mark, the log's length; then as in publish.
local generation = redis.call('HGET', KEYS[1], 'generation')
if generation ~= ARGV[1] then return {'OTHER'} end
local seq, begun = tonumber(redis.call('HGET', KEYS[1], 'seq')), 0
for at = 4, #ARGV, 3 do
  if is_newer(redis.call('HGET', KEYS[2], ARGV[at]), ARGV[at + 1], ARGV[at + 2]) then
    seq, begun = seq + 1, 1
    redis.call('HSET', KEYS[2], ARGV[at], ARGV[at + 1] .. ARGV[at + 2])
    redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[3], string.format('%.0f-0', seq), 'm', ARGV[2], 'c', ARGV[at + 2])
  end
end
if begun == 1 then redis.call('HSET', KEYS[1], 'seq', string.format('%.0f', seq), 'mark', ARGV[2]) end
return {'DONE', string.format('%.0f', seq), ''}
