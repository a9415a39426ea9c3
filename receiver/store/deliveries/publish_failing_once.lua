-- Have operators told of a subscriber that fails, once until it succeeds again.
-- KEYS 1 health 2 told   ARGV the operator event as it waits
-- Returns 1 if this was the once, else 0. Run twice it tells once.
if redis.call('HEXISTS', KEYS[1], 'warned') == 1 then
  return 0
end
redis.call('RPUSH', KEYS[2], ARGV[1])
redis.call('HSET', KEYS[1], 'warned', 'yes')
return 1
