-- Owe a new subscriber a batch of earlier events, and advance its cursor, in one step.
-- KEYS 1 subscribers 2 backfill 3 lane:{name} 4 owed:{name} 5 events
-- ARGV 1 name 2 json (the subscriber for which the batch was chosen) 3 cursor 4 next cursor ('' when complete) 5 now,
-- then id, fixed_id, …
-- Returns 1; or 0, writing nothing, if the subscriber or its cursor has changed meanwhile.
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] or redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[3] then
  return 0
end
for index = 6, #ARGV, 2 do
  if redis.call('XRANGE', KEYS[5], ARGV[index], ARGV[index])[1] then
    redis.call('ZADD', KEYS[3], 'NX', ARGV[5], ARGV[index])
    redis.call('ZADD', KEYS[4], 0, ARGV[index + 1])
  end
end
if ARGV[4] == '' then
  redis.call('HDEL', KEYS[2], ARGV[1])
else
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[4])
end
return 1
