-- The version of the data's format: raised from one number to the next, or written if there is none.
-- KEYS format   ARGV 1 the current number ('' for none) 2 the new one
-- Returns the number afterwards. Safe to run twice, and by several processes at once.
if (redis.call('GET', KEYS[1]) or '') == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2])
end
return redis.call('GET', KEYS[1])
