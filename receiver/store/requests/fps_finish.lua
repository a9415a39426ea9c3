-- Record the outcome of an attempt: done, refused (permanently), or retry (at `next`).
-- KEYS 1 fps:{reference} 2 fps_issuing   ARGV 1 reference 2 token 3 outcome 4 next 5 unknown, then field, value, …
-- `unknown` is '1' or '0' for an attempt that ended, and '' if none was made: what is known of an earlier one stays.
-- A refusal after an attempt with an unknown result is `unclear`: the order is not retried automatically.
-- `done` is a fact: it is written with the order itself even if the claim was lost. The store may have been emptied
-- meanwhile, and an order without the time of its first attempt is never sent again. All else is written only under the
-- claim.
-- Returns the new state of the order, or '' if the claim is no longer ours. Safe to run twice.
local ours = holds_claim(KEYS[2], ARGV[1], ARGV[2])
local outcome = ARGV[3]
local state = redis.call('HGET', KEYS[1], 'state')
if outcome ~= 'done' and (not ours or state == 'done') then
  return outcome ~= 'retry' and state ~= 'reserved' and state or ''
end
if outcome == 'refused' and redis.call('HGET', KEYS[1], 'unknown') == '1' then
  outcome = 'unclear'
end
if outcome == 'retry' then
  redis.call('HSET', KEYS[1], unpack(ARGV, 6))
  if ARGV[5] ~= '' then
    redis.call('HSET', KEYS[1], 'open', '0')
  end
  if ARGV[5] == '1' then
    redis.call('HSET', KEYS[1], 'unknown', '1')
  end
  redis.call('ZADD', KEYS[2], ARGV[4], ARGV[1])
  return outcome
end
redis.call('HSETNX', KEYS[1], 'owner', ARGV[2])
redis.call('HSET', KEYS[1], 'open', '0', 'state', outcome, unpack(ARGV, 6))
if ours then
  redis.call('ZREM', KEYS[2], ARGV[1])
end
return outcome
