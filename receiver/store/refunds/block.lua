-- Amazon answered 429: give out no token of this call before `until`.
-- KEYS 1 throttle:{call}   ARGV now until
local now = tonumber(ARGV[1])
local _, _, blocked = read_throttle(KEYS[1], now, math.huge, 0)
blocked = math.max(blocked, math.min(tonumber(ARGV[2]), now + LONGEST_BLOCK))
redis.call('HSET', KEYS[1], 'tokens', 0, 'at', ARGV[1], 'blocked', string.format('%.0f', blocked))
return 1
