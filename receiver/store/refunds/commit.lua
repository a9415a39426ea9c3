-- Write the state, history, next poll, events and what each subscriber is owed of a refund, in one step; with it, those of the
-- first refund of its chain of retries, if their case changes.
-- Guarded by each refund's revision and by the version of the subscriber list; the schedule is guarded by the claim's token.
-- KEYS 1 due 2 hinted 3 hints 4 subscribers 5 events 6 refreshed 7 backfill 8 open 9 open:details 10 closes
--      11 requests:{request} 12 audit 13 rejected 14 wave 15 wave:cases 16 second_looks, then for each refund: refund, history,
--      old_state, new_state, old_reason, new_reason, charge, order; then lane and owed of each subscriber that is owed
--      something: one whose keys are damaged is owed it later, by the backfill
-- ARGV 1 subscribers_version 2 token 3 next 4 history_cap 5 guards_request 6 takes 7 releases 8 to 15 the wave of
--      declines (below) 16 second_look 17 number of refunds; for each refund: refund_id, expected_revision, changed_at, history_line,
--      charge_entry, has_reason, has_order, open_details ('' if
--      it has no open case), n and n values of its hash; then the number of events, and for each event: n and n values of its
--      entry, m and m numbers of the subscribers (from 1, in the order of KEYS) owed it
--      A person's closing of a case: `guards_request` is the state in which the caller read the request that would reissue the
--      refund ('-' for no request; else ''). It must not be open, and must still have that state: once it ends, the next may begin.
--      `takes` is the refund that closes it, and can close no other. `releases` is the one that has closed it until now.
--      The wave: 8 '1' if the first refund's decline counts 9 since when declines count 10 the alarm that the wave has raised
--      11 the alarm that is raised now, '' if none 12 how many other refunds it is about 13 the first refunds of their chains,
--      separated by spaces 14 the first refund of a chain whose case is closed 15 the alarm that is over with it
-- Returns {'ok', stream id, …}, {'revision'}, {'subscribers'}, {'reissuing'}, {'wave'} or {'used'}. Run twice, the second time
-- says 'revision'.
local FIXED, OF_EACH = 16, 8
local at = 18
local function take()
  local count = tonumber(ARGV[at])
  local values = {unpack(ARGV, at + 1, at + count)}
  at = at + count + 1
  return values
end

local writes, first = {}, FIXED
for _ = 1, tonumber(ARGV[17]) do
  local write = {
    keys = {unpack(KEYS, first + 1, first + OF_EACH)},
    id = ARGV[at], expected = ARGV[at + 1], changed_at = ARGV[at + 2], line = ARGV[at + 3], entry = ARGV[at + 4],
    has_reason = ARGV[at + 5] == '1', has_order = ARGV[at + 6] == '1', open_details = ARGV[at + 7],
  }
  at = at + 8
  write.fields = take()
  if (redis.call('HGET', write.keys[1], 'revision') or '0') ~= write.expected then
    return {'revision'}
  end
  table.insert(writes, write)
  first = first + OF_EACH
end
if (redis.call('HGET', KEYS[4], ':version') or '0') ~= ARGV[1] then
  return {'subscribers'}
end
local refund_id, changed_at = writes[1].id, writes[1].changed_at
if ARGV[5] ~= '' then
  local state = redis.call('HGET', KEYS[11], 'state') or '-'
  if state == 'reserved' or state == 'unclear' then
    return {'reissuing'}
  end
  if state ~= ARGV[5] then
    return {'revision'}
  end
end

local REJECTED, WAVE, CASES, ENOUGH = KEYS[13], KEYS[14], KEYS[15], 3
local counts, since, known, raised = ARGV[8] == '1', tonumber(ARGV[9]), ARGV[10], ARGV[11]
local closed = ARGV[14]
if counts then
  local is_running = (tonumber(redis.call('HGET', WAVE, 'last')) or 0) >= since
  local alarm = is_running and redis.call('HGET', WAVE, 'alarm') or ''
  local others = redis.call('ZCOUNT', REJECTED, since, '+inf')
  if (tonumber(redis.call('ZSCORE', REJECTED, refund_id)) or 0) >= since then
    others = others - 1
  end
  local is_due = alarm == '' and others + 1 >= ENOUGH
  if alarm ~= known or is_due ~= (raised ~= '') or (is_due and others ~= tonumber(ARGV[12])) then
    return {'wave'}
  end
end
if closed ~= '' then
  local alarm = redis.call('HGET', CASES, closed) or ''
  local cases = alarm ~= '' and redis.call('HGETALL', CASES) or {}
  local ended = alarm
  for index = 1, #cases, 2 do
    if cases[index] ~= closed and cases[index + 1] == alarm then
      ended = ''
    end
  end
  if ended ~= ARGV[15] then
    return {'wave'}
  end
end
if ARGV[6] ~= '' then
  local holder = redis.call('HGET', KEYS[10], ARGV[6])
  if holder and holder ~= refund_id then
    return {'used'}
  end
end
append_to_audit(KEYS[12])
if ARGV[6] ~= '' then
  redis.call('HSET', KEYS[10], ARGV[6], refund_id)
end
if ARGV[7] ~= '' and redis.call('HGET', KEYS[10], ARGV[7]) == refund_id then
  redis.call('HDEL', KEYS[10], ARGV[7])
end

for _, write in ipairs(writes) do
  local refund, history, old_state, new_state, old_reason, new_reason, charge, order = unpack(write.keys)
  redis.call('DEL', refund)
  redis.call('HSET', refund, unpack(write.fields))
  redis.call('RPUSH', history, write.line)
  redis.call('LTRIM', history, -tonumber(ARGV[4]), -1)
  redis.call('ZREM', old_state, write.id)
  redis.call('ZADD', new_state, write.changed_at, write.id)
  redis.call('ZREM', old_reason, write.id)
  if write.has_reason then
    redis.call('ZADD', new_reason, write.changed_at, write.id)
  end
  if write.has_order then
    redis.call('ZADD', order, write.changed_at, write.id)
  end
  if write.entry ~= '' then
    redis.call('HSET', charge, write.id, write.entry)
  end
  if write.open_details ~= '' then
    redis.call('ZADD', KEYS[8], write.changed_at, write.id)
    redis.call('HSET', KEYS[9], write.id, write.open_details)
  else
    redis.call('ZREM', KEYS[8], write.id)
    redis.call('HDEL', KEYS[9], write.id)
  end
end

if counts then
  redis.call('ZADD', REJECTED, changed_at, refund_id)
  redis.call('ZREMRANGEBYSCORE', REJECTED, '-inf', '(' .. ARGV[9])
  local alarm = raised ~= '' and raised or known
  redis.call('HSET', WAVE, 'last', changed_at, 'alarm', alarm)
  for root in string.gmatch(alarm ~= '' and ARGV[13] or '', '%S+') do
    if redis.call('ZSCORE', KEYS[8], root) then
      redis.call('HSETNX', CASES, root, alarm)
    end
  end
end
if closed ~= '' then
  redis.call('HDEL', CASES, closed)
end

local last = #KEYS > first and redis.call('XREVRANGE', KEYS[5], '+', '-', 'COUNT', 1)[1]
local before = last and last[1] or '0-0'
local written = {'ok'}
local count = tonumber(ARGV[at])
at = at + 1
for _ = 1, count do
  local id = redis.call('XADD', KEYS[5], '*', unpack(take()))
  table.insert(written, id)
  for _, number in ipairs(take()) do
    owe(first + 2 * tonumber(number) - 1, KEYS[7], id, before, changed_at)
  end
  before = id
end

if holds_claim(KEYS[1], refund_id, ARGV[2]) then
  plan(KEYS[1], refund_id, ARGV[3])
  if not (redis.call('ZSCORE', KEYS[2], refund_id) or redis.call('ZSCORE', KEYS[6], refund_id)) then
    redis.call('HDEL', KEYS[3], refund_id)
  end
elseif ARGV[3] ~= '' then
  -- The holder of a claim schedules the next poll. Without a claim, the refund must still be scheduled here.
  redis.call('ZADD', KEYS[1], 'NX', ARGV[3], refund_id)
end
if ARGV[16] ~= '' and not redis.call('ZSCORE', KEYS[1], refund_id) then
  redis.call('ZADD', KEYS[16], ARGV[16], refund_id)
end
return written
