-- Set a whole key aside, whatever it holds.
-- KEYS key aside
-- Returns 1, or 0 if there is no such key. Run twice, the second time returns 0.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
return redis.call('RENAMENX', KEYS[1], KEYS[2])
