-- Send events again: dead ones, and others that are still in the stream. Their attempts start from zero.
-- KEYS 1 lane:{name} 2 owed:{name} 3 attempts:{name} 4 dead:{name} 5 deaths:{name} 6 copies:{name} 7 events 8 subscribers 9 audit
-- ARGV 1 now 2 name, then id, fixed_id, …   The act is written if there is an event to send.
-- A dead event brings its own copy, so the stream need not keep it. Events that already wait are left alone.
-- Returns {dead, again, waiting, missing}: how many of each there were. Run a second time, all of them wait.
local counts = {0, 0, 0, 0}
if redis.call('HEXISTS', KEYS[8], ARGV[2]) == 0 then
  return {0, 0, 0, (#ARGV - 2) / 2}
end
local is_audited = false
local function audited(kind)
  if not is_audited then
    append_to_audit(KEYS[9])
    is_audited = true
  end
  return kind
end
for index = 3, #ARGV, 2 do
  local id, fixed = ARGV[index], ARGV[index + 1]
  local dead = redis.call('HGET', KEYS[4], id)
  local kind = 4
  if redis.call('ZSCORE', KEYS[1], id) then
    kind = 3
  elseif dead then
    kind = audited(1)
    redis.call('HSET', KEYS[6], id, dead)
    redis.call('ZADD', KEYS[1], ARGV[1], id)
  elseif redis.call('XRANGE', KEYS[7], id, id)[1] then
    kind = audited(2)
    redis.call('ZADD', KEYS[1], ARGV[1], id)
    redis.call('ZADD', KEYS[2], 0, fixed)
  end
  if kind < 3 then
    redis.call('HDEL', KEYS[4], id)
    redis.call('ZREM', KEYS[5], fixed)
    redis.call('HDEL', KEYS[3], id)
  end
  counts[kind] = counts[kind] + 1
end
return counts
