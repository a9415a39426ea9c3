-- Change the state of a job: by the holder of its claim, or by a person.
-- KEYS 1 job:{job} 2 job_todo:{job} 3 job_outcomes:{job} 4 jobs 5 current_job 6 audit
-- ARGV 1 id 2 token ('' for a person) 3 the states in which this is possible, each between commas 4 state 5 when to work on it
--      ('' for never) 6 ms to keep it ('' if it is unfinished), then field, value, …
-- Returns the job's state before; '' if there is no job, or the claim is no longer ours. If that state is not one of those in
-- which it is possible, nothing was written.
local state = redis.call('HGET', KEYS[1], 'state')
if not state or (ARGV[2] ~= '' and not holds_claim(KEYS[4], ARGV[1], ARGV[2])) then
  return ''
end
if not string.find(ARGV[3], ',' .. state .. ',', 1, true) then
  return state
end
append_to_audit(KEYS[6])
redis.call('HSET', KEYS[1], 'state', ARGV[4], unpack(ARGV, 7))
plan(KEYS[4], ARGV[1], ARGV[5])
if ARGV[6] ~= '' then
  for index = 1, 3 do
    redis.call('PEXPIRE', KEYS[index], ARGV[6])
  end
  if redis.call('GET', KEYS[5]) == ARGV[1] then
    redis.call('DEL', KEYS[5])
  end
end
return state
