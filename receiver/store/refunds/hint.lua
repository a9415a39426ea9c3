-- Record a hint: the refund is due now. `queue` is `hinted`; or `refreshed`, which waits behind notifications.
-- The `seen` mark only saves work, so it is written last.
-- Only XML notifications state a refund's type, so a later hint without a type does not erase it.
-- The timeline is for display only: a problem with its key never makes this script fail.
-- A refresh does not replace a notification about a refund that is not known yet. Amazon's API may not know the refund yet
-- either, and the notification is the reason to ask again.
-- KEYS 1 seen:{message} 2 hints 3 trail:{refund}? 4 refund:{refund}? 5 audit, then the queue
-- ARGV refund now digest ttl_ms hint timeline_line
-- Returns new | repeated | altered. Safe to run twice.
local seen = ARGV[3] ~= '' and redis.call('GET', KEYS[1])
if seen and seen == ARGV[3] then
  return 'repeated'
end
append_to_audit(KEYS[5])
local UP_TO_TYPE = '^(%["[^"]*",%d+,%d+,)"'
local held = redis.call('HGET', KEYS[2], ARGV[1]) or ''
local _, refund_type = string.match(held, UP_TO_TYPE .. '([%w_.:-]+)"')
local hint = refund_type and string.gsub(ARGV[5], UP_TO_TYPE .. '"', '%1"' .. refund_type .. '"') or ARGV[5]
local is_refresh = string.sub(ARGV[5], 1, 10) == '["refresh"'
local notified = string.sub(held, 1, 15) == '["notification"'
if not (is_refresh and notified and redis.call('EXISTS', KEYS[4]) == 0) then
  redis.call('HSET', KEYS[2], ARGV[1], hint)
end
redis.call('ZADD', KEYS[6], 'NX', ARGV[2], ARGV[1])
if not foreign[3] and redis.call('LINDEX', KEYS[3], -1) ~= ARGV[6] then
  append_to_timeline(KEYS[3], ARGV[6])
end
if ARGV[3] == '' then
  return 'new'
end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
return seen and 'altered' or 'new'
