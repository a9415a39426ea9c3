-- Make a request unclear if its progress since a backup is unknown. A person then repeats or settles it.
-- KEYS 1 requests:{request} 2 issuing 3 reserved 4 unclear
-- ARGV 1 id 2 now, then field, value, …
-- Returns 1, or 0 if the request is not reserved. Run twice, it returns 0 the second time.
if redis.call('HGET', KEYS[1], 'state') ~= 'reserved' then
  return 0
end
redis.call('HSET', KEYS[1], 'state', 'unclear', 'unknown', '1', 'open', '0', 'at', ARGV[2], unpack(ARGV, 3))
redis.call('PERSIST', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZADD', KEYS[4], ARGV[2], ARGV[1])
return 1
