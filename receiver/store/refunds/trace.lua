-- Add an entry to a refund's timeline, for display.
-- KEYS 1 trail:{refund}?   ARGV timeline_line timeline_cap timeline_ttl_ms
-- Returns 1. Run twice, the entry is written once unless another came in between.
if not foreign[1] and redis.call('LINDEX', KEYS[1], -1) ~= ARGV[1] then
  append_to_timeline(KEYS[1], ARGV[1], ARGV[2], ARGV[3])
end
return 1
