-- Record the outcomes of attempts to deliver to one subscriber: delivered, retry (at `next`), dead, or dropped (a test).
-- KEYS 1 lane:{name} 2 owed:{name} 3 attempts:{name} 4 dead:{name} 5 deaths:{name} 6 copies:{name} 7 health:{name} 8 told?, then
--      the trail of the refund of each outcome
-- ARGV 1 now 2 most_dead 3 ms between two probes, then of each outcome 12 items: 1 id 2 fixed_id 3 token 4 outcome 5 next
--      6 attempts 7 dead_entry 8 failed ('1', '0', '': no effect on the health) 9 error 10 until when the subscriber asked
--      for a pause ('': it did not) 11 line of the timeline ('': none) 12 number of operator events to publish, which follow
-- Returns for each outcome: 1, dead events dropped; or 0, 0, writing nothing, if the claim is no longer ours. Safe to run twice.
local now, most_dead, pause = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

local function count(field)
  local held = number(redis.call('HGET', KEYS[7], field), 0)
  redis.call('HSET', KEYS[7], field, string.format('%.0f', held >= 0 and held < 1e15 and held + 1 or 1))
end

local function drop_dead()
  local dropped = 0
  while redis.call('ZCARD', KEYS[5]) > most_dead do
    local ms, seq = string.match(redis.call('ZPOPMIN', KEYS[5])[1], '^0*(%d+)%-0*(%d+)$')
    if ms then
      redis.call('HDEL', KEYS[4], ms .. '-' .. seq)
    end
    dropped = dropped + 1
  end
  return dropped
end

local function finish(trail, at)
  local id, fixed_id, token, outcome, next, attempts, dead_entry, failed, error, hold, line, events = unpack(ARGV, at, at + 11)
  local score = redis.call('ZSCORE', KEYS[1], id)
  if not score or tonumber(score) ~= tonumber(token) then
    return 0, 0
  end
  if failed == '1' then
    count('streak')
    redis.call('HSET', KEYS[7], 'error', error, 'error_at', now, 'probe', string.format('%.0f', tonumber(now) + pause))
  elseif failed == '0' then
    redis.call('HSET', KEYS[7], 'streak', '0', 'probe', '0', 'success_at', now)
    redis.call('HDEL', KEYS[7], 'warned')
  end
  if hold ~= '' then
    redis.call('HSET', KEYS[7], 'hold', hold)
  end
  for index = at + 12, foreign[8] and 0 or at + 11 + tonumber(events) do
    redis.call('RPUSH', KEYS[8], ARGV[index])
  end
  if line ~= '' and not foreign[trail] then
    append_to_timeline(KEYS[trail], line)
  end
  if outcome == 'retry' then
    redis.call('HSET', KEYS[3], id, attempts)
    redis.call('ZADD', KEYS[1], next, id)
    return 1, 0
  end
  local dropped = 0
  if outcome == 'dead' then
    redis.call('HSET', KEYS[4], id, dead_entry)
    redis.call('ZADD', KEYS[5], 0, fixed_id)
    dropped = drop_dead()
  end
  if outcome == 'delivered' then
    count('delivered')
  end
  redis.call('ZREM', KEYS[1], id)
  redis.call('ZREM', KEYS[2], fixed_id)
  redis.call('HDEL', KEYS[3], id)
  redis.call('HDEL', KEYS[6], id)
  return 1, dropped
end

local answers, at = {}, 4
for trail = 9, #KEYS do
  local held, dropped = finish(trail, at)
  table.insert(answers, held)
  table.insert(answers, dropped)
  at = at + 12 + tonumber(ARGV[at + 11])
end
return answers
