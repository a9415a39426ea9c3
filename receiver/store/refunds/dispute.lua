-- Record what a notification says about a dispute, and make it due now. A claim of it ends: its holder asked Amazon before
-- the notification. The `seen` mark only saves work, so it is written last.
-- KEYS 1 seen:{message} 2 disputes:{permission} 3 disputes_due?
-- ARGV 1 dispute 2 the value as it was read ('': none) 3 the new value 4 digest 5 ttl_ms 6 now 7 member ('': not to be asked)
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
if ARGV[7] ~= '' and not foreign[3] then
  redis.call('ZADD', KEYS[3], ARGV[6], ARGV[7])
end
redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[5])
return seen and 'altered' or 'new'
