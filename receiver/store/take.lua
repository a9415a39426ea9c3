-- Take one token of a call's throttle, for a request that somebody waits for.
-- KEYS throttle   ARGV now burst per_second
-- Returns 0 when it was taken, else in how many ms there will be one. Never re-send.
local now, burst, rate = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local held = redis.call('HMGET', KEYS[1], 'tokens', 'at', 'blocked')
local tokens, at, blocked = tonumber(held[1] or burst), tonumber(held[2] or now), tonumber(held[3] or 0)
if at > now + 1000 then
  -- The clock was ahead and has gone back: what it wrote moves with it.
  blocked, at = blocked - (at - now), now
  redis.call('HSET', KEYS[1], 'at', string.format('%.0f', at), 'blocked', string.format('%.0f', blocked))
end
if now > at then
  tokens = math.min(burst, tokens + (now - at) * rate / 1000)
end
if now < blocked then
  return blocked - now
end
if tokens < 1 then
  return math.ceil((1 - tokens) * 1000 / rate)
end
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens - 1), 'at', tostring(math.max(now, at)))
return 0
