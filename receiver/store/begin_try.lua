-- A try is about to be sent. If the one before it never ended, it may have reached Amazon.
-- KEYS request issuing   ARGV id token
-- Returns 1, or 0 if the claim is no longer ours, or the request needs no try any more: then nothing may be sent. Never re-send.
for index, expected in ipairs({'hash', 'zset'}) do
  local kind = redis.call('TYPE', KEYS[index]).ok
  if kind ~= 'none' and kind ~= expected then
    return redis.error_reply('ERR ' .. KEYS[index] .. ' holds a ' .. kind .. ', not a ' .. expected)
  end
end
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
