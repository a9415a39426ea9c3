-- Record that an attempt is about to be sent. If the previous one never ended, it may have reached Amazon.
-- KEYS request issuing   ARGV id token
-- Returns 1; or 0 if the claim is no longer ours, or the request needs no more attempts: then nothing may be sent.
-- Never re-send.
local score = redis.call('ZSCORE', KEYS[2], ARGV[1])
if not score or tonumber(score) ~= tonumber(ARGV[2]) or redis.call('HGET', KEYS[1], 'state') ~= 'reserved' then
  return 0
end
if redis.call('HGET', KEYS[1], 'open') == '1' then
  redis.call('HSET', KEYS[1], 'unknown', '1')
end
redis.call('HSET', KEYS[1], 'open', '1')
redis.call('HINCRBY', KEYS[1], 'tries', 1)
return 1
