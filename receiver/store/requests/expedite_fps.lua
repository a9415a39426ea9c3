-- Try an order now that waits for its next try. One that is being tried is left alone.
-- KEYS order issuing   ARGV 1 reference 2 now
-- Returns 1, or 0 where there is nothing to hurry. Safe to run twice.
-- A claim whose try has not begun loses its token by this: nothing is sent under it, and the order is claimed again.
local score = redis.call('ZSCORE', KEYS[2], ARGV[1])
if not score or tonumber(score) <= tonumber(ARGV[2]) or redis.call('HGET', KEYS[1], 'open') == '1' then
  return 0
end
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
return 1
