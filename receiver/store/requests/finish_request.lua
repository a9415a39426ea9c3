-- Record the outcome of an attempt: done, refused (by Amazon, permanently), retry (at `next`) or unclear.
-- `unknown` is '1' or '0' for an attempt that ended, and '' if none was made: what is known of an earlier one stays.
-- KEYS 1 requests:{request} 2 charge:{charge} 3 issuing 4 reserved 5 unclear 6 taken:{charge}
-- ARGV 1 id 2 token 3 outcome 4 next 5 unknown 6 reservation 7 refund_id 8 entry 9 ttl_ms 10 now, then field, value, …
-- A refusal after an attempt with an unknown result is `unclear`: the amount stays reserved, the request is not retried
-- automatically, and it does not expire.
-- `done` is a fact: it is written even if the claim was lost, and even if a person has resolved the request. All else is
-- written only under the claim.
-- Returns the new state of the request, '' if the claim is no longer ours, or `contradicted`: it is done, but a person had
-- resolved it differently, or the refund is assigned to another request. Safe to run twice, except for that last word.
local id, outcome = ARGV[1], ARGV[3]
local ours = holds_claim(KEYS[3], id, ARGV[2])
local state = redis.call('HGET', KEYS[1], 'state')
if outcome ~= 'done' and (not ours or state ~= 'reserved') then
  return outcome ~= 'retry' and state and state ~= 'reserved' and state or ''
end
if outcome == 'refused' and redis.call('HGET', KEYS[1], 'unknown') == '1' then
  outcome = 'unclear'
end
if outcome == 'retry' then
  redis.call('HSET', KEYS[1], 'at', ARGV[10], unpack(ARGV, 11))
  redis.call('PEXPIRE', KEYS[1], ARGV[9])
  if ARGV[5] ~= '' then
    redis.call('HSET', KEYS[1], 'open', '0')
  end
  if ARGV[5] == '1' then
    redis.call('HSET', KEYS[1], 'unknown', '1')
  end
  redis.call('ZADD', KEYS[3], ARGV[4], id)
  return outcome
end

if not state then
  -- The store was emptied meanwhile. A caller that repeats the request gets the same refund from Amazon, by the same key.
  redis.call('HSET', KEYS[6], ARGV[7], id)
  redis.call('HSETNX', KEYS[2], ARGV[7], ARGV[8])
  return outcome
end
local answer = outcome
if outcome == 'done' then
  local before, holder = redis.call('HGET', KEYS[1], 'refund_id'), redis.call('HGET', KEYS[6], ARGV[7])
  local otherwise = before and before ~= '' and before ~= ARGV[7]
  if otherwise or (holder and holder ~= id) or state == 'refused' then
    answer = 'contradicted'
  end
  if otherwise and redis.call('HGET', KEYS[6], before) == id then
    redis.call('HDEL', KEYS[6], before)
  end
  redis.call('HSET', KEYS[6], ARGV[7], id)
  redis.call('HSETNX', KEYS[2], ARGV[7], ARGV[8])
  redis.call('HDEL', KEYS[1], 'settled_by', 'settled_by_user', 'reason_code', 'amazon_status', 'request_id', 'detail', 'last_error')
end
redis.call('HSET', KEYS[1], 'open', '0', 'state', outcome, 'at', ARGV[10], unpack(ARGV, 11))
redis.call('ZREM', KEYS[4], id)
if outcome == 'unclear' then
  redis.call('ZADD', KEYS[5], ARGV[10], id)
  redis.call('PERSIST', KEYS[1])
else
  redis.call('ZREM', KEYS[5], id)
  redis.call('HDEL', KEYS[2], ARGV[6])
  redis.call('PEXPIRE', KEYS[1], ARGV[9])
end
if ours then
  redis.call('ZREM', KEYS[3], id)
end
return answer
