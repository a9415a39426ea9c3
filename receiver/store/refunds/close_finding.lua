-- Close a finding, unless it was changed since it was read. It is kept for a while among the closed ones.
-- KEYS 1 findings:{kind} 2 findings:details 3 findings:closed
-- ARGV 1 refund 2 name 3 the record as it was read 4 the new one ('': remove it) 5 when it was closed
-- Returns 1, or 0 if it was changed meanwhile. Safe to run twice.
if (redis.call('HGET', KEYS[2], ARGV[2]) or '') ~= ARGV[3] then
  return 0
end
redis.call('ZREM', KEYS[1], ARGV[1])
if ARGV[4] == '' then
  redis.call('HDEL', KEYS[2], ARGV[2])
  redis.call('ZREM', KEYS[3], ARGV[2])
else
  redis.call('HSET', KEYS[2], ARGV[2], ARGV[4])
  redis.call('ZADD', KEYS[3], ARGV[5], ARGV[2])
end
return 1
