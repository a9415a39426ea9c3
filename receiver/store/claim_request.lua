-- Take refund requests that are due. The claim moves each to the end of its lease; that score is its token.
-- A request whose last try never ended may have reached Amazon: from then on only a 2xx settles it by itself.
-- KEYS issuing   ARGV now lease_ms limit
-- Returns {wait_ms, id, token, id, token, …}; wait_ms is -1 when nothing is scheduled. Never re-send.
local now = tonumber(ARGV[1])
local claimed = {0}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[3])) do
  local token = string.format('%.0f', now + tonumber(ARGV[2]))
  redis.call('ZADD', KEYS[1], token, id)
  table.insert(claimed, id)
  table.insert(claimed, token)
end
local next = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
claimed[1] = next and math.max(tonumber(next) - now, 0) or -1
return claimed
