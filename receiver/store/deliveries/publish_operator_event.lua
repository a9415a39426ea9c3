-- Move a queued operator event into the stream, and owe it to the subscribers that want it. A subscriber whose keys are
-- damaged is skipped.
-- KEYS 1 subscribers 2 events 3 told, then lane and owed of each subscriber that wants it
-- ARGV 1 version of the subscribers 2 the event as queued 3 now, then field, value, …
-- Returns 1; 0 if the event is no longer queued; -1 if the subscribers have changed meanwhile.
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
