-- Amazon answered 429: no token of this call before `until`.
-- KEYS throttle   ARGV now until
local blocked = tonumber(redis.call('HGET', KEYS[1], 'blocked') or 0)
redis.call('HSET', KEYS[1], 'tokens', 0, 'at', ARGV[1], 'blocked', string.format('%.0f', math.max(blocked, tonumber(ARGV[2]))))
return 1
