-- Record what a notification says about a dispute. The `seen` mark only saves work, so it is written last.
-- KEYS seen disputes   ARGV 1 dispute 2 the value as it was read ('': none) 3 the new value 4 digest 5 ttl_ms
-- Returns new | repeated | altered | collision (the value was changed meanwhile). Safe to run twice.
local seen = redis.call('GET', KEYS[1])
if seen == ARGV[4] then
  return 'repeated'
end
local held = redis.call('HGET', KEYS[2], ARGV[1]) or ''
if held ~= ARGV[2] and held ~= ARGV[3] then
  return 'collision'
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[5])
return seen and 'altered' or 'new'
