-- Take events of one subscriber that are due, as a lease whose score is the token.
-- KEYS lane events attempts subscribers   ARGV now lease_ms limit subscriber
-- Returns {wait_ms, {id, token, attempts, {field, value, …}}, …}; wait_ms is -1 when the lane is empty. Never re-send.
if redis.call('HEXISTS', KEYS[4], ARGV[4]) == 0 then
  return {-1}
end
local now = tonumber(ARGV[1])
local claimed = {0}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[3])) do
  local score = string.format('%.0f', now + tonumber(ARGV[2]))
  local entry = redis.call('XRANGE', KEYS[2], id, id)[1]
  redis.call('ZADD', KEYS[1], score, id)
  table.insert(claimed, {id, score, redis.call('HGET', KEYS[3], id) or '', entry and entry[2] or {}})
end
local next = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
claimed[1] = next and math.max(tonumber(next) - now, 0) or -1
return claimed
