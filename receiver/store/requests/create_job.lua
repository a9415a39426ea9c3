-- Create a job with its refunds, unless the account has an unfinished one.
-- KEYS 1 job:{job} 2 job_todo:{job} 3 jobs 4 current_job 5 audit 6 job_list
-- ARGV 1 id 2 now 3 n, n values of the job's hash, then refund, line, …
-- Returns the id of the unfinished job, or '' if the job was created. Safe to run twice.
local current = redis.call('GET', KEYS[4])
if current then
  return current == ARGV[1] and '' or current
end
append_to_audit(KEYS[5])
local count = tonumber(ARGV[3])
redis.call('HSET', KEYS[1], unpack(ARGV, 4, 3 + count))
for at = 4 + count, #ARGV, 2 do
  redis.call('HSET', KEYS[2], ARGV[at], ARGV[at + 1])
end
redis.call('ZADD', KEYS[3], ARGV[2], ARGV[1])
redis.call('ZADD', KEYS[6], ARGV[2], ARGV[1])
redis.call('SET', KEYS[4], ARGV[1])
return ''
