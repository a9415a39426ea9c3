-- Shared functions. Each part between blank lines is prepended to the scripts that use its function.

-- A number that a person or another program may have overwritten: `default` if it is not a finite number.
local function number(text, default)
  local found = tonumber(text)
  if not found or found ~= found or found == math.huge or found == -math.huge then
    return default
  end
  return found
end

-- A stream id in a form whose byte order is the order of ids; nil if it is not an id.
local function fixed_width(id)
  local ms, seq = string.match(id, '^(%d+)%-(%d+)$')
  if not ms then
    return nil
  end
  return string.rep('0', 15 - #ms) .. ms .. '-' .. string.rep('0', 20 - #seq) .. seq
end

-- Append to a refund's timeline. It keeps the last entries, and expires 400 days after the first one, as refund requests do:
-- a timeline does not outlive its refund for ever.
local MOST_ENTRIES, KEPT_MS = 300, 400 * 86400000
local function append_to_timeline(key, entry)
  local length = redis.call('RPUSH', key, entry)
  if length == 1 then
    redis.call('PEXPIRE', key, KEPT_MS)
  elseif length > MOST_ENTRIES then
    redis.call('LTRIM', key, -MOST_ENTRIES, -1)
  end
end

-- Append the act of a person or a program to the audit trail: before the script's other writes, so that nothing is done without
-- its entry. The text holds a random word, and is looked for among the latest entries, so that a second run adds no entry.
-- `act` is the last item of ARGV; empty for what the service does by itself.
local act = ARGV[#ARGV]
ARGV[#ARGV] = nil
local function append_to_audit(key)
  if act == '' then
    return
  end
  for _, entry in ipairs(redis.call('XREVRANGE', key, '+', '-', 'COUNT', 50)) do
    if entry[2][2] == act then
      return
    end
  end
  redis.call('XADD', key, '*', 'entry', act)
end

-- Whether a claim is still ours: the score of what was claimed is the claim's token.
local function holds_claim(schedule, member, token)
  local score = redis.call('ZSCORE', schedule, member)
  return score and tonumber(score) == tonumber(token)
end

-- Schedule a member at a time; '' takes it off the schedule.
local function plan(schedule, member, at)
  if at == '' then
    redis.call('ZREM', schedule, member)
  else
    redis.call('ZADD', schedule, at, member)
  end
end

-- Move a damaged member of a sorted set, with its score, into the hash `aside`.
local function set_aside(key, member, aside, what)
  redis.call('HSET', aside, member, redis.call('ZSCORE', key, member))
  redis.call('ZREM', key, member)
  note(key, member, what)
end

-- An entry scheduled this far ahead is a mistake, so it becomes due now. Nothing is scheduled for more than 400 days.
local FARTHEST = 400 * 86400000
local function bring_back(key, now)
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', key, '(' .. string.format('%.0f', now + FARTHEST), '+inf', 'LIMIT', 0, 100)) do
    redis.call('ZADD', key, now, member)
    note(key, member, 'scheduled too far ahead; made due now')
  end
end

-- The fields of a throttle now, limited to possible values: a bucket is never below zero, and Amazon blocks for an hour at
-- most (`store/refunds/block.lua`). If a clock was ahead and was set back, the times that it wrote are shifted back.
local LONGEST_BLOCK = 3600000
local function read_throttle(key, now, burst, per_second)
  local held = redis.call('HMGET', key, 'tokens', 'at', 'blocked')
  local tokens, at, blocked = number(held[1], burst), number(held[2], now), number(held[3], 0)
  if at > now + 1000 then
    blocked, at = blocked - (at - now), now
  end
  if tokens < 0 or tokens > burst or (held[1] and not number(held[1])) then
    note(key, 'tokens', 'out of bounds; limited')
    tokens = math.max(0, math.min(tokens, burst))
  end
  if blocked > now + LONGEST_BLOCK or (held[3] and not number(held[3])) then
    note(key, 'blocked', 'out of bounds; ignored')
    blocked = 0
  end
  return math.min(burst, tokens + math.max(now - at, 0) * per_second / 1000), at, blocked
end

-- An entry of a charge's book (ledger/charge_book.py); nil for any other text. Lines of older versions do not
-- say when the refund began.
local function read_entry(line)
  local minor, state, began, currency, flag = string.match(line, '^(%S+) (%S+) (%d+) (%S+) ?(%a*)$')
  if not minor then
    minor, state = string.match(line, '^(%S+) (.+)$')
  end
  if minor ~= '?' and not (minor and string.match(minor, '^%d+$')) then
    return nil
  end
  return {minor = tonumber(minor), state = state, began = tonumber(began), currency = currency, conflict = flag == 'conflict'}
end

-- Whether the caller has named an entry: by its id, or by the request that has become this refund meanwhile.
local function is_named(member, besides, taken)
  if besides[(string.gsub(member, '^request:', ''))] then
    return true
  end
  local request = redis.call('HGET', taken, member)
  return request and besides[request]
end

-- Whether an open finding says that a report of Amazon's lists this refund as paid (ledger/reconciliation/finding.py).
local function is_paid_in_a_report(findings, refund)
  for _, kind in ipairs({'settled_but_declined', 'state_differs'}) do
    local found = redis.call('HGET', findings, kind .. ' ' .. refund)
    local says_paid = found and (kind == 'settled_but_declined' or string.find(found, '"there":"Refunded"', 1, true))
    if says_paid and not string.find(found, '"closedAt":', 1, true) then
      return true
    end
  end
  return false
end

-- The entries of a charge's book, each with its `member`, its `line`, and whether the caller has named it; or nil and the
-- error of an unreadable one. A declined refund that a report lists as paid is in conflict, unless it is named.
local function read_book(key, findings, besides, taken)
  local entries, book = {}, redis.call('HGETALL', key)
  for index = 1, #book, 2 do
    local member, line = book[index], book[index + 1]
    local entry = read_entry(line)
    if not entry then
      return nil, redis.error_reply('DAMAGED ' .. key .. ' ' .. string.gsub(member, '[^%w%p]', '?'))
    end
    entry.member, entry.line, entry.is_named = member, line, is_named(member, besides, taken)
    if entry.state == 'Declined' and not entry.conflict and not entry.is_named and is_paid_in_a_report(findings, member) then
      entry.conflict, entry.line = true, line .. ' conflict'
    end
    table.insert(entries, entry)
  end
  return entries
end

-- Whether an entry may be the very refund that is asked for, paid another way: it began at `since` (nil: never) or later.
local function may_be_the_same(entry, minor_units, currency, since)
  return since
    and (entry.minor == nil or entry.minor == minor_units)
    and (entry.currency == nil or entry.currency == '-' or entry.currency == currency)
    and (entry.began == nil or entry.began >= since)
end

-- Whether a dispute guards the charge (store/refunds/disputes.py): the buyer may have the money.
local function is_disputed(disputes, charge)
  for _, line in ipairs(redis.call('HVALS', disputes)) do
    local standing, about = string.match(line, '^(%a+) (%S+) ')
    if standing ~= 'over' and (about == nil or about == '-' or about == charge) then
      return true
    end
  end
  return false
end

-- Owe an event to a subscriber, whose lane and owed are KEYS[lane] and KEYS[lane + 1]. If one of them is damaged, the backfill
-- owes it later, from its cursor or from the event `before`.
local function owe(lane, backfill, id, before, at)
  if foreign[lane] or foreign[lane + 1] then
    local name = string.match(KEYS[lane], '}:lane:(.*)$')
    local cursor = string.match(redis.call('HGET', backfill, name) or '', '^(%d+%-%d+) ')
    redis.call('HSET', backfill, name, (cursor or before) .. ' ' .. id)
  else
    redis.call('ZADD', KEYS[lane], at, id)
    redis.call('ZADD', KEYS[lane + 1], 0, fixed_width(id))
  end
end
