-- Make disputes of one charge permission due now, unless this was done lately. A claim of them ends.
-- KEYS 1 disputes_asked:{permission} 2 disputes_due   ARGV now lately_ms, then each dispute
-- Returns 1, or 0 if it was done lately. Safe to run twice.
if not redis.call('SET', KEYS[1], '', 'PX', ARGV[2], 'NX') then
  return 0
end
for index = 3, #ARGV do
  redis.call('ZADD', KEYS[2], 'LT', ARGV[1], ARGV[index])
end
return 1
