-- Record the outcomes of some refunds of a job, and renew its lease. An outcome is a fact: it is written even if the claim was
-- lost, and only once, because a refund with an outcome is no longer in job_todo.
-- KEYS 1 job:{job} 2 job_todo:{job} 3 job_outcomes:{job} 4 jobs
-- ARGV 1 id 2 token 3 new token 4 now, then refund, line, counter ('' if there is no outcome yet), …
-- Returns whether the claim is still ours, as 1 or 0. Run twice, the second time says 0.
for at = 5, #ARGV, 3 do
  if redis.call('HEXISTS', KEYS[2], ARGV[at]) == 1 then
    if ARGV[at + 2] == '' then
      redis.call('HSET', KEYS[2], ARGV[at], ARGV[at + 1])
    else
      redis.call('HDEL', KEYS[2], ARGV[at])
      redis.call('RPUSH', KEYS[3], ARGV[at + 1])
      redis.call('HINCRBY', KEYS[1], ARGV[at + 2], 1)
      redis.call('HSET', KEYS[1], 'changed_at', ARGV[4])
    end
  end
end
local left = redis.call('PTTL', KEYS[1])
if left > 0 and redis.call('EXISTS', KEYS[3]) == 1 then
  redis.call('PEXPIRE', KEYS[3], left)
end
if holds_claim(KEYS[4], ARGV[1], ARGV[2]) then
  redis.call('ZADD', KEYS[4], ARGV[3], ARGV[1])
  return 1
end
return 0
