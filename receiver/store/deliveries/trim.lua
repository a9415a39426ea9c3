-- Trim the stream of events, keeping everything that a queue owes or a backfill has not reached.
-- KEYS 1 events 2 subscribers 3 backfill, then owed and aside of every subscriber
-- ARGV 1 version of the subscribers 2 fixed id to trim at
-- Returns how many entries were removed, or -1 if the subscribers have changed. Safe to run twice.
if (redis.call('HGET', KEYS[2], ':version') or '0') ~= ARGV[1] then
  return -1
end
local cut = ARGV[2]
local function keep(id)
  if id and id < cut then
    cut = id
  end
end
for index = 4, #KEYS, 2 do
  local first = redis.call('ZRANGEBYLEX', KEYS[index], '-', '+', 'LIMIT', 0, 1)[1]
  while first and not string.match(first, '^%d+%-%d+$') do
    set_aside(KEYS[index], first, KEYS[index + 1], 'not an event id; set aside')
    first = redis.call('ZRANGEBYLEX', KEYS[index], '-', '+', 'LIMIT', 0, 1)[1]
  end
  keep(first)
end
for _, cursor in ipairs(redis.call('HVALS', KEYS[3])) do
  keep(fixed_width(string.match(cursor, '^%S+') or ''))
end
local ms, seq = string.match(cut, '^0*(%d+)%-0*(%d+)$')
return redis.call('XTRIM', KEYS[1], 'MINID', '=', ms .. '-' .. seq)
