-- Claim due events of one subscriber. The score of a claimed event is the end of its lease, and the token of the claim.
-- One message holds at most `most` events.
-- KEYS 1 lane:{name} 2 events 3 attempts:{name} 4 subscribers 5 copies:{name} 6 health:{name} 7 aside:lane:{name}
--      8 owed:{name} 9 dead:{name} 10 deaths:{name}, of which the last three are needed to finish a claim
-- ARGV 1 now 2 lease_ms 3 messages 4 subscriber 5 most 6 window_ms 7 rate (a second; 0: any) 8 failures after which only one
--      probe at a time is sent (0: never) 9 '1': only tests (score 0), while the subscriber is paused
-- Returns {wait_ms, {id, token, attempts, entry, copy}, …}; wait_ms is -1 if the queue is empty. `entry` is one text, which a
-- reader needs to read once for all queues: the lengths of the fields and values, a line end, and all of them. Never re-send.
if redis.call('HEXISTS', KEYS[4], ARGV[4]) == 0 then
  return {-1}
end
local now, lease, room, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[5])
local window, rate, breaker = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local tests = ARGV[9] == '1'
local held = redis.call('HMGET', KEYS[6], 'tokens', 'at', 'streak', 'probe', 'not_before', 'hold')
local at, probe, not_before = number(held[2], now), number(held[4], 0), number(held[5], 0)
local hold = number(held[6], 0)
if at > now + 1000 then
  at = now
end
bring_back(KEYS[1], now)

-- At most `rate` messages in any second: a tenth of them at once, the rest as time passes. If `at` is in the future, the
-- clock was ahead: it is ignored.
local burst = math.max(1, math.floor(rate / 10))
local refill = rate >= 10 and rate - burst or rate
local tokens = math.min(burst, math.max(0, number(held[1], burst)) + math.max(0, now - at) * refill / 1000)
local probing = breaker > 0 and number(held[3], 0) >= breaker

-- A subscriber that asks for a pause gets one of at most a minute. A requested test does not wait for it. A later time is
-- not trusted.
if hold <= now or hold > now + 60000 then
  hold = now
elseif redis.call('ZCOUNT', KEYS[1], '-inf', 0) > 0 then
  hold, tests = now, true
end

local function gate()
  local wait = hold - now
  if not_before > now and not_before <= now + window then
    wait = math.max(wait, not_before - now)
  end
  if probing and probe > now and probe <= now + lease then
    wait = math.max(wait, probe - now)
  end
  if rate > 0 and tokens < 1 then
    wait = math.max(wait, math.ceil((1 - tokens) * 1000 / refill))
  end
  return wait
end

local function joined(texts)
  local lengths = {}
  for index, text in ipairs(texts) do
    lengths[index] = #text
  end
  return table.concat(lengths, ' ') .. '\n' .. table.concat(texts)
end

local claimed = {0}
if gate() == 0 then
  if window > 0 or probing then
    room = 1
  end
  if rate > 0 then
    room = math.min(room, math.floor(tokens))
  end
  local score = string.format('%.0f', now + lease)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', tests and 0 or now, 'LIMIT', 0, room * most)) do
    local found = fixed_width(id) and redis.pcall('XRANGE', KEYS[2], id, id)
    if not found or found.err then
      set_aside(KEYS[1], id, KEYS[7], 'not an event id; set aside')
    else
      local entry = found[1]
      redis.call('ZADD', KEYS[1], score, id)
      local copy = not entry and redis.call('HGET', KEYS[5], id) or ''
      table.insert(claimed, {id, score, redis.call('HGET', KEYS[3], id) or '', entry and joined(entry[2]) or '', copy or ''})
    end
  end
  if #claimed > 1 then
    tokens, at = tokens - math.ceil((#claimed - 1) / most), math.max(now, at)
    not_before, probe = now + window, now + lease
    redis.call('HSET', KEYS[6], 'tokens', tostring(tokens), 'at', string.format('%.0f', at),
      'not_before', string.format('%.0f', not_before))
    if probing then
      redis.call('HSET', KEYS[6], 'probe', string.format('%.0f', probe))
    end
  end
end
local next = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', tests and 0 or '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
claimed[1] = next and math.max(math.ceil(tonumber(next) - now), gate(), 0) or -1
return claimed
