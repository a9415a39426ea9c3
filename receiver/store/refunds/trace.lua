-- Add an entry to a refund's timeline, for display.
-- KEYS 1 trail:{refund}?   ARGV timeline_line
-- Returns 1. Run twice, the entry is written once unless another came in between.
if not foreign[1] and redis.call('LINDEX', KEYS[1], -1) ~= ARGV[1] then
  append_to_timeline(KEYS[1], ARGV[1])
end
return 1
