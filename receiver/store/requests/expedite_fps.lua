-- Make an order due now that waits for its next attempt. An order whose attempt is in progress is left alone.
-- KEYS 1 fps:{reference} 2 fps_issuing   ARGV 1 reference 2 now
-- Returns 1, or 0 if the order is not waiting. Safe to run twice.
-- If the order is claimed but its attempt has not begun, the claim loses its token: nothing is sent under it, and the order
-- is claimed again.
local score = redis.call('ZSCORE', KEYS[2], ARGV[1])
if not score or tonumber(score) <= tonumber(ARGV[2]) or redis.call('HGET', KEYS[1], 'open') == '1' then
  return 0
end
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
return 1
