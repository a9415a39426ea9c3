-- Write the operator event that has waited longest into the stream, and owe it to those who ask for it.
-- KEYS 1 subscribers 2 events 3 told, then lane and owed of each who is owed it
-- ARGV 1 version of the subscribers 2 the event as it waits 3 now, then field, value, …
-- Returns 1, or 0 if the subscribers or the event that is first are others by now.
local TYPES = {'hash', 'stream', 'list'}
for index, key in ipairs(KEYS) do
  local kind, expected = redis.call('TYPE', key).ok, TYPES[index] or 'zset'
  if kind ~= 'none' and kind ~= expected then
    return redis.error_reply('ERR ' .. key .. ' holds a ' .. kind .. ', not a ' .. expected)
  end
end
local function fixed_width(id)
  local ms, seq = string.match(id, '(%d+)-(%d+)')
  return string.rep('0', 15 - #ms) .. ms .. '-' .. string.rep('0', 20 - #seq) .. seq
end
if (redis.call('HGET', KEYS[1], ':version') or '0') ~= ARGV[1] or redis.call('LINDEX', KEYS[3], 0) ~= ARGV[2] then
  return 0
end
local id = redis.call('XADD', KEYS[2], '*', unpack(ARGV, 4))
for index = 4, #KEYS, 2 do
  redis.call('ZADD', KEYS[index], ARGV[3], id)
  redis.call('ZADD', KEYS[index + 1], 0, fixed_width(id))
end
redis.call('LPOP', KEYS[3])
return 1
