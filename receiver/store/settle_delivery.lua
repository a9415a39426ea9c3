-- What became of one try to deliver: delivered, retry (at `next`) or dead.
-- KEYS lane owed attempts dead   ARGV id fixed_id token outcome next attempts dead_entry
-- Returns 1, or 0 if the claim is no longer ours (then nothing is written). Safe to run twice.
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score or tonumber(score) ~= tonumber(ARGV[3]) then
  return 0
end
if ARGV[4] == 'retry' then
  redis.call('HSET', KEYS[3], ARGV[1], ARGV[6])
  redis.call('ZADD', KEYS[1], ARGV[5], ARGV[1])
  return 1
end
if ARGV[4] == 'dead' then
  redis.call('HSET', KEYS[4], ARGV[1], ARGV[7])
end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[2])
redis.call('HDEL', KEYS[3], ARGV[1])
return 1
