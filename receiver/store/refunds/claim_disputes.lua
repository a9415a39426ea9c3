-- Claim due disputes and take one token of the throttle for each, in one step. The score of each moves to the end of its
-- lease, which is the claim's token.
-- KEYS 1 disputes_due 2 throttle:get_dispute   ARGV now lease_ms burst per_second limit
-- Returns {wait_ms, dispute, token, dispute, token, …}; wait_ms is -1 when nothing is scheduled. Never re-send.
local now, lease, burst, rate = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local tokens, at, blocked = read_throttle(KEYS[2], now, burst, rate)
bring_back(KEYS[1], now)

local claimed = {0}
local room = now >= blocked and math.min(tonumber(ARGV[5]), math.floor(tokens)) or 0
if room > 0 then
  for _, dispute in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, room)) do
    local token = string.format('%.0f', now + lease)
    redis.call('ZADD', KEYS[1], token, dispute)
    tokens = tokens - 1
    table.insert(claimed, dispute)
    table.insert(claimed, token)
  end
end
if #claimed > 1 then
  redis.call('HSET', KEYS[2], 'tokens', tostring(tokens), 'at', tostring(math.max(now, at)), 'blocked',
    string.format('%.0f', blocked))
end

local next = tonumber(redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2])
if not next then
  claimed[1] = -1
elseif next > now then
  claimed[1] = math.ceil(next - now)
else
  local refill = tokens < 1 and math.ceil((1 - tokens) * 1000 / rate) or 0
  claimed[1] = math.max(refill, math.ceil(blocked - now), 0)
end
return claimed
