-- Resolve an unclear request by hand: done (Amazon made this refund) or refused (it made none).
-- Also resolves a request whose last attempt Amazon refused without naming the refund, unless an attempt is in progress.
-- KEYS 1 requests:{request} 2 charge:{charge} 3 unclear 4 taken:{charge} 5 issuing 6 reserved 7 audit
-- ARGV 1 id 2 outcome 3 reservation 4 refund_id 5 entry 6 ttl_ms, then field, value, …
-- Returns {'settled'}; or, writing nothing, {'busy'} if an attempt is in progress, {'taken', request} if the refund is
-- another request's, or {'state', state} if the request is in any other state, as after a repetition.
local state = redis.call('HGET', KEYS[1], 'state')
local refused = state == 'reserved' and redis.call('HGET', KEYS[1], 'last_error') == 'amazon_refuses_us'
if state ~= 'unclear' and not refused then
  return {'state', state or ''}
end
if refused and redis.call('HGET', KEYS[1], 'open') == '1' then
  return {'busy'}
end
if ARGV[2] == 'done' then
  local holder = redis.call('HGET', KEYS[4], ARGV[4])
  if holder and holder ~= ARGV[1] then
    return {'taken', holder}
  end
end
append_to_audit(KEYS[7])
if ARGV[2] == 'done' then
  redis.call('HSET', KEYS[4], ARGV[4], ARGV[1])
  redis.call('HSETNX', KEYS[2], ARGV[4], ARGV[5])
end
redis.call('HSET', KEYS[1], 'state', ARGV[2], unpack(ARGV, 7))
redis.call('PEXPIRE', KEYS[1], ARGV[6])
redis.call('HDEL', KEYS[2], ARGV[3])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[5], ARGV[1])
redis.call('ZREM', KEYS[6], ARGV[1])
return {'settled'}
