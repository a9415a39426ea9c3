-- Take one token of a call's throttle, for a request that a caller waits for.
-- KEYS 1 throttle:{call}   ARGV now burst per_second leave (tokens that must be left)
-- Returns 0 if it was taken, else in how many ms there will be one. Never re-send.
local now, burst, rate, needed = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), 1 + tonumber(ARGV[4])
local tokens, at, blocked = read_throttle(KEYS[1], now, burst, rate)
redis.call('HSET', KEYS[1], 'at', string.format('%.0f', at), 'blocked', string.format('%.0f', blocked))
if now < blocked then
  return blocked - now
end
if tokens < needed then
  return math.ceil((needed - tokens) * 1000 / rate)
end
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens - 1), 'at', tostring(math.max(now, at)))
return 0
