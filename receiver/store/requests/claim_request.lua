-- Claim due refund requests. The score of each moves to the end of its lease, which is the claim's token.
-- A request whose last attempt never ended may have reached Amazon: after that, only a 2xx resolves it automatically.
-- Members that are not ids of requests are set aside.
-- KEYS issuing aside   ARGV now lease_ms limit
-- Returns {wait_ms, id, token, id, token, …}; wait_ms is -1 when nothing is scheduled. Never re-send.
local now = tonumber(ARGV[1])
local claimed = {0}
bring_back(KEYS[1], now)
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[3])) do
  local token = string.format('%.0f', now + tonumber(ARGV[2]))
  if id == '' or #id > 256 or string.find(id, '[^%w%p ]') then
    set_aside(KEYS[1], id, KEYS[2], 'not a request id; set aside')
  else
    redis.call('ZADD', KEYS[1], token, id)
    table.insert(claimed, id)
    table.insert(claimed, token)
  end
end
local next = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
claimed[1] = next and math.max(tonumber(next) - now, 0) or -1
return claimed
