-- A person has found out what became of an unclear request: done (Amazon made this refund) or refused (it made none).
-- KEYS request charge unclear taken
-- ARGV 1 id 2 outcome 3 reservation 4 refund_id 5 entry 6 ttl_ms, then field, value, …
-- Returns {'settled'}, {'taken', request} where the refund is another request's, or {'state', state} where the request is
-- not unclear, which is where a repetition ends too: nothing is written then.
local state = redis.call('HGET', KEYS[1], 'state')
if state ~= 'unclear' then
  return {'state', state or ''}
end
if ARGV[2] == 'done' then
  local holder = redis.call('HGET', KEYS[4], ARGV[4])
  if holder and holder ~= ARGV[1] then
    return {'taken', holder}
  end
  redis.call('HSET', KEYS[4], ARGV[4], ARGV[1])
  redis.call('HSETNX', KEYS[2], ARGV[4], ARGV[5])
end
redis.call('HSET', KEYS[1], 'state', ARGV[2], unpack(ARGV, 7))
redis.call('PEXPIRE', KEYS[1], ARGV[6])
redis.call('HDEL', KEYS[2], ARGV[3])
redis.call('ZREM', KEYS[3], ARGV[1])
return {'settled'}
