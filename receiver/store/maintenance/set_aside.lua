-- Move one field of a hash, or one member of a sorted set or list, into the hash `aside`.
-- KEYS key aside   ARGV part
-- Returns 1, or 0 if it does not exist. Safe to run twice.
local kind = redis.call('TYPE', KEYS[1]).ok
local held
if kind == 'hash' then
  held = redis.call('HGET', KEYS[1], ARGV[1])
elseif kind == 'zset' then
  held = redis.call('ZSCORE', KEYS[1], ARGV[1])
elseif kind == 'list' then
  held = redis.call('LPOS', KEYS[1], ARGV[1])
end
if not held then
  return 0
end
redis.call('HSET', KEYS[2], ARGV[1], held)
if kind == 'hash' then
  redis.call('HDEL', KEYS[1], ARGV[1])
elseif kind == 'zset' then
  redis.call('ZREM', KEYS[1], ARGV[1])
else
  redis.call('LREM', KEYS[1], 1, ARGV[1])
end
return 1
