-- Write an operator event that waits into the stream, and owe it to those who ask for it. One whose keys are damaged is not
-- owed it.
-- KEYS 1 subscribers 2 events 3 told, then lane and owed of each who is owed it
-- ARGV 1 version of the subscribers 2 the event as it waits 3 now, then field, value, …
-- Returns 1; 0 if the event waits no more; -1 if the subscribers are others by now.
if (redis.call('HGET', KEYS[1], ':version') or '0') ~= ARGV[1] then
  return -1
end
if redis.call('LREM', KEYS[3], 1, ARGV[2]) == 0 then
  return 0
end
local id = redis.call('XADD', KEYS[2], '*', unpack(ARGV, 4))
for index = 4, #KEYS, 2 do
  if not foreign[index] and not foreign[index + 1] then
    redis.call('ZADD', KEYS[index], ARGV[3], id)
    redis.call('ZADD', KEYS[index + 1], 0, fixed_width(id))
  end
end
return 1
