-- Make refunds due now, and raise their revisions by a gap.
-- KEYS 1 due, then each refund   ARGV 1 now 2 gap, then the id and the expected revision of each refund
-- Returns how many revisions were raised. Safe to run twice: the second time, no refund has the expected revision.
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
