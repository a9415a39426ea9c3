-- Record a new finding with its event and what each subscriber is owed, in one step. Guarded by the record as it was read,
-- and by the version of the subscriber list.
-- KEYS 1 findings:{kind} 2 findings:details 3 findings:closed 4 subscribers 5 events 6 backfill, then lane and owed of
--      each subscriber that is owed the event: one whose keys are damaged is owed it later, by the backfill
-- ARGV 1 refund 2 name 3 the record as it was read ('': none) 4 the new one 5 since when 6 subscribers_version 7 now, then
--      field, value, … of the event's entry
-- Returns ok | changed | subscribers (changed meanwhile). Run twice, the second time says 'changed'.
if (redis.call('HGET', KEYS[2], ARGV[2]) or '') ~= ARGV[3] then
  return 'changed'
end
if (redis.call('HGET', KEYS[4], ':version') or '0') ~= ARGV[6] then
  return 'subscribers'
end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[4])
redis.call('ZADD', KEYS[1], ARGV[5], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[2])
local last = redis.call('XREVRANGE', KEYS[5], '+', '-', 'COUNT', 1)[1]
local id = redis.call('XADD', KEYS[5], '*', unpack(ARGV, 8))
for lane = 7, #KEYS, 2 do
  owe(lane, KEYS[6], id, last and last[1] or '0-0', ARGV[7])
end
return 'ok'
