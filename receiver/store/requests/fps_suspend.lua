-- Make an order unclear if its progress since a backup is unknown: no worker sends it again.
-- KEYS 1 fps:{reference} 2 fps_issuing   ARGV 1 reference, then field, value, …
-- Returns 1, or 0 if the order is not reserved. Run twice, it returns 0 the second time.
if redis.call('HGET', KEYS[1], 'state') ~= 'reserved' then
  return 0
end
redis.call('HSET', KEYS[1], 'state', 'unclear', 'unknown', '1', 'open', '0', unpack(ARGV, 2))
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
