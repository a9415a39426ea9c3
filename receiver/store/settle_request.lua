-- What became of a try: done, refused (by Amazon, for good), retry (at `next`) or unclear.
-- `unknown` is '1' or '0' for a try that has ended, and '' where none was made: what is known of an earlier one stays.
-- KEYS request charge issuing   ARGV 1 id 2 token 3 outcome 4 next 5 unknown 6 reservation 7 refund_id 8 entry, then field, value, …
-- A refusal after a try whose end is unknown is `unclear`: the amount stays reserved, and nobody tries again by himself.
-- `done` is a fact and is written whoever holds the request; all else only by the holder.
-- Returns what the request has come to, or '' if the claim is no longer ours. Safe to run twice.
local score = redis.call('ZSCORE', KEYS[3], ARGV[1])
local ours = score and tonumber(score) == tonumber(ARGV[2])
local outcome = ARGV[3]
local state = redis.call('HGET', KEYS[1], 'state')
if outcome ~= 'done' and (not ours or state == 'done') then
  return outcome ~= 'retry' and state ~= 'reserved' and state or ''
end
if outcome == 'refused' and redis.call('HGET', KEYS[1], 'unknown') == '1' then
  outcome = 'unclear'
end
if outcome == 'retry' then
  redis.call('HSET', KEYS[1], unpack(ARGV, 9))
  if ARGV[5] ~= '' then
    redis.call('HSET', KEYS[1], 'open', '0')
  end
  if ARGV[5] == '1' then
    redis.call('HSET', KEYS[1], 'unknown', '1')
  end
  redis.call('ZADD', KEYS[3], ARGV[4], ARGV[1])
  return outcome
end
redis.call('HSET', KEYS[1], 'open', '0', 'state', outcome, unpack(ARGV, 9))
if outcome == 'done' then
  redis.call('HSETNX', KEYS[2], ARGV[7], ARGV[8])
end
if outcome ~= 'unclear' then
  redis.call('HDEL', KEYS[2], ARGV[6])
end
if ours then
  redis.call('ZREM', KEYS[3], ARGV[1])
end
return outcome
