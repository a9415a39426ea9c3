-- Prepended to every script. A script names its keys at its head, in order, as `scripts.py` reads them: `refund:{refund}` is the
-- key of one refund. With a question mark, the script continues without the key if it has the wrong type.
-- Otherwise nothing is written while a key has another type than the catalogue (keys.py) says.
-- The last item of ARGV has one letter for each key: the first letter of its type, x for a stream, a for any. A capital
-- letter means that the script continues without the key: its number is then in `foreign`.
-- `note` reports damage to the caller: a key, the part of it (a member, a field; '' for all of it), what is wrong.
local foreign, notes = {}, {}
local function note(key, part, what)
  local last = #notes
  notes[last + 1], notes[last + 2], notes[last + 3] = key, part, what
end
do
  -- By the byte of the letter.
  local TYPES = {
    [104] = 'hash', [122] = 'zset', [108] = 'list', [115] = 'string', [120] = 'stream',
    [72] = 'hash', [90] = 'zset', [76] = 'list', [83] = 'string', [88] = 'stream',
  }
  local letters, call, byte = ARGV[#ARGV], redis.call, string.byte
  ARGV[#ARGV] = nil
  for index = 1, #KEYS do
    local letter, found = byte(letters, index), call('TYPE', KEYS[index]).ok
    if found ~= 'none' and found ~= TYPES[letter] and letter ~= 97 then
      if letter > 96 then
        return redis.error_reply('FOREIGN ' .. found .. ' ' .. KEYS[index])
      end
      foreign[index] = found
      note(KEYS[index], '', 'foreign ' .. found)
    end
  end
end

