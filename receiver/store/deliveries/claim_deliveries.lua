-- Claim due events of subscribers. The score of a claimed event is the end of its lease, and the token of the claim. One
-- message holds at most `most` events.
-- KEYS 1 subscribers 2 events, then of each subscriber: lane owed attempts copies dead deaths health aside:lane, of which owed,
--      dead and deaths are needed to finish a claim
-- ARGV 1 now 2 lease_ms, then of each subscriber: messages subscriber most window_ms rate (a second; 0: any) failures after which
--      only one probe at a time is sent (0: never) '1': only tests (score 0), while the subscriber is paused
-- Returns {{entry, …}, {wait_ms, {id, token, attempts, place, copy}, …}, …}; wait_ms is -1 if the queue is empty. Each entry is
-- returned once: the lengths of its fields and values, a line end, and all of them. Its place is 0 if the stream does not have it.
-- Never re-send.
local now, lease = tonumber(ARGV[1]), tonumber(ARGV[2])

local function joined(texts)
  local lengths = {}
  for index, text in ipairs(texts) do
    lengths[index] = #text
  end
  return table.concat(lengths, ' ') .. '\n' .. table.concat(texts)
end

-- The place of an entry among those to return; nil if this is no id.
local entries, places = {}, {}
local function place_of(id)
  if not places[id] then
    local found = fixed_width(id) and redis.pcall('XRANGE', KEYS[2], id, id)
    if not found or found.err then
      return nil
    end
    if found[1] then
      table.insert(entries, joined(found[1][2]))
    end
    places[id] = found[1] and #entries or 0
  end
  return places[id]
end

local function claim(keys, at_arg)
  local lane, attempts, copies, health, aside = KEYS[keys], KEYS[keys + 2], KEYS[keys + 3], KEYS[keys + 6], KEYS[keys + 7]
  local messages, subscriber, most, window, rate, breaker, tests_only = unpack(ARGV, at_arg, at_arg + 6)
  if redis.call('HEXISTS', KEYS[1], subscriber) == 0 then
    return {-1}
  end
  local room, tests = tonumber(messages), tests_only == '1'
  most, window, rate, breaker = tonumber(most), tonumber(window), tonumber(rate), tonumber(breaker)
  local held = redis.call('HMGET', health, 'tokens', 'at', 'streak', 'probe', 'not_before', 'hold')
  local at, probe, not_before = number(held[2], now), number(held[4], 0), number(held[5], 0)
  local hold = number(held[6], 0)
  if at > now + 1000 then
    at = now
  end
  bring_back(lane, now)

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
  elseif redis.call('ZCOUNT', lane, '-inf', 0) > 0 then
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

  local claimed = {0}
  if gate() == 0 then
    if window > 0 or probing then
      room = 1
    end
    if rate > 0 then
      room = math.min(room, math.floor(tokens))
    end
    local score = string.format('%.0f', now + lease)
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', lane, '-inf', tests and 0 or now, 'LIMIT', 0, room * most)) do
      local place = place_of(id)
      if not place then
        set_aside(lane, id, aside, 'not an event id; set aside')
      else
        redis.call('ZADD', lane, score, id)
        local copy = place == 0 and redis.call('HGET', copies, id) or ''
        table.insert(claimed, {id, score, redis.call('HGET', attempts, id) or '', place, copy})
      end
    end
    if #claimed > 1 then
      tokens, at = tokens - math.ceil((#claimed - 1) / most), math.max(now, at)
      not_before, probe = now + window, now + lease
      redis.call('HSET', health, 'tokens', tostring(tokens), 'at', string.format('%.0f', at),
        'not_before', string.format('%.0f', not_before))
      if probing then
        redis.call('HSET', health, 'probe', string.format('%.0f', probe))
      end
    end
  end
  local next = redis.call('ZRANGEBYSCORE', lane, '-inf', tests and 0 or '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
  claimed[1] = next and math.max(math.ceil(tonumber(next) - now), gate(), 0) or -1
  return claimed
end

local answer = {entries}
for index = 0, (#KEYS - 2) / 8 - 1 do
  table.insert(answer, claim(3 + index * 8, 3 + index * 7))
end
return answer
