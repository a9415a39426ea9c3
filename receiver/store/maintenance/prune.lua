-- Remove one final refund with its history and its index entries, unless something still needs it.
-- KEYS 1 refund:{refund} 2 history:{refund} 3 charge:{charge} 4 taken:{charge} 5 due 6 hinted 7 hints 8 events 9 state:{state}
--      10 reason:{reason} 11 order:{order} 12 requests:{request} 13 trail:{refund} 14 refreshed 15 open:details 16 second_looks
--      17 reported 18 settled, then owed of each subscriber
-- ARGV 1 refund_id 2 revision 3 changed_at, as the caller read them 4 before (ms; '' for any age)
--      5 the request that the refund is of, or '' 6 and 7 the range of fixed-width stream ids that its events lie in
--      8 most ids of one subscriber to look at 9 '1' to remove, '0' for a dry run
-- Returns one word: pruned, gone, changed, pending, conflict, legacy, open, young, scheduled, request_open, request_kept or owed.
-- Run twice, the second time says 'gone'.
-- Entries that count against the charge's allowance stay: Amazon sets no time limit to refunds of a charge, and its own
-- sum of them may lag.
local id = ARGV[1]
local held = redis.call('HMGET', KEYS[1], 'revision', 'changed', 'state', 'conflict', 'type')
local revision, changed, state, conflict, refund_type = held[1], held[2], held[3], held[4], held[5]
if not state then
  return 'gone'
end
if revision ~= ARGV[2] or changed ~= ARGV[3] then
  return 'changed'
end
if state ~= 'Refunded' and state ~= 'Declined' then
  return 'pending'
end
if conflict then
  return 'conflict'
end
if refund_type == 'FPS' then
  return 'legacy'
end
if redis.call('HEXISTS', KEYS[15], id) == 1 then
  return 'open'
end
if ARGV[4] ~= '' and tonumber(changed) >= tonumber(ARGV[4]) then
  return 'young'
end
local scheduled = redis.call('ZSCORE', KEYS[5], id) or redis.call('ZSCORE', KEYS[6], id) or redis.call('ZSCORE', KEYS[14], id)
if scheduled or redis.call('HEXISTS', KEYS[7], id) == 1 then
  return 'scheduled'
end
for _, name in ipairs(redis.call('HKEYS', KEYS[3])) do
  if string.sub(name, 1, 8) == 'request:' then
    return 'request_open'
  end
end
if (redis.call('HGET', KEYS[4], id) or '') ~= ARGV[5] then
  return 'changed'
end
if ARGV[5] ~= '' and redis.call('EXISTS', KEYS[12]) == 1 then
  return 'request_kept'
end

local function stream_id(fixed)
  local ms, seq = string.match(fixed, '^0*(%d+)%-0*(%d+)$')
  return ms .. '-' .. seq
end

local function is_of_refund(entry)
  for at = 1, #entry[2], 2 do
    if entry[2][at] == 'refundId' then
      return entry[2][at + 1] == id
    end
  end
  return false
end

local most = tonumber(ARGV[8])
for index = 19, #KEYS do
  local waiting = redis.call('ZRANGEBYLEX', KEYS[index], '[' .. ARGV[6], '[' .. ARGV[7], 'LIMIT', 0, most + 1)
  if #waiting > most then
    return 'owed'
  end
  for _, fixed in ipairs(waiting) do
    local event = stream_id(fixed)
    local entry = redis.call('XRANGE', KEYS[8], event, event)[1]
    if entry and is_of_refund(entry) then
      return 'owed'
    end
  end
end

if ARGV[9] ~= '1' then
  return 'pruned'
end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[13])
redis.call('ZREM', KEYS[9], id)
redis.call('ZREM', KEYS[10], id)
redis.call('ZREM', KEYS[11], id)
redis.call('ZREM', KEYS[16], id)
redis.call('HDEL', KEYS[4], id)
redis.call('HDEL', KEYS[17], id)
redis.call('HDEL', KEYS[18], id)
if state == 'Declined' then
  redis.call('HDEL', KEYS[3], id)
end
return 'pruned'
