-- Remove a subscriber with everything that it was owed.
-- KEYS subscribers lane owed attempts dead   ARGV name
-- Returns 1, or 0 if there was none.
local removed = redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4], KEYS[5])
if removed == 1 then
  redis.call('HINCRBY', KEYS[1], ':version', 1)
end
return removed
