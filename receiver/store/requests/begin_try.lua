-- Record that an attempt is about to be sent, unless something that became known after the amount was reserved prevents it: a
-- request may wait for days while Amazon refuses our requests. If the previous attempt never ended, it may have reached Amazon.
-- KEYS 1 requests:{request} 2 issuing 3 charge:{charge} 4 taken:{charge} 5 disputes:{permission} 6 findings:details
-- ARGV 1 id 2 token 3 charge 4 minor_units 5 currency, then the ids that the caller named (`besides`)
-- Returns {'send'}; {''} if the claim is no longer ours, or the request needs no more attempts; {'disputed'}; or
-- {'refused', reason, '0', member, entry, …}. Only after 'send' may be sent. Never re-send.
-- Other refunds are looked at only where every attempt is known to have done nothing: else one of them may be this request's own,
-- and Amazon answers a repetition with it. A refund that another request has become was admitted beside this reservation.
if not holds_claim(KEYS[2], ARGV[1], ARGV[2]) or redis.call('HGET', KEYS[1], 'state') ~= 'reserved' then
  return {''}
end
local held = redis.call('HMGET', KEYS[1], 'open', 'unknown', 'since', 'created_at')
local unknown = held[1] == '1' or held[2] == '1'

local function others()
  local minor_units, currency = tonumber(ARGV[4]), ARGV[5]
  local besides, conflicts, same, waiting = {}, {}, {}, 0
  for index = 6, #ARGV do
    besides[ARGV[index]] = true
  end
  local entries, damaged = read_book(KEYS[3], KEYS[6], besides, KEYS[4])
  if damaged then
    return damaged
  end
  for _, entry in ipairs(entries) do
    local member, line = entry.member, entry.line
    if member ~= 'request:' .. ARGV[1] and not entry.is_named then
      local alike = may_be_the_same(entry, minor_units, currency, tonumber(held[3] or held[4]))
      if entry.conflict then
        table.insert(conflicts, member)
        table.insert(conflicts, line)
      elseif entry.state == 'Reserved' then
        waiting = waiting + (alike and 1 or 0)
      elseif alike and entry.state ~= 'Declined' and redis.call('HEXISTS', KEYS[4], member) == 0 then
        table.insert(same, member)
        table.insert(same, line)
      end
    end
  end
  if #conflicts > 0 then
    return {'refused', 'charge_in_conflict', '0', unpack(conflicts)}
  end
  -- A refund that a notification names before its request was answered belongs to one of the waiting requests.
  if #same / 2 > waiting then
    return {'refused', 'same_amount_refunded', '0', unpack(same)}
  end
end

local found = is_disputed(KEYS[5], ARGV[3]) and {'disputed'} or (not unknown and others())
if found and found.err then
  return found
end
if held[1] == '1' then
  redis.call('HSET', KEYS[1], 'unknown', '1')
end
if found then
  return found
end
redis.call('HSET', KEYS[1], 'open', '1')
redis.call('HINCRBY', KEYS[1], 'tries', 1)
return {'send'}
