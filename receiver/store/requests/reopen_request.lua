-- An unclear request is to be sent once more, under the same key of Amazon's, before anybody settles it by hand.
-- The caller holds the lease; if it dies, a worker goes on when the lease has run out.
-- KEYS request issuing unclear reserved   ARGV 1 id 2 token 3 now
-- Returns 'reopened', or the state of a request that is not unclear ('': there is none): nothing is written then.
-- Run twice, it says 'reserved' the second time. What is known of earlier tries stays: only a 2xx settles it by itself.
local state = redis.call('HGET', KEYS[1], 'state')
if state ~= 'unclear' then
  return state or ''
end
redis.call('HSET', KEYS[1], 'state', 'reserved', 'unknown', '1', 'at', ARGV[3])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZADD', KEYS[4], ARGV[3], ARGV[1])
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
return 'reopened'
