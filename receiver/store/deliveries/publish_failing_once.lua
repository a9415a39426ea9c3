-- Queue an operator event about a failing subscriber, once until it succeeds again.
-- KEYS 1 health:{name} 2 told   ARGV the operator event as queued
-- Returns 1 if the event was queued, else 0. Run twice, it queues one.
if redis.call('HEXISTS', KEYS[1], 'warned') == 1 then
  return 0
end
redis.call('RPUSH', KEYS[2], ARGV[1])
redis.call('HSET', KEYS[1], 'warned', 'yes')
return 1
