-- Goes before every script. Nothing is written while a key holds another type than the catalogue (keys.py) says.
-- The last of ARGV has the first letter of each key's type, x for a stream; a capital one where the script goes on without
-- the key: `foreign` has its number then.
-- `note` tells the caller of something damaged: a key, the part of it (a member, a field; '' for all of it), what it is.
local foreign, notes = {}, {}
local function note(key, part, what)
  for _, each in ipairs({key, part, what}) do
    table.insert(notes, each)
  end
end
do
  local TYPES = {h = 'hash', z = 'zset', l = 'list', s = 'string', x = 'stream'}
  local letters = table.remove(ARGV)
  for index, key in ipairs(KEYS) do
    local letter, found = string.sub(letters, index, index), redis.call('TYPE', key).ok
    if found ~= 'none' and found ~= TYPES[string.lower(letter)] then
      if letter == string.lower(letter) then
        return redis.error_reply('FOREIGN ' .. found .. ' ' .. key)
      end
      foreign[index] = found
      note(key, '', found)
    end
  end
end

-- A number that a person or another program may have written over: `default` where it is none, or has no end.
local function number(text, default)
  local found = tonumber(text)
  if not found or found ~= found or found == math.huge or found == -math.huge then
    return default
  end
  return found
end

local function fixed_width(id)
  local ms, seq = string.match(id, '(%d+)-(%d+)')
  return string.rep('0', 15 - #ms) .. ms .. '-' .. string.rep('0', 20 - #seq) .. seq
end

local function run()
