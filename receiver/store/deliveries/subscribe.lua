-- Add a subscriber, or change one. Raises the version of the list, so that no commit uses an outdated list.
-- KEYS 1 subscribers 2 events 3 backfill 4 told 5 audit, then all keys of this subscriber: a new one is
--      refused if any has a wrong type
-- ARGV 1 name 2 json 3 mode (add | put | change) 4 before (`change`: only if this is the value) 5 version (`change`: only if
--      this is the version; '' for any) 6 start (a new one is owed the events after this id; '' for none)
--      7 most (`add`: how many subscribers there may be; '' for any number), then operator events
-- Returns {'ok', last stream id}, {'exists'}, {'full'}, {'absent'} or {'changed'}. Run twice with the same value: 'ok' again.
local known = redis.call('HGET', KEYS[1], ARGV[1])
if ARGV[3] == 'add' and known and known ~= ARGV[2] then
  return {'exists'}
end
if ARGV[3] == 'add' and not known and ARGV[7] ~= '' then
  local count = redis.call('HLEN', KEYS[1]) - redis.call('HEXISTS', KEYS[1], ':version')
  if count >= tonumber(ARGV[7]) then
    return {'full'}
  end
end
if ARGV[3] == 'change' and known ~= ARGV[2] then
  if not known then
    return {'absent'}
  end
  if known ~= ARGV[4] or (ARGV[5] ~= '' and redis.call('HGET', KEYS[1], ':version') ~= ARGV[5]) then
    return {'changed'}
  end
end
local entry = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
local last = entry and entry[1] or '0-0'
if known ~= ARGV[2] then
  append_to_audit(KEYS[5])
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
  redis.call('HINCRBY', KEYS[1], ':version', 1)
  if not known and ARGV[6] ~= '' and entry then
    redis.call('HSET', KEYS[3], ARGV[1], ARGV[6] .. ' ' .. last)
  end
  for index = 8, foreign[4] and 0 or #ARGV do
    redis.call('RPUSH', KEYS[4], ARGV[index])
  end
end
return {'ok', last}
