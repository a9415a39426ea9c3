-- Put a test at the head of a subscriber's queue.
-- KEYS 1 subscribers 2 lane:{name} 3 copies:{name} 4 audit   ARGV 1 name 2 id 3 copy
-- Returns 1, or 0 if there is no such subscriber. Safe to run twice before it is claimed.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  return 0
end
append_to_audit(KEYS[4])
redis.call('HSET', KEYS[3], ARGV[2], ARGV[3])
redis.call('ZADD', KEYS[2], 'NX', 0, ARGV[2])
return 1
