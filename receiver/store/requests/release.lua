-- Remove a claimed item from a schedule.
-- KEYS schedule   ARGV member token
if holds_claim(KEYS[1], ARGV[1], ARGV[2]) then
  return redis.call('ZREM', KEYS[1], ARGV[1])
end
return 0
