-- Finish the claim of a dispute: write what is known of it, when to ask again, and the event of a reminder with what each
-- subscriber is owed, in one step. Guarded by the claim's token, by the record as it was read, and by the version of the
-- subscriber list.
-- KEYS 1 disputes_due 2 disputes:{permission} 3 disputes_to_answer? 4 subscribers 5 events 6 backfill,
--      then lane and owed of each subscriber that is owed the event: one whose keys are damaged is owed it later, by the backfill
-- ARGV 1 member 2 token 3 dispute 4 the record as it was read 5 the new one ('': leave it) 6 when to ask next ('': never)
--      7 until when it has to be answered ('': it has not) 8 subscribers_version ('': no event) 9 now, then field, value, …
--      of the event's entry
-- Returns ok | lost (the claim is no longer ours) | record | subscribers (changed meanwhile). Run twice, the second time
-- says 'lost'.
if not holds_claim(KEYS[1], ARGV[1], ARGV[2]) then
  return 'lost'
end
if (redis.call('HGET', KEYS[2], ARGV[3]) or '') ~= ARGV[4] then
  return 'record'
end
if ARGV[8] ~= '' and (redis.call('HGET', KEYS[4], ':version') or '0') ~= ARGV[8] then
  return 'subscribers'
end
if ARGV[5] ~= '' then
  redis.call('HSET', KEYS[2], ARGV[3], ARGV[5])
end
plan(KEYS[1], ARGV[1], ARGV[6])
if not foreign[3] then
  plan(KEYS[3], ARGV[1], ARGV[7])
end
if ARGV[8] ~= '' then
  local last = redis.call('XREVRANGE', KEYS[5], '+', '-', 'COUNT', 1)[1]
  local id = redis.call('XADD', KEYS[5], '*', unpack(ARGV, 10))
  for lane = 7, #KEYS, 2 do
    owe(lane, KEYS[6], id, last and last[1] or '0-0', ARGV[9])
  end
end
return 'ok'
