-- The version of the data's format: raised from one number to the next, or written where there is none.
-- KEYS format   ARGV 1 the number that is there ('' for none) 2 the new one
-- Returns the number that is there now. Safe to run twice, and for several processes at once.
if (redis.call('GET', KEYS[1]) or '') == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2])
end
return redis.call('GET', KEYS[1])
