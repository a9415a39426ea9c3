-- Take refund requests that are due. The claim moves each to the end of its lease; that score is its token.
-- A request whose last try never ended may have reached Amazon: from then on only a 2xx settles it by itself.
-- A member that is no id of a request is set aside.
-- KEYS issuing aside   ARGV now lease_ms limit
-- Returns {wait_ms, id, token, id, token, …}; wait_ms is -1 when nothing is scheduled. Never re-send.
local now = tonumber(ARGV[1])
local claimed = {0}
bring_back(KEYS[1], now)
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[3])) do
  local token = string.format('%.0f', now + tonumber(ARGV[2]))
  if id == '' or #id > 256 or string.find(id, '[^%w%p ]') then
    set_aside(KEYS[1], id, KEYS[2], 'no id of a request; set aside')
  else
    redis.call('ZADD', KEYS[1], token, id)
    table.insert(claimed, id)
    table.insert(claimed, token)
  end
end
local next = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
claimed[1] = next and math.max(tonumber(next) - now, 0) or -1
return claimed
