-- Write a hint: the refund is due now. The `seen` mark saves work only, and is written last.
-- KEYS seen hinted hints   ARGV refund now digest ttl_ms hint
-- Returns new | repeated | altered. Safe to run twice.
local seen = ARGV[3] ~= '' and redis.call('GET', KEYS[1])
if seen and seen == ARGV[3] then
  return 'repeated'
end
redis.call('HSET', KEYS[3], ARGV[1], ARGV[5])
redis.call('ZADD', KEYS[2], 'NX', ARGV[2], ARGV[1])
if ARGV[3] == '' then
  return 'new'
end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
return seen and 'altered' or 'new'
