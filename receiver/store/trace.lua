-- One entry of a refund's trail, for people. A trail of a foreign type is left alone.
-- KEYS trail   ARGV trace trail_cap trail_kept_ms
-- Returns 1. Run twice, the entry stands there twice.
local length = redis.pcall('RPUSH', KEYS[1], ARGV[1])
if length == 1 then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
elseif type(length) == 'number' and length > tonumber(ARGV[2]) then
  redis.call('LTRIM', KEYS[1], -tonumber(ARGV[2]), -1)
end
return 1
