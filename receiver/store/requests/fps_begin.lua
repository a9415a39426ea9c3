-- Record that an attempt is about to be sent. The first one starts the period in which Amazon recognizes a repetition.
-- If the previous attempt never ended, it may have reached Amazon.
-- KEYS 1 fps:{reference} 2 fps_issuing   ARGV 1 reference 2 token 3 now 4 window_ms
-- Returns 'send', 'late' (the period is over), or '' if the claim is no longer ours: then nothing may be sent. Never re-send.
if not holds_claim(KEYS[2], ARGV[1], ARGV[2]) then
  return ''
end
if redis.call('HGET', KEYS[1], 'open') == '1' then
  redis.call('HSET', KEYS[1], 'unknown', '1')
end
local first = redis.call('HGET', KEYS[1], 'first_at')
if first and tonumber(ARGV[3]) - tonumber(first) >= tonumber(ARGV[4]) then
  return 'late'
end
redis.call('HSETNX', KEYS[1], 'first_at', ARGV[3])
redis.call('HSET', KEYS[1], 'open', '1')
redis.call('HINCRBY', KEYS[1], 'tries', 1)
return 'send'
