-- Add an entry to a refund's timeline, for display.
-- KEYS trail   ARGV timeline_line timeline_cap timeline_ttl_ms
-- Returns 1. Run twice, the entry is written once unless another came in between.
if not foreign[1] and redis.call('LINDEX', KEYS[1], -1) ~= ARGV[1] then
  local length = redis.call('RPUSH', KEYS[1], ARGV[1])
  if length == 1 then
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
  elseif length > tonumber(ARGV[2]) then
    redis.call('LTRIM', KEYS[1], -tonumber(ARGV[2]), -1)
  end
end
return 1
