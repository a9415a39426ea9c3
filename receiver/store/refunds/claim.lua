-- Claim due refunds and take one token of the throttle for each, in one step. A claim is a lease: the refund's score moves
-- to the end of the lease, and that score is the claim's token.
-- Refunds with hints go first. Every fourth token goes to patient refunds while any of them is overdue. Patient refunds are
-- those in the schedule and in the refreshes; the two alternate, so that neither delays the other. At most `most_patient`
-- refunds of a claim are patient.
-- When no hint waits, patient refunds leave a quarter of the burst unused: for the next hints, and because Amazon's own
-- count may be a little lower than ours. Emptying the bucket completely leads to 429, which delays hints for seconds.
-- Second looks at final refunds come when nothing else is due, and leave half of the burst unused for what is due next. They
-- count as patient refunds, too; at most `most_second` refunds of a claim are second looks.
-- KEYS 1 throttle:{call} 2 hinted 3 due 4 hints 5 refreshed 6 second_looks
-- ARGV now lease_ms burst per_second limit most_patient most_second
-- Returns {wait_ms, refund, token, hint, patient, refund, token, hint, patient, …}; patient is 2 for a second look, 1 or 0.
-- wait_ms is -1 when nothing more is scheduled, or when the scheduled refunds have to wait for other claims to finish. Never
-- re-send.
local now, lease, burst, rate, limit = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local most_patient, most_second = tonumber(ARGV[6]), tonumber(ARGV[7])

local tokens, at, blocked = read_throttle(KEYS[1], now, burst, rate)
local held = redis.call('HMGET', KEYS[1], 'turn', 'last', 'patient')
local turn, last, patient_turn = number(held[1], 0), number(held[2], 0), number(held[3], 0)
bring_back(KEYS[3], now)
bring_back(KEYS[6], now)

local function next_score()
  -- No token is given out twice, even if two processes' clocks differ slightly. If `at` is far in the future, the clock was
  -- ahead: it is ignored.
  local score = now + lease
  last = (last >= score and last < score + lease) and last + 1 or score
  return last
end

local function overdue(key)
  return redis.call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, 1)[1]
end

local function pick_patient()
  if most_patient < 1 then
    return nil
  end
  local due, refreshed = overdue(KEYS[3]), overdue(KEYS[5])
  if due and refreshed then
    return patient_turn % 2 == 0 and due or refreshed
  end
  return due or refreshed
end

local function pick_second()
  if most_patient < 1 or most_second < 1 or overdue(KEYS[3]) or overdue(KEYS[5]) then
    return nil
  end
  return overdue(KEYS[6])
end

-- A refund, how patient it is, and how many tokens there must be.
local function pick()
  local hinted = redis.call('ZRANGE', KEYS[2], 0, 0)[1]
  local patient = pick_patient()
  if patient and not hinted then
    return patient, 1, 1 + math.floor(burst / 4)
  elseif patient and turn % 4 == 3 then
    return patient, 1, 1
  elseif hinted then
    return hinted, 0, 1
  end
  return pick_second(), 2, 1 + math.floor(burst / 2)
end

local claimed, count = {0}, 0
while now >= blocked and count < limit do
  local refund, patient, needed = pick()
  if not refund or tokens < needed then
    break
  end
  tokens, turn, count = tokens - 1, turn + 1, count + 1
  if patient > 0 then
    most_patient = most_patient - 1
  end
  if patient == 1 then
    patient_turn = patient_turn + 1
  elseif patient == 2 then
    most_second = most_second - 1
  end
  local score = next_score()
  for _, key in ipairs({KEYS[2], KEYS[5], KEYS[6]}) do
    redis.call('ZREM', key, refund)
  end
  redis.call('ZADD', KEYS[3], score, refund)
  table.insert(claimed, refund)
  table.insert(claimed, string.format('%.0f', score))
  table.insert(claimed, redis.call('HGET', KEYS[4], refund) or '')
  table.insert(claimed, patient)
end
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens), 'at', tostring(math.max(now, at)), 'turn', turn % 4,
  'blocked', string.format('%.0f', blocked), 'last', string.format('%.0f', last), 'patient', patient_turn % 2)

local function wait()
  local refund, _, needed = pick()
  if refund then
    local refill = tokens < needed and math.ceil((needed - tokens) * 1000 / rate) or 0
    return math.max(refill, blocked - now, 0)
  end
  local soonest, keys = -1, most_patient < 1 and {} or {KEYS[3], KEYS[5]}
  if #keys > 0 and most_second > 0 then
    table.insert(keys, KEYS[6])
  end
  for _, key in ipairs(keys) do
    local next = tonumber(redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2])
    if next and (soonest < 0 or next - now < soonest) then
      soonest = math.max(next - now, 0)
    end
  end
  return soonest
end
claimed[1] = wait()
return claimed
