-- Save a requested refund by Flexible Payments. The caller holds the lease; if it dies, a worker continues once the lease
-- has expired. A reference is an id in the ledger: if the ledger has another refund with this id, the reference is taken.
-- KEYS 1 fps:{reference} 2 refund:{reference} 3 fps_issuing 4 audit
-- ARGV 1 reference 2 owner 3 token, then field, value, …
-- Returns {'reserved'}, {'taken'} or {'known', {field, value, …}}. Run twice by one owner it says 'reserved' again.
local owner = redis.call('HGET', KEYS[1], 'owner')
if owner == ARGV[2] then
  return {'reserved'}
end
if owner then
  return {'known', redis.call('HGETALL', KEYS[1])}
end
if redis.call('EXISTS', KEYS[2]) == 1 then
  return {'taken'}
end
append_to_audit(KEYS[4])
redis.call('HSET', KEYS[1], 'owner', ARGV[2], unpack(ARGV, 4))
redis.call('ZADD', KEYS[3], ARGV[3], ARGV[1])
return {'reserved'}
