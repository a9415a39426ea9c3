-- Make an unclear request ready to be sent once more, under the same idempotency key, instead of resolving it by hand.
-- The caller holds the lease; if it dies, a worker continues once the lease has expired.
-- KEYS 1 requests:{request} 2 issuing 3 unclear 4 reserved 5 audit   ARGV 1 id 2 token 3 now
-- Returns 'reopened'; or, writing nothing, the state of a request that is not unclear ('': there is none).
-- Run twice, it says 'reserved' the second time. What is known of earlier attempts stays: only a 2xx resolves it
-- automatically.
local state = redis.call('HGET', KEYS[1], 'state')
if state ~= 'unclear' then
  return state or ''
end
append_to_audit(KEYS[5])
redis.call('HSET', KEYS[1], 'state', 'reserved', 'unknown', '1', 'at', ARGV[3])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZADD', KEYS[4], ARGV[3], ARGV[1])
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
return 'reopened'
