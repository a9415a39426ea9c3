-- Make refunds due now, and count their revisions on from a higher number.
-- KEYS 1 due, then each refund   ARGV 1 now 2 gap, then the id and the expected revision of each refund
-- Returns how many revisions went up. Safe to run twice: then no refund has the revision that is expected.
local raised = 0
for index = 2, #KEYS do
  local id, revision = ARGV[2 * index - 1], ARGV[2 * index]
  if not foreign[index] and redis.call('HGET', KEYS[index], 'revision') == revision then
    redis.call('HINCRBY', KEYS[index], 'revision', ARGV[2])
    redis.call('ZADD', KEYS[1], 'LT', ARGV[1], id)
    raised = raised + 1
  end
end
return raised
