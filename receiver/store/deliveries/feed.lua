-- Read one page of an account's stream of events after a position, and detect lost entries, in one step.
-- A position has an epoch, the number of entries ever added up to and including an id, and that id. The epoch is a random
-- word that disappears with all other data if the store is emptied. The number shows exactly how many entries were trimmed.
-- KEYS 1 events 2 epoch
-- ARGV 1 an epoch to write if there is none 2 limit 3 the position's epoch, or 'beginning' or 'end' 4 its number 5 its id
-- Returns {epoch, number, id, last number, why, entries}: the position before the entries. `why` says why this is not the
-- requested position: '' (it is), 'trimmed' or 'emptied'. Safe to run twice.

local limit, number, id = tonumber(ARGV[2]), tonumber(ARGV[4]), ARGV[5]
if not limit or limit < 1 then
  return redis.error_reply('ERR a page has one entry at least')
end

local function parts(text)
  local ms, seq = string.match(text, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

local function is_after(one, other)
  local ms, seq = parts(one)
  local other_ms, other_seq = parts(other)
  return ms > other_ms or (ms == other_ms and seq > other_seq)
end

local about = {['entries-added'] = 0, ['length'] = 0, ['last-generated-id'] = '0-0'}
if redis.call('EXISTS', KEYS[1]) == 1 then
  local found = redis.call('XINFO', 'STREAM', KEYS[1])
  for at = 1, #found, 2 do
    about[found[at]] = found[at + 1]
  end
end
local added, last = about['entries-added'], about['last-generated-id']
local taken = added - about['length']

local epoch = redis.call('GET', KEYS[2])
if epoch and not string.match(epoch, '^%x%x?%x?%x?%x?%x?%x?%x?$') then
  note(KEYS[2], '', 'invalid epoch; a new one is written')
  epoch = nil
end
if not epoch then
  redis.call('SET', KEYS[2], ARGV[1])
  epoch = ARGV[1]
end

local why = ''
if ARGV[3] == 'end' then
  return {epoch, added, last, added, why, {}}
elseif ARGV[3] == 'beginning' then
  number, id = taken, '0-0'
elseif ARGV[3] ~= epoch or number > added or is_after(id, last) then
  why, number, id = 'emptied', taken, '0-0'
elseif number < taken then
  why, number, id = 'trimmed', taken, '0-0'
end
return {epoch, number, id, added, why, redis.call('XRANGE', KEYS[1], '(' .. id, '+', 'COUNT', limit)}
