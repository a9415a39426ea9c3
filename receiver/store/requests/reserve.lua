-- Save a refund request and reserve its amount on the charge, unless other refunds of the charge prevent it: of several
-- concurrent requests, one wins. The caller holds the lease; if it dies, a worker finishes the request once the lease has
-- expired.
-- KEYS 1 requests:{request} 2 charge:{charge} 3 issuing 4 reserved 5 taken:{charge} 6 disputes:{permission} 7 refund:{first}
--      8 audit 9 findings:details; `first` is the first refund of the chain, for a retry
-- ARGV 1 id 2 owner 3 digest 4 token 5 most 6 refunded 7 minor_units 8 currency 9 began 10 ttl_ms 11 charge
--      12 since 13 reserved_since 14 most_refunds, then n and n ids that the caller named (`besides`), then field, value, …
--      `since` (ms; '' for never): a refund of the same amount that began then or later prevents it; `reserved_since`
--      is the same for a reservation.
-- An entry of the charge is `<minor units or ?> <state> <began> <currency or -> [conflict]`. Older versions wrote
-- `<minor units> <state>`: such an entry has no start time, and counts as new (ledger/charge_book.py).
-- A retry is prevented by a closed case (ledger/resolution.py). While the request is open, commit.lua closes no case.
-- A dispute that guards the charge prevents every refund of it. begin_try.lua looks once more before each attempt.
-- Returns {'reserved'}, {'closed'}, {'disputed'}, {'refused', reason, spent, member, entry, …} or {'known', {field, value, …}}.
-- Run twice by one owner it says 'reserved' again.
local owner = redis.call('HGET', KEYS[1], 'owner')
if owner == ARGV[2] then
  return {'reserved'}
end
if owner then
  return {'known', redis.call('HGETALL', KEYS[1])}
end

if redis.call('HEXISTS', KEYS[7], 'case_how') == 1 then
  return {'closed'}
end
if is_disputed(KEYS[6], ARGV[11]) then
  return {'disputed'}
end

local most, minor_units, most_refunds = tonumber(ARGV[5]), tonumber(ARGV[7]), tonumber(ARGV[14])
local besides, fields = {}, 16 + tonumber(ARGV[15])
for index = 16, fields - 1 do
  besides[ARGV[index]] = true
end

local sum, all, conflicts, same = 0, {}, {}, {}
local entries, damaged = read_book(KEYS[2], KEYS[9], besides, KEYS[5])
if damaged then
  return damaged
end
for _, entry in ipairs(entries) do
  local member, line = entry.member, entry.line
  if entry.state ~= 'Declined' or entry.conflict then
    table.insert(all, member)
    table.insert(all, line)
    -- An unknown amount uses up the whole charge, until a person has looked and names the refund.
    sum = sum + (entry.minor or (entry.is_named and 0 or most))
    if entry.conflict and not entry.is_named then
      table.insert(conflicts, member)
      table.insert(conflicts, line)
    end
    local since = tonumber(entry.state == 'Reserved' and ARGV[13] or ARGV[12])
    if not entry.is_named and may_be_the_same(entry, minor_units, ARGV[8], since) then
      table.insert(same, member)
      table.insert(same, line)
    end
  end
end

local spent = math.max(sum, tonumber(ARGV[6]))
local function refused(reason, others)
  local answer = {'refused', reason, string.format('%.0f', spent)}
  for _, text in ipairs(others) do
    table.insert(answer, text)
  end
  return answer
end
if #all / 2 >= most_refunds then
  return refused('too_many_refunds', all)
end
if #conflicts > 0 then
  return refused('charge_in_conflict', conflicts)
end
if #same > 0 then
  return refused('same_amount_refunded', same)
end
if spent + minor_units > most then
  return refused('allowance_exceeded', all)
end

append_to_audit(KEYS[8])
redis.call('HSET', KEYS[1], 'owner', ARGV[2], 'digest', ARGV[3], 'created_at', ARGV[9], 'since', ARGV[12], unpack(ARGV, fields))
redis.call('PEXPIRE', KEYS[1], ARGV[10])
redis.call('HSET', KEYS[2], 'request:' .. ARGV[1], ARGV[7] .. ' Reserved ' .. ARGV[9] .. ' ' .. ARGV[8])
redis.call('ZADD', KEYS[3], ARGV[4], ARGV[1])
redis.call('ZADD', KEYS[4], ARGV[9], ARGV[1])
return {'reserved'}
