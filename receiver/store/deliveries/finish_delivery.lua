-- Record the outcome of one attempt to deliver: delivered, retry (at `next`), dead, or dropped (a test).
-- KEYS 1 lane:{name} 2 owed:{name} 3 attempts:{name} 4 dead:{name} 5 deaths:{name} 6 copies:{name} 7 health:{name} 8 told?
--      9 trail:{refund}?
-- ARGV 1 id 2 fixed_id 3 token 4 outcome 5 next 6 attempts 7 dead_entry 8 now 9 failed ('1', '0', '': no effect on the health)
--      10 error 11 most_dead 12 ms between two probes 13 until when the subscriber asked for a pause ('': it did not)
--      14 line of the timeline ('': none), then operator events to publish
-- Returns {1, dead events dropped}; or {0}, writing nothing, if the claim is no longer ours. Safe to run twice.
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score or tonumber(score) ~= tonumber(ARGV[3]) then
  return {0}
end
local function count(field)
  local held = number(redis.call('HGET', KEYS[7], field), 0)
  redis.call('HSET', KEYS[7], field, string.format('%.0f', held >= 0 and held < 1e15 and held + 1 or 1))
end
if ARGV[9] == '1' then
  count('streak')
  redis.call('HSET', KEYS[7], 'error', ARGV[10], 'error_at', ARGV[8], 'probe',
    string.format('%.0f', tonumber(ARGV[8]) + tonumber(ARGV[12])))
elseif ARGV[9] == '0' then
  redis.call('HSET', KEYS[7], 'streak', '0', 'probe', '0', 'success_at', ARGV[8])
  redis.call('HDEL', KEYS[7], 'warned')
end
if ARGV[13] ~= '' then
  redis.call('HSET', KEYS[7], 'hold', ARGV[13])
end
for index = 15, foreign[8] and 0 or #ARGV do
  redis.call('RPUSH', KEYS[8], ARGV[index])
end
if ARGV[14] ~= '' and not foreign[9] then
  append_to_timeline(KEYS[9], ARGV[14])
end
if ARGV[4] == 'retry' then
  redis.call('HSET', KEYS[3], ARGV[1], ARGV[6])
  redis.call('ZADD', KEYS[1], ARGV[5], ARGV[1])
  return {1, 0}
end
local dropped = 0
if ARGV[4] == 'dead' then
  redis.call('HSET', KEYS[4], ARGV[1], ARGV[7])
  redis.call('ZADD', KEYS[5], 0, ARGV[2])
  while redis.call('ZCARD', KEYS[5]) > tonumber(ARGV[11]) do
    local ms, seq = string.match(redis.call('ZPOPMIN', KEYS[5])[1], '^0*(%d+)%-0*(%d+)$')
    if ms then
      redis.call('HDEL', KEYS[4], ms .. '-' .. seq)
    end
    dropped = dropped + 1
  end
end
if ARGV[4] == 'delivered' then
  count('delivered')
end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[2])
redis.call('HDEL', KEYS[3], ARGV[1])
redis.call('HDEL', KEYS[6], ARGV[1])
return {1, dropped}
