-- Amazon answered 429: no token of this call before `until`.
-- KEYS throttle   ARGV now until
local now, held = tonumber(ARGV[1]), redis.call('HMGET', KEYS[1], 'at', 'blocked')
-- A clock that was ahead and has gone back: what it wrote moves with it.
local ahead = tonumber(held[1] or now) - now
local blocked = tonumber(held[2] or 0) - (ahead > 1000 and ahead or 0)
redis.call('HSET', KEYS[1], 'tokens', 0, 'at', ARGV[1], 'blocked', string.format('%.0f', math.max(blocked, tonumber(ARGV[2]))))
return 1
