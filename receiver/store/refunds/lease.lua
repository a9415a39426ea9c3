-- Take a lease, keep it, or give it up.
-- KEYS 1 reconciling   ARGV owner lease_ms ('0' = give it up)
-- Returns 1; or 0 if another owner holds it. Safe to run twice.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return 0
end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return 1
