-- Take refunds that are due, each with one token of the throttle, in one step. A claim is a lease: the refund's time
-- moves to the lease's end, and that score is the claim's token.
-- Hints go first, but every fourth token goes to `due` while anything there is overdue.
-- KEYS throttle hinted due hints   ARGV now lease_ms burst per_second limit
-- Returns {wait_ms, refund, token, hint, refund, token, hint, …}; wait_ms is -1 when nothing is scheduled. Never re-send.
local now, lease, burst, rate, limit =
  tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

local held = redis.call('HMGET', KEYS[1], 'tokens', 'at', 'turn', 'blocked', 'last')
local tokens, at = tonumber(held[1] or burst), tonumber(held[2] or now)
local turn, blocked, last = tonumber(held[3] or 0), tonumber(held[4] or 0), tonumber(held[5] or 0)
if at > now + 1000 then
  -- The clock was ahead and has gone back: what it wrote moves with it.
  blocked, at = blocked - (at - now), now
end
if now > at then
  tokens = math.min(burst, tokens + (now - at) * rate / 1000)
end

local function next_score()
  -- No token is given out twice, also where two processes' clocks differ a little. A clock that was far ahead is forgotten.
  local score = now + lease
  last = (last >= score and last < score + lease) and last + 1 or score
  return last
end

local function pick()
  local hinted = redis.call('ZRANGE', KEYS[2], 0, 0)[1]
  local due = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, 1)[1]
  if due and (not hinted or turn % 4 == 3) then
    return due
  end
  return hinted
end

local claimed = {0}
local refund = nil
while now >= blocked and #claimed < 3 * limit do
  refund = pick()
  if not refund or tokens < 1 then
    break
  end
  tokens, turn = tokens - 1, turn + 1
  local score = next_score()
  redis.call('ZREM', KEYS[2], refund)
  redis.call('ZADD', KEYS[3], score, refund)
  table.insert(claimed, refund)
  table.insert(claimed, string.format('%.0f', score))
  table.insert(claimed, redis.call('HGET', KEYS[4], refund) or '')
end
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens), 'at', tostring(math.max(now, at)), 'turn', turn % 4,
  'blocked', string.format('%.0f', blocked), 'last', string.format('%.0f', last))

local function wait()
  if pick() then
    local refill = tokens < 1 and math.ceil((1 - tokens) * 1000 / rate) or 0
    return math.max(refill, blocked - now, 0)
  end
  local next = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')[2]
  return next and math.max(tonumber(next) - now, 0) or -1
end
claimed[1] = wait()
return claimed
