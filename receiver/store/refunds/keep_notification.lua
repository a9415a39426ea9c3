-- Keep a notification that was not understood, and drop the oldest ones beyond the limits on number, age and bytes.
-- KEYS 1 unrecognized 2 unrecognized:details 3 unrecognized:messages
-- ARGV 1 id 2 now 3 digest 4 details 5 message 6 most 7 most_bytes 8 kept_for_ms
-- Returns new | repeated | altered. Safe to run twice.
local id, outcome = ARGV[1], 'new'
local held = redis.call('HGET', KEYS[2], id)
if held and string.sub(held, 3, 66) ~= ARGV[3] then
  -- The same MessageId with another text: both are authentic, so both are kept.
  id, outcome = id .. '-' .. string.sub(ARGV[3], 1, 8), 'altered'
  held = redis.call('HGET', KEYS[2], id)
end
if held then
  return 'repeated'
end
redis.call('ZADD', KEYS[1], ARGV[2], id)
redis.call('HSET', KEYS[2], id, ARGV[4])
redis.call('HSET', KEYS[3], id, ARGV[5])

local oldest, bytes = tonumber(ARGV[2]) - tonumber(ARGV[8]), 0
local kept = redis.call('ZRANGE', KEYS[1], 0, -1, 'REV', 'WITHSCORES')
for at = 1, #kept, 2 do
  bytes = bytes + redis.call('HSTRLEN', KEYS[3], kept[at])
  local is_over = at > 2 * tonumber(ARGV[6]) or bytes > tonumber(ARGV[7]) or number(kept[at + 1], 0) < oldest
  if is_over and kept[at] ~= id then
    redis.call('ZREM', KEYS[1], kept[at])
    redis.call('HDEL', KEYS[2], kept[at])
    redis.call('HDEL', KEYS[3], kept[at])
  end
end
for _, key in ipairs(KEYS) do
  redis.call('PEXPIRE', key, ARGV[8])
end
return outcome
