-- Finish a claim that brought no change: write when to ask next, and what to remember of the hint.
-- KEYS 1 due 2 hinted 3 hints 4 refund:{refund}? 5 trail:{refund}? 6 refreshed 7 second_looks
-- ARGV refund token next hint revision timeline_line patient
--      (next '' = not scheduled, hint '' = forget it, revision '' = any revision,
--      timeline_line '' = none, patient '1' = `next` is a score among the refreshes, '2' = among the second looks, not in the
--      schedule)
-- Returns 1; or 0 if the claim is no longer ours, or the refund has another revision than `next` was computed from.
-- Safe to run twice.
if not holds_claim(KEYS[1], ARGV[1], ARGV[2]) then
  return 0
end
if ARGV[5] ~= '' and (foreign[4] or (redis.call('HGET', KEYS[4], 'revision') or '0') ~= ARGV[5]) then
  return 0
end
local hinted_again = redis.call('ZSCORE', KEYS[2], ARGV[1]) or redis.call('ZSCORE', KEYS[6], ARGV[1])
local elsewhere = ({['1'] = KEYS[6], ['2'] = KEYS[7]})[ARGV[7]]
plan(KEYS[1], ARGV[1], elsewhere and '' or ARGV[3])
if elsewhere and ARGV[3] ~= '' then
  redis.call('ZADD', elsewhere, 'NX', ARGV[3], ARGV[1])
end
if not hinted_again then
  if ARGV[4] == '' then
    redis.call('HDEL', KEYS[3], ARGV[1])
  else
    redis.call('HSET', KEYS[3], ARGV[1], ARGV[4])
  end
end
if ARGV[3] == '' and redis.call('EXISTS', KEYS[4]) == 0 then
  if not foreign[5] then
    redis.call('DEL', KEYS[5])
  end
elseif ARGV[6] ~= '' and not foreign[5] then
  append_to_timeline(KEYS[5], ARGV[6])
end
return 1
