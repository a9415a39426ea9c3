-- Remove a subscriber with everything that it is owed.
-- KEYS 1 subscribers 2 backfill 3 audit, then all keys of this subscriber   ARGV 1 name
-- Returns 1, or 0 if there was none.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then
  append_to_audit(KEYS[3])
end
local removed = redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('DEL', unpack(KEYS, 4))
if removed == 1 then
  redis.call('HINCRBY', KEYS[1], ':version', 1)
end
return removed
