-- Rewrite lines of a charge's book in the current form, if they have not changed since they were read.
-- KEYS 1 charge:{charge}   ARGV member, line as it was read, new line, …   Safe to run twice.
for index = 1, #ARGV, 3 do
  if redis.call('HGET', KEYS[1], ARGV[index]) == ARGV[index + 1] then
    redis.call('HSET', KEYS[1], ARGV[index], ARGV[index + 2])
  end
end
return redis.status_reply('OK')
