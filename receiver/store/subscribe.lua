-- Add a subscriber, or change one. Raises the version, so that no commit works with the list of before.
-- KEYS subscribers events   ARGV name json mode before      (mode add | put | change; `before`: change only this value)
-- Returns {'ok', last stream id}, {'exists'}, {'absent'} or {'changed'}. Run twice with the same value it says 'ok' again.
local known = redis.call('HGET', KEYS[1], ARGV[1])
if ARGV[3] == 'add' and known and known ~= ARGV[2] then
  return {'exists'}
end
if ARGV[3] == 'change' and known ~= ARGV[2] then
  if not known then
    return {'absent'}
  end
  if known ~= ARGV[4] then
    return {'changed'}
  end
end
if known ~= ARGV[2] then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
  redis.call('HINCRBY', KEYS[1], ':version', 1)
end
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
return {'ok', last and last[1] or '0-0'}
