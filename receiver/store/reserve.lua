-- Write down a refund that is to be issued, and reserve its amount on the charge: of two that race for the last cents
-- one wins. The caller holds the lease; if it dies, a worker finishes the request when the lease has run out.
-- KEYS request charge issuing reserved disputes
-- ARGV 1 id 2 owner 3 digest 4 token 5 most 6 refunded 7 minor_units 8 entry 9 ttl_ms 10 now 11 charge, then field, value, …
-- An open dispute about the charge stops it: the buyer may have the money (store/disputes.py has the form).
-- Returns {'reserved'}, {'exceeded', spent}, {'disputed'} or {'known', {field, value, …}}. Run twice by one owner it says 'reserved' again.
local TYPES = {'hash', 'hash', 'zset', 'zset', 'hash'}
for index, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'none' and kind ~= TYPES[index] then
    return redis.error_reply('ERR ' .. key .. ' holds a ' .. kind .. ', not a ' .. TYPES[index])
  end
end
local owner = redis.call('HGET', KEYS[1], 'owner')
if owner == ARGV[2] then
  return {'reserved'}
end
if owner then
  return {'known', redis.call('HGETALL', KEYS[1])}
end
for _, told in ipairs(redis.call('HVALS', KEYS[5])) do
  local standing, charge = string.match(told, '^(%a+) (%S+) ')
  if standing ~= 'over' and (charge == nil or charge == '-' or charge == ARGV[11]) then
    return {'disputed'}
  end
end
local sum = 0
local entries = redis.call('HGETALL', KEYS[2])
for index = 2, #entries, 2 do
  local minor, state = string.match(entries[index], '^(%d+) (.+)$')
  if not minor then
    return redis.error_reply('ERR ' .. KEYS[2] .. ' holds an entry that is none: ' .. entries[index - 1])
  end
  if state ~= 'Declined' then
    sum = sum + tonumber(minor)
  end
end
local spent = math.max(sum, tonumber(ARGV[6]))
if spent + tonumber(ARGV[7]) > tonumber(ARGV[5]) then
  return {'exceeded', string.format('%.0f', spent)}
end
redis.call('HSET', KEYS[1], 'owner', ARGV[2], 'digest', ARGV[3], 'created_at', ARGV[10], unpack(ARGV, 12))
redis.call('PEXPIRE', KEYS[1], ARGV[9])
redis.call('HSET', KEYS[2], ARGV[8], ARGV[7] .. ' Reserved')
redis.call('ZADD', KEYS[3], ARGV[4], ARGV[1])
redis.call('ZADD', KEYS[4], ARGV[10], ARGV[1])
return {'reserved'}
