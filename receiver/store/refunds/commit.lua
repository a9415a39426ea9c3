-- Write a refund's state, history, next poll, events and what each subscriber is owed, in one step.
-- Guarded by the refund's revision and by the version of the subscriber list; the schedule is guarded by the claim's token.
-- KEYS 1 refund 2 history 3 due 4 hinted 5 hints 6 subscribers 7 events 8 old_state 9 new_state 10 old_reason
--      11 new_reason 12 charge 13 order 14 refreshed 15 backfill, then lane and owed of each subscriber that is owed
--      something: one whose keys are damaged is owed it later, by the backfill
-- ARGV 1 refund_id 2 expected_revision 3 subscribers_version 4 token 5 next 6 changed_at 7 history_line 8 history_cap
--      9 charge_entry 10 has_reason 11 has_order, then n and n values of the refund's hash, then the number of events, and for
--      each event: n and n values of its entry, m and m numbers of the subscribers (from 1, in the order of KEYS) owed it
-- Returns {'ok', stream id, …}, {'revision'} or {'subscribers'}. Run twice, the second time says 'revision'.
if (redis.call('HGET', KEYS[1], 'revision') or '0') ~= ARGV[2] then
  return {'revision'}
end
if (redis.call('HGET', KEYS[6], ':version') or '0') ~= ARGV[3] then
  return {'subscribers'}
end

local at = 12
local function take()
  local count = tonumber(ARGV[at])
  local values = {unpack(ARGV, at + 1, at + count)}
  at = at + count + 1
  return values
end

local refund_id, changed_at = ARGV[1], ARGV[6]
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(take()))
redis.call('RPUSH', KEYS[2], ARGV[7])
redis.call('LTRIM', KEYS[2], -tonumber(ARGV[8]), -1)
redis.call('ZREM', KEYS[8], refund_id)
redis.call('ZADD', KEYS[9], changed_at, refund_id)
redis.call('ZREM', KEYS[10], refund_id)
if ARGV[10] == '1' then
  redis.call('ZADD', KEYS[11], changed_at, refund_id)
end
if ARGV[11] == '1' then
  redis.call('ZADD', KEYS[13], changed_at, refund_id)
end
if ARGV[9] ~= '' then
  redis.call('HSET', KEYS[12], refund_id, ARGV[9])
end

local last = #KEYS > 15 and redis.call('XREVRANGE', KEYS[7], '+', '-', 'COUNT', 1)[1]
local before = last and last[1] or '0-0'
local written = {'ok'}
local count = tonumber(ARGV[at])
at = at + 1
for _ = 1, count do
  local id = redis.call('XADD', KEYS[7], '*', unpack(take()))
  table.insert(written, id)
  for _, number in ipairs(take()) do
    owe(15 + 2 * tonumber(number) - 1, KEYS[15], id, before, changed_at)
  end
  before = id
end

local score = redis.call('ZSCORE', KEYS[3], refund_id)
if score and tonumber(score) == tonumber(ARGV[4]) then
  if ARGV[5] == '' then
    redis.call('ZREM', KEYS[3], refund_id)
  else
    redis.call('ZADD', KEYS[3], ARGV[5], refund_id)
  end
  if not (redis.call('ZSCORE', KEYS[4], refund_id) or redis.call('ZSCORE', KEYS[14], refund_id)) then
    redis.call('HDEL', KEYS[5], refund_id)
  end
elseif ARGV[5] ~= '' then
  -- The holder of a claim schedules the next poll. Without a claim, the refund must still be scheduled here.
  redis.call('ZADD', KEYS[3], 'NX', ARGV[5], refund_id)
end
return written
